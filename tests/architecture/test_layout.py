"""The house keeps its shape: no package where only a folder belongs, no file that outgrew its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("shared", "vendor_api", "client") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("folder", ["shared", "vendor_api", "client"])
def test_the_three_folders_are_not_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_source_file_is_over_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := _line_count(path)) > 300}
    assert long == {}


_REPEATED_NAMES = {"__init__", "__main__"}
"""File names that every folder may have; the files of `cli` and `routes` bear the words of commands and endpoints."""
_NAMED_BY_THEIR_USERS = {"cli", "routes"}


@pytest.mark.parametrize("folder", ["shared", "vendor_api"])
def test_file_names_are_unique_in_a_package(folder: str) -> None:
    paths = [
        path.relative_to(ROOT)
        for path in (ROOT / folder).rglob("*.py")
        if path.stem not in _REPEATED_NAMES and not _NAMED_BY_THEIR_USERS & set(path.parts)
    ]
    named = Counter(path.stem for path in paths)
    assert paths
    assert sorted(str(path) for path in paths if named[path.stem] > 1) == []


def test_torch_loads_weights_and_nothing_else() -> None:
    """A pickle runs code when it is opened: `torch.load` reads tensors alone, and nothing else unpickles."""
    opened = {
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in ("shared", "vendor_api", "client", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and _unpickles(call)
    }
    assert opened == set()


_DOORS = (
    "vl2v_client/cli/console.py",
    "vl2v_vendor/cli/console.py",
    "vl2v_vendor/cli/ledger_export.py",
    "vl2v_vendor/cli/server.py",
)
_OWN_WORDS = ("json.dumps(", "metadata.version(", "f'vl2v-vendor {installed_version()}'")
_PRINTS = {"print", "typer.echo", "typer.secho", "Console", "csv.writer", "sys.stdout.write"}


def test_words_of_others_leave_by_the_doors_that_write_out_what_steers() -> None:
    """Elsewhere the command lines print JSON, and the version."""
    past_the_doors = {
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in SOURCES
        if "cli" in path.parts and not any(path.match(door) for door in _DOORS)
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in _PRINTS
        if not ast.unparse(call.args[0] if call.args else call).startswith(_OWN_WORDS)
    }
    assert past_the_doors == set()


def _unpickles(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in ("torch.load", "open_clip.load_checkpoint", "library.load_checkpoint"):
        return keywords.get("weights_only") != "True"
    return name in ("pickle.load", "pickle.loads", "torch.jit.load") or keywords.get("allow_pickle") == "True"


@pytest.mark.parametrize("package", ["vl2v_contract", "vl2v_vendor.cli", "vl2v_client.cli"])
def test_a_cold_import_loads_no_heavy_library(package: str) -> None:
    code = (
        f"import sys, {package}; "
        "heavy = {'torch', 'timm', 'open_clip', 'torchvision', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _line_count(path: Path) -> int:
    return path.read_text().count("\n")
