"""What version 0.1 left on disk, copied for each test, and the commands of this version run on the copies.

Only surfaces that stay are used: the two commands, their JSON and exit codes, HTTP, and the files of a run folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.client.version_01 import FIXTURES, Command, Done, ServedLedger, data_at_its_place, relocate, served_ledger
from vl2v_client.cli import main as client_main
from vl2v_vendor.cli import main as vendor_main


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`vl2v-client`, in this process."""
    return _command("vl2v-client", client_main, monkeypatch, capsys)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`vl2v-vendor`, in this process."""
    return _command("vl2v-vendor", vendor_main, monkeypatch, capsys)


def _command(
    name: str, entry: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    def run(*words: str | Path, **environment: str | Path) -> Done:
        with monkeypatch.context() as patch:
            for variable in [known for known in os.environ if known.startswith("VL2V_")]:
                patch.delenv(variable)
            for variable, value in {"COLUMNS": "300", "NO_COLOR": "1", **environment}.items():
                patch.setenv(variable, str(value))
            patch.setattr(sys, "argv", [name, *map(str, words)])
            capsys.readouterr()
            code = 0
            try:
                entry()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What the commands of version 0.1 said of the fixtures."""
    found: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text())
    return found


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of folders: `distilled`, `unfinished`, `shapes` and the students' first weights. Read only."""
    root = tmp_path_factory.mktemp("v0.1")
    with tarfile.open(FIXTURES / "folders.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture
def run_folder(unpacked: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder, such as `distilled/sweep`, and makes it one of the data set where that lies now."""

    def copy(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(unpacked / name, place)
        for config in place.rglob("config.json"):
            relocate(config, unpacked / "shapes")
        return place

    return copy


@pytest.fixture
def place() -> Iterator[Path]:
    """Everything of the archive where it lay when it was made: unfinished runs go on there alone."""
    with data_at_its_place() as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Callable[[str], Path]:
    """Copies the client cache of an account."""

    def copy(account: str) -> Path:
        return Path(shutil.copy(FIXTURES / "client" / f"{account}.sqlite", tmp_path))

    return copy


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLedger]:
    """A vendor of this version that serves the ledger of version 0.1."""
    with served_ledger(tmp_path_factory.mktemp("vendor") / "served") as found:
        yield found
