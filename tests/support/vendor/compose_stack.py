"""The compose files in a folder of their own, with an `.env` of their own: started, disturbed and removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
COPIED = ("docker-compose.yml", "docker-compose.replicas.yml", "deploy/models", "deploy/haproxy", "deploy/pgbouncer")

START_SECONDS = 900
"""For a start on a busy machine, image builds not included."""


@dataclass
class Stack:
    """A project of docker compose, of one vendor or of three behind a proxy.

    Attributes:
        folder: Where the files are copied to; its `.env` is written by `configure`.
        port: The host's port, on 127.0.0.1.
    """

    folder: Path
    project: str
    port: int
    is_replicated: bool = False
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lay_out(self) -> None:
        """Copy the files, as somebody does who has only them and the images."""
        for name in COPIED:
            source, target = ROOT / name, self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
        self.configure()

    def configure(self, **settings: str) -> None:
        """Write `.env`, with what was set before and these settings, as they stand."""
        self.settings |= settings
        lines = {"PUBLISH": f"127.0.0.1:{self.port}", "PROXY_SUBNET": "10.83.78.0/24"} | self.settings
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def compose(self, *words: str, check: bool = True, text: str | None = None, seconds: float = 300) -> str:
        """Run a command of docker compose in the folder; returns what it printed, with its errors if they may be."""
        done = self._run(*words, text=text, seconds=seconds)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr[-4000:]}"
        return done.stdout if check else done.stdout + done.stderr

    def _run(self, *words: str, text: str | None = None, seconds: float) -> subprocess.CompletedProcess[str]:
        files = ["docker-compose.yml", *(["docker-compose.replicas.yml"] if self.is_replicated else [])]
        options = [word for name in files for word in ("--file", name)]
        command = ["docker", "compose", "--progress", "plain", "--project-name", self.project, *options, *words]
        return subprocess.run(
            command, cwd=self.folder, input=text or "", capture_output=True, text=True, check=False, timeout=seconds
        )

    def up(self, *words: str) -> None:
        """Start what is not running: `--wait` has to find all of it healthy, and the address has to answer."""
        done = self._run("up", "--detach", "--wait", "--no-build", *words, seconds=START_SECONDS)
        said = f"{done.stdout[-1000:]}{done.stderr[-3000:]}\n{self.logs()[-3000:]}"
        assert done.returncode == 0, f"`up --wait` gave up: {said}"
        assert self.is_ready(seconds=30), f"healthy, but not ready: {said}"

    def is_ready(self, *, seconds: float = 0) -> bool:
        """Whether the address answers that it is ready, now or in some seconds, as when the proxy has yet to notice."""
        deadline = time.monotonic() + seconds
        while not (ready := self._answers_ready()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return ready

    def _answers_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=20) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def logs(self, service: str = "vendor") -> str:
        return self.compose("logs", "--no-color", service, check=False)

    def vendors(self) -> list[str]:
        """The ids of the vendors' containers."""
        return self.compose("ps", "--all", "--quiet", "vendor").split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        ids = self.compose("ps", "--all", "--quiet", service).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids))
        return found

    def staff(self, *words: str) -> Any:
        """Run a command of the vendor's staff beside the server; returns its JSON."""
        return json.loads(self.compose("exec", "-T", "vendor", "vl2v-vendor", *words, "--json"))

    def create_key(self, account: str, budget: int) -> str:
        return str(self.staff("keys", "create", "--account", account, "--budget", str(budget))["secret"])

    def used_units(self, account: str) -> int:
        found = {each["name"]: each["budget"] for each in self.staff("accounts", "list")}
        return int(found[account]["used_units"])

    def verify(self) -> None:
        """Check the whole ledger."""
        self.staff("ledger", "verify")

    def remove(self) -> None:
        """Stop and remove everything, volumes too."""
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans", check=False)


def docker(*words: str, text: str = "", seconds: float = 300) -> str:
    """Run a command of docker; returns what it printed."""
    done = subprocess.run(["docker", *words], input=text, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-4000:]}"
    return done.stdout


def build_images() -> float:
    """Build every image of the compose files; the variables of the environment that they name are passed on.

    Returns:
        The seconds that it took; few if they were there.
    """
    files = ["--file", "docker-compose.yml", "--file", "docker-compose.replicas.yml"]
    words, began = ["docker", "compose", *files, "build"], time.monotonic()
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3000)
    assert built.returncode == 0, built.stderr[-6000:]
    return time.monotonic() - began


def count_sold(container: str, modality: str) -> int:
    """Items that the vendor in a container has billed since its start."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
    lines = docker("exec", container, "python", "-c", ask).splitlines()
    names = 'outcome="billed"', f'modality="{modality}"'
    found = [line for line in lines if line.startswith("vl2v_items_total{") and all(name in line for name in names)]
    return sum(int(float(line.split()[-1])) for line in found)


def missing_docker() -> str | None:
    """What is missing to run containers here, and how to get it; None if nothing is."""
    if shutil.which("docker") is None:
        return "docker is missing; Debian: apt install docker.io docker-cli docker-compose docker-buildx"
    for words, what in (
        (("compose", "version"), "docker's command `compose` is missing; Debian: apt install docker-compose"),
        (("info",), "no Docker daemon answers; start it, or set DOCKER_HOST"),
    ):
        if subprocess.run(["docker", *words], capture_output=True, check=False).returncode != 0:
            return what
    return None
