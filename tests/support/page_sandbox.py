"""A folder, a vendor and programs to run the blocks of a page in, as they stand there, at a smaller size.

Three things differ from a reader's machine, and nothing else (`support.page_programs`):

- `vl2v-client` draws fewer shapes, trains for two steps, and asks nobody before it spends;
- `vl2v-vendor serve` returns once the server is ready, which goes on in the background; `ledger restore` stops it;
- `pip install` only checks that the extras exist: `make test-wheel` installs.

A page's addresses, keys and folders become those of the sandbox.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import yaml
from page_blocks import Block, blocks_of, taken_for_granted
from PIL import Image

from support import page_programs
from support.vendor.live_parties import free_port
from vl2v_client.data.shapes import write_shapes

ROOT = Path(__file__).parents[2]
SECONDS = 500
STYLES = ("photo", "cartoon", "sketch")
CLASSES = ("house", "fish", "key", "boat")

PROGRAMS = ("vl2v-client", "vl2v-vendor", "pip")


class Sandbox:
    """One page's folder, with a vendor and a client that has a key."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = folder / "server.pid"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VL2V_")},
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "share"),
            "SANDBOX_SERVER": str(self._server),
            "VL2V_VENDOR_URL": self.url,
            "VL2V_VENDOR_PORT": str(self.port),
            "VL2V_VENDOR_MAX_BATCH_ITEMS": "8",
            "PHOTOS": str(folder / "snaps"),
        }
        self._write_programs()
        self._write_files()

    def close(self) -> None:
        """Stop the server, if one runs."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self._server.read_text()), signal.SIGTERM)

    def open_shop(self) -> None:
        """Start the vendor, and give the client a key with a large budget."""
        self._call("vl2v-vendor", "serve")
        made = self._call("vl2v-vendor", "keys", "create", "--account", "reader", "--budget", "100000", "--json")
        self.environment["VL2V_API_KEY"] = json.loads(made)["secret"]

    def run(self, page: Path, blocks: Sequence[Block]) -> subprocess.CompletedProcess[str]:
        """Run what the page takes for granted, and then its blocks in order, up to the first command that fails.

        All commands run in one shell; blocks of Python that follow each other without a block of a shell between them
        run in one process.
        """
        self._write_run_file(page)
        parts = ["set -euo pipefail", 'curl() { command curl --fail-with-body "$@"; }', *taken_for_granted(page)]
        for is_python, group in groupby(blocks, key=lambda block: block.language == "python"):
            together = list(group)
            text = "\n".join(self._placed(block.text) for block in together)
            lines = ", ".join(str(block.line) for block in together)
            parts.append(f"echo '### line {lines}' >&2")
            parts.append(f"python - <<'END OF PYTHON'\n{text}\nEND OF PYTHON" if is_python else text)
        return self._run("bash", "-c", "\n".join(parts))

    def _placed(self, text: str) -> str:
        """Return a block with the addresses, keys and folders of this sandbox."""
        for placeholder, value in (
            ("http://127.0.0.1:8000", self.url),
            ("http://vendor:8000", self.url),
            ("vl2v_...", self.environment.get("VL2V_API_KEY", "")),
            ("/backup/", f"{self.folder}/backup/"),
        ):
            text = text.replace(placeholder, value)
        return text

    def _write_run_file(self, page: Path) -> None:
        """Write the page's example as `run.yaml`, for a student that needs no download."""
        for block in blocks_of(page, "yaml"):
            options = yaml.safe_load(block.text)
            (self.folder / "run.yaml").write_text(yaml.safe_dump({**options, "student": {"name": "tiny"}}))

    def _call(self, *words: str) -> str:
        done = self._run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )

    def _write_programs(self) -> None:
        (self.folder / "bin").mkdir()
        for name in PROGRAMS:
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{page_programs.__file__}" {name} "$@"\n')
            program.chmod(0o755)

    def _write_files(self) -> None:
        """Write what pages take for granted: data sets, single pictures, a model of one's own, a folder for backups."""
        drawn = {"styles": STYLES, "class_names": CLASSES, "images_per_class": 5, "size": 32}
        for name in ("photos", "PACS"):
            write_shapes(self.folder / name, seed=3, **drawn)  # type: ignore[arg-type]
        write_shapes(self.folder / "drawn", seed=4, **drawn)  # type: ignore[arg-type]
        shutil.copytree(self.folder / "drawn" / "photo", self.folder / "snaps")  # class/file, without the marker
        picture = next((self.folder / "photos" / "photo").rglob("*.png"))
        for name in ("new.jpg", "a.jpg", "b.png"):
            Image.open(picture).save(self.folder / name)
        assets = ROOT / "vendor_api" / "vl2v_vendor" / "assets"
        shutil.copy(assets / "tiny-teacher.json", self.folder / "config.json")
        shutil.copy(assets / "tiny-teacher.safetensors", self.folder / "clip.safetensors")
        (self.folder / "backup").mkdir()
