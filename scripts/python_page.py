"""The names of the package `vl2v` for Sphinx's autodoc, and its notebook as Markdown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path

import vl2v
from vl2v_client.config.training import Options

PARTS = ("Classes and functions", "Results", "Options of a run", "Errors", "Types")
FIRST = ("Client", "distill", "load", "Student")
"""What a reader looks for first; the other names follow in the order of the alphabet."""
NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "quickstart.ipynb"


def python() -> str:
    """Describe every name that the package exports, in parts."""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in (*FIRST, *(other for other in vl2v.__all__ if other not in FIRST)):
        part, lines = _entry(name)
        parts[part].append("\n".join(lines))
    return "\n\n".join(
        f"## {heading}\n\n```{{eval-rst}}\n" + "\n\n".join(entries) + "\n```" for heading, entries in parts.items()
    )


def notebook() -> str:
    """Show the notebook's texts and programs, with its headings one level down."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells)


def _cell(kind: str, text: str) -> str:
    if kind == "code":
        return f"```python\n{text}\n```"
    return "\n".join(line for line in text.splitlines() if not line.startswith("# "))


def _entry(name: str) -> tuple[str, Iterator[str]]:
    value = getattr(vl2v, name)
    if not inspect.isclass(value):
        kind = "autofunction" if inspect.isfunction(value) else "autodata"
        return ("Types" if kind == "autodata" else "Classes and functions"), iter([f".. {kind}:: vl2v.{name}"])
    if issubclass(value, Exception):
        return "Errors", iter([f".. autoexception:: vl2v.{name}", "   :show-inheritance:"])
    if issubclass(value, Options):
        return "Options of a run", iter([f".. py:class:: vl2v.{name}", "", f"   {value.__doc__}"])
    if is_dataclass(value):  # a result, which nobody makes: its signature is of no use
        return "Results", iter([f".. autoclass:: vl2v.{name}()", "   :members:"])
    return "Classes and functions", iter([f".. autoclass:: vl2v.{name}", "   :members:"])
