"""The house keeps its shape: no package where only a folder belongs, no file that outgrew its room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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


def test_recipes_are_short_stories() -> None:
    recipes = (ROOT / "client/vl2v_client/recipes").glob("*.py")
    assert {path.name: lines for path in recipes if (lines := _line_count(path)) > 120} == {}


def test_public_functions_say_what_they_raise() -> None:
    silent = {
        f"{path.relative_to(ROOT)}:{function.name}"
        for path in SOURCES
        if not {"cli", "migrations"}.intersection(path.parts)  # a command's docstring is its help
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and not function.name.startswith("_")
        if (text := ast.get_docstring(function)) and "Raises:" not in text
        if any(isinstance(node, ast.Raise) and node.exc for node in _own_nodes(function))
    }
    assert silent == set()


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            yield node
            yield from _own_nodes(node)


def test_flags_are_named_by_the_command_line_alone() -> None:
    elsewhere = {
        f"{path.relative_to(ROOT)}: {flag}"
        for path in (ROOT / "client").rglob("*.py")
        if "cli" not in path.parts
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text())
    }
    assert elsewhere == set()


def test_docstrings_are_whole_sentences_and_phrases() -> None:
    broken = {
        f"{path.relative_to(ROOT)}:{node.body[0].lineno}"
        for path in (ROOT / "client").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if re.search(r"(?m)\A[Oo]f |: of |: as there|[Aa]s there\b(?! (is|are|were))", ast.get_docstring(node) or "")
    }
    assert broken == set()


_REPEATED_NAMES = {"__init__", "__main__"}
"""File names that every folder may have; the files of `cli` and `routes` bear the words of commands and endpoints."""
_NAMED_BY_THEIR_USERS = {"cli", "routes"}


@pytest.mark.parametrize("folder", ["shared", "vendor_api", "client"])
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
    "vl2v_vendor/cli/server.py",
)
_OWN_WORDS = ("json.dumps(", "metadata.version(", "printable(")
_PRINTS = {"print", "Console", "csv.writer", "sys.stdout.write", "sys.stderr.write"}


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


def test_no_function_outside_the_command_lines_has_more_than_8_parameters_or_60_lines() -> None:
    large = {
        f"{path.relative_to(ROOT)}:{function.name}": facts
        for path in SOURCES
        if "cli" not in path.parts
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if (facts := (_parameter_count(function.args), _length(function))) and (facts[0] > 8 or facts[1] > 60)
    }
    assert large == {}


def _parameter_count(arguments: ast.arguments) -> int:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return sum(one.arg not in ("self", "cls") for one in named)


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1
