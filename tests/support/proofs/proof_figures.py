"""What every proof uses: its size for this run, and a place for its figures.

A proof asks `scale(short, full)` for its size and hands its figure to `prove`, which fails the test if the goal is
missed. The conftest of a folder of proofs imports the fixtures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

T = TypeVar("T")

Row = dict[str, object]


class Prove(Protocol):
    """Takes a proof's figure; the test fails unless the goal is met."""

    def __call__(self, name: str, value: float | int | str, *, goal: str, met: bool) -> None: ...


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the proofs run at full length."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="session")
def scale(full: bool) -> Callable[[T, T], T]:
    """`scale(short, full)`: the size for this run."""
    return lambda short, long: long if full else short


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[list[Row]]:
    """The session's figures, written to the file that `--figures` names."""
    rows: list[Row] = []
    yield rows
    file = pytestconfig.getoption("--figures")
    if file is not None:
        Path(file).write_text(json.dumps(rows))


@pytest.fixture
def prove(figures: list[Row], request: pytest.FixtureRequest) -> Prove:
    """Note a figure and hold it against its goal."""

    def note(name: str, value: float | int | str, *, goal: str, met: bool) -> None:
        figures.append({"name": name, "value": value, "goal": goal, "met": met})
        sys.stderr.write(f"\n{'met' if met else 'NOT MET':>8}  {name}: {value} (goal {goal})\n")
        assert met, f"{name}: {value}, goal {goal} ({request.node.name})"

    return note
