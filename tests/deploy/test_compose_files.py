"""The compose files against settings and images; `make test-compose` runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.vendor.compose_stack import Stack
from vl2v_vendor.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


class _Loader(yaml.SafeLoader):
    """Reads the tags of docker compose as plain values."""


_Loader.add_constructor("!reset", lambda _loader, _node: None)


def _services(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.load((ROOT / name).read_text(), _Loader)["services"]
    return services


ALONE, REPLICAS = _services("docker-compose.yml"), _services("docker-compose.replicas.yml")
OURS = {name: ALONE.get(name, {}) | REPLICAS.get(name, {}) for name in ("postgres", "vendor", "haproxy", "pgbouncer")}


@pytest.mark.parametrize("service", OURS)
def test_each_container_is_hardened(service: str) -> None:
    found = OURS[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert ("cap_add" in found) == (service == "postgres")


def test_images_are_of_this_release() -> None:
    images = [found["image"] for found in (*OURS.values(), _services("docker-compose.gpu.yml")["vendor"])]
    ours = [image for image in images if "vl2v-" in image]
    assert len(ours) == 4
    assert {re.sub(r"-cuda$|\}$", "", image).rpartition(":")[2] for image in ours} == {VERSION}


def _foreign_images() -> dict[str, str]:
    """Of each service, the image that is not built here, or the base of the one that is."""
    services = ALONE | {name: REPLICAS[name] for name in ("haproxy", "pgbouncer")}
    return {
        name: found["build"]["args"]["BASE"] if "build" in found else found["image"] for name, found in services.items()
    }


def test_each_image_of_others_is_a_variable_that_defaults_to_a_version() -> None:
    found = _foreign_images()
    assert found.keys() == {*OURS, "prometheus", "grafana"}
    for service, image in found.items():
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:(?!latest)[\w.-]+\}", image), service
    for service, folder in {"vendor": ".", "haproxy": "deploy/haproxy", "pgbouncer": "deploy/pgbouncer"}.items():
        text = (ROOT / folder / "Dockerfile").read_text()
        (base,) = re.findall(r"^ARG BASE=(.*)\nFROM \$\{BASE\}$", text, re.MULTILINE)
        assert found[service].endswith(f":-{base}}}"), service


def test_a_release_can_name_each_image_of_others_by_its_digest() -> None:
    images = {image.strip("${}").replace(":-", " ", 1) for image in _foreign_images().values()}
    assert len(images) == 5
    page = (ROOT / "docs" / "operating" / "docker.md").read_text()
    ((pinning, wanted),) = re.findall(r"```console\n(while read .*?)<<END\n(.*?)END\n", page, re.DOTALL)
    assert "RepoDigests" in pinning
    assert {*wanted.splitlines()} == images
    example = (ROOT / ".env.example").read_text()
    assert {*re.findall(r"^# ([A-Z]+_IMAGE=.*)$", example, re.MULTILINE)} == {name.replace(" ", "=") for name in images}


@pytest.mark.parametrize(("status", "ready"), [(1, True), (0, False)], ids=["docker gave up", "nobody answers"])
def test_a_start_has_failed_if(status: int, ready: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho a vendor is unhealthy >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(Stack, "is_ready", lambda *_, **__: ready)
    with pytest.raises(AssertionError, match="a vendor is unhealthy"):
        Stack(tmp_path, "none", 1).up()


def test_a_start_may_take_as_long_as_a_model_may_take_to_load() -> None:
    (start,) = re.findall(r"--start-period=(\d+)s", (ROOT / "Dockerfile").read_text())
    assert int(start) >= DEFAULTS["max_load_seconds"] + 60


def test_deadlines_fit_those_of_the_vendor() -> None:
    proxy = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    (hard_stop,) = map(int, re.findall(r"hard-stop-after (\d+)s", proxy))
    vendor, haproxy = (int(OURS[name]["stop_grace_period"].removesuffix("s")) for name in ("vendor", "haproxy"))
    assert DEFAULTS["shutdown_seconds"] < vendor <= hard_stop < haproxy
    (check,) = map(int, re.findall(r"timeout check (\d+)s", proxy))
    (probe,) = map(int, re.findall(r"--timeout=(\d+)s --start-period", (ROOT / "Dockerfile").read_text()))
    assert min(check, probe) > 5  # how long the route waits for its checks


def test_each_variable_is_a_setting() -> None:
    text = (ROOT / ".env.example").read_text()
    named = re.findall(rf"^(?:# )?{ENV_PREFIX}(\w+)=", text, re.MULTILINE)
    named += [name.removeprefix(ENV_PREFIX) for found in (ALONE, REPLICAS) for name in found["vendor"]["environment"]]
    assert len(named) > 10
    assert {name.lower() for name in named} - DEFAULTS.keys() == set()


def test_no_model_of_ones_own_is_taken_into_git() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "deploy/models/own.json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 128:
        pytest.skip("this is no git checkout")
    assert done.stdout.strip() == "deploy/models/own.json"


def test_test_compose_says_what_is_missing() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "test-compose", "DOCKER=no-such-docker"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no-such-docker is missing" in done.stderr
    assert "apt install" in done.stderr
