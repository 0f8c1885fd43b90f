"""Measure the size and shape of the source: lines, statements, parameters, docstrings, start of the command line.

    python scripts/house_figures.py [--json] [--repeats 3]

Counts the packages without the database migrations. A function is public if neither its own name nor that of a
module, class or function around it begins with an underscore. A function "raises directly" if a `raise` with an
exception stands in its own body, functions inside it apart. CPU seconds are those of a new process, user and system,
the smallest of the repeats.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "vl2v_contract": ROOT / "shared" / "vl2v_contract",
    "vl2v_vendor": ROOT / "vendor_api" / "vl2v_vendor",
    "vl2v_client": ROOT / "client" / "vl2v_client",
    "vl2v": ROOT / "client" / "vl2v",
}
MAX_PARAMETERS = 8
MAX_LINES = 300
COMMANDS = (("--help",), ("distill", "--help"))

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Function:
    """A function of the source.

    Attributes:
        place: file and line.
        name: with its classes.
        is_public: neither it nor anything around it is private.
        parameters: how many, `self` and `cls` apart.
        lacks_raises: it raises directly, and its docstring has no `Raises` section.
    """

    place: str
    name: str
    is_public: bool
    parameters: int
    lacks_raises: bool


def source_files(package: Path) -> list[Path]:
    """The package's modules in order, without the migrations."""
    return sorted(path for path in package.rglob("*.py") if "migrations" not in path.relative_to(package).parts[:-1])


def count_statements(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


def find_functions(path: Path, tree: ast.Module) -> Iterator[Function]:
    """Every function of a module, methods and nested functions included."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_public = not any(part.startswith("_") for part in parts if part not in ("__init__", "__main__"))
    yield from _functions_in(tree, path, prefix="", is_public=is_public, in_class=False)


def _functions_in(node: ast.AST, path: Path, *, prefix: str, is_public: bool, in_class: bool) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            inside = is_public and not child.name.startswith("_")
            yield from _functions_in(child, path, prefix=f"{prefix}{child.name}.", is_public=inside, in_class=True)
        elif isinstance(child, FunctionNode):
            public = is_public and not child.name.startswith("_")
            place = f"{path.relative_to(ROOT)}:{child.lineno}"
            lacks = _raises_directly(child) and "Raises:" not in (ast.get_docstring(child) or "")
            yield Function(place, prefix + child.name, public, _count_parameters(child, in_class), lacks)
            yield from _functions_in(child, path, prefix=f"{prefix}{child.name}.", is_public=False, in_class=False)
        else:
            yield from _functions_in(child, path, prefix=prefix, is_public=is_public, in_class=in_class)


def _count_parameters(function: FunctionNode, in_class: bool) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    is_static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in function.decorator_list)
    return len(named) + bool(given.vararg) + bool(given.kwarg) - (in_class and not is_static)


def _raises_directly(function: FunctionNode) -> bool:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)
    return False


def cpu_seconds(words: tuple[str, ...], repeats: int) -> float:
    """CPU seconds of `vl2v-client WORDS` in a new process, the smallest of the repeats."""
    found = []
    for _ in range(repeats):
        process = subprocess.Popen(
            [sys.executable, "-m", "vl2v_client", *words], stdout=subprocess.DEVNULL, env=_environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"vl2v-client {' '.join(words)} ended with {process.returncode}")
        found.append(usage.ru_utime + usage.ru_stime)
    return min(found)


def _environment() -> dict[str, str]:
    """This environment, with the packages of this working tree first."""
    folders = [str(package.parent) for package in PACKAGES.values()]
    return os.environ | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON, lists in full")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each command that is timed; 0 times none")
    arguments = parser.parse_args()
    sizes, functions, long = {}, list[Function](), list[str]()
    for name, package in PACKAGES.items():
        texts = {path: path.read_text(encoding="utf-8") for path in source_files(package)}
        trees = {path: ast.parse(text) for path, text in texts.items()}
        lines = {path: text.count("\n") for path, text in texts.items()}
        sizes[name] = {
            "modules": len(texts),
            "lines": sum(lines.values()),
            "statements": sum(map(count_statements, trees.values())),
        }
        functions += [function for path, tree in trees.items() for function in find_functions(path, tree)]
        long += [str(path.relative_to(ROOT)) for path, count in lines.items() if count > MAX_LINES]
    sizes["all"] = {key: sum(of_one[key] for of_one in sizes.values()) for key in ("modules", "lines", "statements")}
    wide = [one for one in functions if one.parameters > MAX_PARAMETERS and "/cli/" not in one.place]
    silent = [one for one in functions if one.is_public and one.lacks_raises]
    starts = {" ".join(words): cpu_seconds(words, arguments.repeats) for words in COMMANDS if arguments.repeats}
    figures = {
        "sizes": sizes,
        "functions": len(functions),
        "long_files": long,
        "many_parameters": [f"{one.place} {one.name} ({one.parameters})" for one in wide],
        "raise_without_raises": [f"{one.place} {one.name}" for one in silent],
        "cpu_seconds": starts,
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)


def show(figures: dict[str, object]) -> None:
    """Print tables for people."""
    console = Console(highlight=False)
    table = Table("package", "modules", "lines", "statements", box=None)
    sizes = figures["sizes"]
    assert isinstance(sizes, dict)
    for name, of_one in sizes.items():
        table.add_row(name, *(f"{of_one[key]:,}" for key in ("modules", "lines", "statements")))
    console.print(table)
    console.print(f"\nfunctions: {figures['functions']:,}")
    starts = figures["cpu_seconds"]
    assert isinstance(starts, dict)
    for words, seconds in starts.items():
        console.print(f"CPU seconds of `vl2v-client {words}`: {seconds:.2f}")
    for name, title in (
        ("long_files", f"files above {MAX_LINES} lines"),
        ("many_parameters", f"functions outside cli/ with more than {MAX_PARAMETERS} parameters"),
        ("raise_without_raises", "public functions that raise directly without `Raises`"),
    ):
        found = figures[name]
        assert isinstance(found, list)
        console.print(f"\n{title}: {len(found)}")
        for one in found:
            console.print(f"  {one}", soft_wrap=True)


if __name__ == "__main__":
    main()
