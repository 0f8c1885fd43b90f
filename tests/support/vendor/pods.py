"""The pods of deploy/kubernetes without a cluster: rendered by kubectl, and run by podman beside a PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "deploy" / "kubernetes"
NAME = "vl2v-test-pod"
"""Of the network and of the database in it."""

VENDOR, MIGRATION = "vendor-pod-vendor", "migrate-pod-migrate"
"""Containers, as podman names them."""

_PODMAN = shlex.split(os.environ.get("PODMAN", "podman --runtime runc --cgroup-manager cgroupfs"))
_PASSWORD = "try"
_READY_SECONDS = 900

Document = dict[str, Any]


def missing_podman() -> str | None:
    """What is missing to play pods here, and how to get it; None if nothing is."""
    for program, package in {
        _PODMAN[0]: "podman",
        "runc": "runc",
        "catatonit": "catatonit",
        "kubectl": "kubernetes-client",
    }.items():
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/libexec/podman") is None:
            return f"{program} is missing; Debian: apt install {package}"
    return None


@dataclass
class Pods:
    """Pods of one test, whose images, containers and volumes lie in a folder of their own.

    Attributes:
        folder: For all of it; `remove` empties it.
        port: The host's port of the vendor, on 127.0.0.1.
    """

    folder: Path
    port: int
    _played: list[str] = field(default_factory=list, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def podman(self, *words: str, text: str = "", check: bool = True, seconds: float = 600) -> str:
        """Run a command of podman; returns what it printed, or also its errors if they may be."""
        places = ("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"))
        done = subprocess.run(
            [*_PODMAN, *places, *words], input=text, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert not check or done.returncode == 0, f"podman {' '.join(words)}: {done.stderr[-4000:]}"
        return done.stdout.strip() if check else (done.stdout + done.stderr).strip()

    def logs(self, container: str) -> str:
        return self.podman("logs", container, check=False)

    def load(self, *images: str) -> None:
        """Copy images from Docker."""
        archive = self.folder / "images.tar"
        subprocess.run(["docker", "save", "--output", str(archive), *images], check=True)
        self.podman("load", "--input", str(archive))
        archive.unlink()

    def start_database(self, image: str) -> None:
        """A PostgreSQL with the two roles of docs/operating/database.md, the owner as its superuser."""
        self.podman("network", "create", NAME)
        settings = {"POSTGRES_USER": "vl2v_owner", "POSTGRES_DB": "vl2v", "POSTGRES_PASSWORD": _PASSWORD}
        words = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
        self.podman("run", "--detach", "--name", NAME, "--network", NAME, *words, image)
        deadline = time.monotonic() + 120
        while "accepting" not in self.podman("exec", NAME, "pg_isready", "--host", NAME, check=False):
            assert time.monotonic() < deadline, self.logs(NAME)
            time.sleep(0.5)
        self.query(f"CREATE ROLE vl2v_service LOGIN PASSWORD '{_PASSWORD}'")

    def query(self, sql: str) -> None:
        words = ("psql", "--set", "ON_ERROR_STOP=1", "--username", "vl2v_owner", "vl2v")
        self.podman("exec", "--interactive", NAME, *words, text=sql)

    def grant(self) -> None:
        """Give the service role its rights, by the statements of the documents."""
        page = (ROOT / "docs" / "operating" / "database.md").read_text()
        self.query(re.findall(r"```sql\n(.*?)```", page, re.DOTALL)[1])

    def play(self, documents: Sequence[Document], *options: str) -> None:
        """Run pods, with their Secrets, settings and volumes; podman ignores what else there is."""
        text = yaml.safe_dump_all([_suit_podman(document) for document in documents])
        self._played.append(text)
        self.podman("kube", "play", "--network", NAME, "--start=false", *options, "-", text=text)
        for document in documents:
            if document["kind"] in ("Deployment", "Job"):
                self._give_secrets_to_the_group(document["spec"]["template"]["spec"])
                self.podman("pod", "start", f"{document['metadata']['name']}-pod")

    def _give_secrets_to_the_group(self, pod: Document) -> None:
        """Do with the files of a mounted Secret what a kubelet does because of `fsGroup`."""
        group, image = str(pod["securityContext"]["fsGroup"]), pod["containers"][0]["image"]
        for volume in pod["volumes"]:
            if "secret" in volume:
                mount = f"{volume['secret']['secretName']}:/secret"
                self.podman("run", "--rm", "--user=0", "--volume", mount, image, "chgrp", "-R", group, "/secret")

    def wait_until_ready(self, seconds: float = _READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=20):
                    return
            except OSError:
                assert time.monotonic() < deadline, self.logs(VENDOR)
                time.sleep(0.5)

    def remove(self) -> None:
        """Remove everything: pods, containers, volumes, images."""
        for text in self._played:
            self.podman("kube", "down", "--force", "-", text=text, check=False)
        self.podman("rm", "--all", "--force", "--volumes", "--time", "0", check=False)
        self.podman("network", "rm", "--force", NAME, check=False)
        self.podman("system", "reset", "--force", check=False)


def render(folder: str) -> list[Document]:
    """The documents of a folder of deploy/kubernetes."""
    words = ["kubectl", "kustomize", str(MANIFESTS / folder)]
    return list(yaml.safe_load_all(subprocess.run(words, capture_output=True, text=True, check=True).stdout))


def secrets_of(folder: Path) -> list[Document]:
    """The Secrets of the example, filled in; the signing keys are made in `folder` as the documents say."""
    environment = os.environ | {"VL2V_VENDOR_DATA_DIR": str(folder)}
    words = [sys.executable, "-m", "vl2v_vendor", "accounts", "create", "nobody", "--budget", "0"]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    owner, service = (f"postgresql://{role}:{_PASSWORD}@{NAME}:5432/vl2v" for role in ("vl2v_owner", "vl2v_service"))
    values = {
        "vendor-database": service,
        "vendor-database-owner": owner,
        "vendor-signing-keys": (folder / "vendor-secrets.json").read_text(),
    }
    filled = list(yaml.safe_load_all((MANIFESTS / "secrets.example.yaml").read_text()))
    for secret in filled:
        ((key, _),) = secret["stringData"].items()
        secret["stringData"] = {key: values[secret["metadata"]["name"]]}
    return filled


def _suit_podman(document: Document) -> Document:
    """Change what podman cannot do: an emptyDir in memory is root's."""
    for volume in document.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
        if "medium" in volume.get("emptyDir", {}):
            volume["emptyDir"] = {}
    return document


def state_of(pods: Pods, container: str) -> Document:
    """What podman knows of a container."""
    (found,) = json.loads(pods.podman("inspect", container))
    return dict(found)
