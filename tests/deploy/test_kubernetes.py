"""The Kubernetes manifests against image, routes and settings; `make check-deploy` checks them by their schemas."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vl2v_vendor.keys.secrets import SecretsError, load_secrets
from vl2v_vendor.settings import ENV_PREFIX, Settings, load_settings
from vl2v_vendor.web.routes import public

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = MANIFESTS / "secrets.example.yaml"

Document = dict[str, Any]


def _documents(text: str) -> list[Document]:
    return list(yaml.safe_load_all(text))


def _read(name: str) -> Document:
    (document,) = _documents((MANIFESTS / name).read_text())
    return document


DEPLOYMENT, JOB = _read("base/deployment.yaml"), _read("migrate/job.yaml")
VENDOR = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]


def _pod(workload: Document) -> Document:
    pod: Document = workload["spec"]["template"]["spec"]
    return pod


def _containers(workload: Document) -> list[Document]:
    return [*_pod(workload).get("initContainers", []), *_pod(workload)["containers"]]


def _literals(folder: Path) -> dict[str, str]:
    generators = yaml.safe_load((folder / "kustomization.yaml").read_text()).get("configMapGenerator", [])
    return dict(line.split("=", 1) for generator in generators for line in generator["literals"])


def _assert_hardened(workload: Document) -> None:
    pod, (uid,) = _pod(workload), re.findall(r"--uid (\d+)", DOCKERFILE)
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    assert {context[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {int(uid)}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert not any("hostPath" in volume for volume in volumes.values())
    for container in _containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all({"cpu", "memory"} <= container["resources"][bound].keys() for bound in ("requests", "limits"))
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()


def _assert_of_this_release(workload: Document) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["vendor"]["image"]
    (image,) = re.findall(r"^\$\{VENDOR_IMAGE:-(.*)\}$", compose)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {container["image"] for container in _containers(workload)} == {image}
    assert image.endswith(f":{version}")


@pytest.mark.parametrize("workload", [DEPLOYMENT, JOB], ids=["deployment", "job"])
def test_each_container_is_hardened_and_of_this_release(workload: Document) -> None:
    _assert_hardened(workload)
    _assert_of_this_release(workload)


def test_the_vendor_can_write_where_the_image_writes() -> None:
    (folders,) = re.findall(r"mkdir -p (.*) &&", DOCKERFILE)
    writable = {mount["mountPath"] for mount in VENDOR["volumeMounts"] if not mount.get("readOnly")}
    assert {*folders.split(), "/tmp"} <= writable


def test_the_keys_are_mounted_for_the_group_alone_and_what_was_signed_is_kept() -> None:
    mounts = {mount["name"]: mount for mount in VENDOR["volumeMounts"]}
    (keys,) = [volume for volume in _pod(DEPLOYMENT)["volumes"] if "secret" in volume]
    assert keys["secret"]["defaultMode"] == 0o440  # with fsGroup, what the vendor accepts
    assert mounts[keys["name"]]["readOnly"] is True
    files = {variable["name"]: variable.get("value") for variable in VENDOR["env"]}
    assert files[f"{ENV_PREFIX}SECRETS_FILE"] == f"{mounts[keys['name']]['mountPath']}/vendor-secrets.json"
    assert files[f"{ENV_PREFIX}PUBLISHED_HEADS_FILE"] == f"{mounts['data']['mountPath']}/vendor-published-heads.json"
    assert len(_containers(DEPLOYMENT)) == 1


def test_probes_ask_for_routes_of_the_vendor_on_its_port() -> None:
    routes = {getattr(route, "path", None) for route in public.router.routes}
    ports = {port["name"]: port["containerPort"] for port in VENDOR["ports"]}
    for name, path in {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}.items():
        request = VENDOR[name]["httpGet"]
        assert request["path"] == path
        assert path in routes
        assert ports[request["port"]] == int(re.findall(r"EXPOSE (\d+)", DOCKERFILE)[0])
    assert {port["targetPort"] for port in _read("base/service.yaml")["spec"]["ports"]} == {*ports}


def test_deadlines_fit_those_of_the_vendor() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    start = VENDOR["startupProbe"]["periodSeconds"] * VENDOR["startupProbe"]["failureThreshold"]
    assert start + defaults["max_load_seconds"] < DEPLOYMENT["spec"]["progressDeadlineSeconds"]
    pause = int(VENDOR["lifecycle"]["preStop"]["exec"]["command"][1])
    assert _pod(DEPLOYMENT)["terminationGracePeriodSeconds"] >= pause + defaults["shutdown_seconds"] + 10
    assert VENDOR["readinessProbe"]["timeoutSeconds"] > 5  # how long the route waits for its checks


def test_each_variable_is_a_setting() -> None:
    names = [variable["name"] for workload in (DEPLOYMENT, JOB) for variable in _containers(workload)[-1]["env"]]
    for folder in (MANIFESTS / "base", *OVERLAYS):
        names += _literals(folder)
    assert len(names) > 5
    assert {name.removeprefix(ENV_PREFIX).lower() for name in names} - Settings.model_fields.keys() == set()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_settings_of_an_overlay_are_accepted(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in (_literals(MANIFESTS / "base") | _literals(overlay)).items():
        monkeypatch.setenv(name, value)
    assert load_settings().log_format == "json"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_overlays_leave_security_images_and_probes_alone(overlay: Path) -> None:
    text = (overlay / "kustomization.yaml").read_text()
    assert not re.search(r"securityContext|image|Probe|command|host(Network|PID|IPC|Path)", text)


def test_a_service_gives_pods_no_variable_that_is_read_as_a_setting() -> None:
    name = _read("base/service.yaml")["metadata"]["name"]
    assert not f"{name.upper().replace('-', '_')}_PORT".startswith(ENV_PREFIX)


def test_selectors_find_the_vendor_and_not_the_migration() -> None:
    labels, others = (workload["spec"]["template"]["metadata"]["labels"] for workload in (DEPLOYMENT, JOB))
    for name in ("deployment", "disruption-budget", "service", "network-policy"):
        spec = _read(f"base/{name}.yaml")["spec"]
        selector = spec.get("selector", spec.get("podSelector"))
        assert selector.get("matchLabels", selector) == labels != others
    assert _read("migrate/network-policy.yaml")["spec"]["podSelector"]["matchLabels"] == others


def _secrets_used(workload: Document) -> Iterator[tuple[str, str]]:
    for container in _containers(workload):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield reference["name"], reference["key"]
    for volume in _pod(workload)["volumes"]:
        if "secret" in volume:
            yield volume["secret"]["secretName"], "vendor-secrets.json"


def test_example_secrets_are_those_that_the_pods_use_and_are_refused(tmp_path: Path) -> None:
    examples = {
        (secret["metadata"]["name"], key): value
        for secret in _documents(EXAMPLE.read_text())
        for key, value in secret["stringData"].items()
    }
    assert examples.keys() == {*_secrets_used(DEPLOYMENT), *_secrets_used(JOB)}
    keys = tmp_path / "vendor-secrets.json"
    keys.write_text(examples.pop(("vendor-signing-keys", keys.name)))
    keys.chmod(0o600)
    with pytest.raises(SecretsError, match="not a secrets file"):
        load_secrets(keys)
    for url in examples.values():  # a name that never resolves
        assert re.fullmatch(r"postgresql://\w+:\w+@[\w.-]+\.invalid:5432/vl2v", url)


def test_no_kustomization_includes_the_example_secrets() -> None:
    files = [*MANIFESTS.rglob("kustomization.yaml")]
    assert len(files) == 5
    assert not any(EXAMPLE.name in path.read_text() for path in files)


@pytest.mark.parametrize("folder", [MANIFESTS / "migrate", *OVERLAYS], ids=lambda path: path.name)
def test_what_kubectl_renders_is_hardened_too(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; `make check-deploy` says how to get it")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    (workload,) = [document for document in _documents(done.stdout) if document["kind"] in ("Deployment", "Job")]
    _assert_hardened(workload)
    _assert_of_this_release(workload)


def test_check_deploy_says_what_is_missing() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "check-deploy", "KUBECTL=no-such-kubectl"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no-such-kubectl is missing" in done.stderr
    assert "apt install" in done.stderr
