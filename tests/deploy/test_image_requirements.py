"""What the vendor's image and CI install: pinned within the ranges of pyproject.toml, the image with hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from itertools import chain, pairwise
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXT = (ROOT / "deploy" / "requirements.txt").read_text()
CONSTRAINTS = (ROOT / "deploy" / "constraints.txt").read_text()
EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
NEEDED = [Requirement(line) for line in [*CORE, *EXTRAS["vendor"]]]
FROM_PYTORCH = {"torch", "torchvision"}


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pinned(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


def _check_pins(text: str, lines: Iterable[str]) -> None:
    pinned = _pinned(text)
    for needed in map(Requirement, lines):
        name = _name(needed.name)
        assert (name in pinned) == (name not in FROM_PYTORCH), f"{name}: run `make lock`"
        outside = [version for version in pinned.get(name, []) if version not in needed.specifier]
        assert outside == [], f"{name}: run `make lock`"


def test_each_dependency_of_the_image_is_pinned_within_its_range() -> None:
    _check_pins(TEXT, [*CORE, *EXTRAS["vendor"]])


def test_each_dependency_of_an_extra_is_pinned_within_its_range() -> None:
    _check_pins(CONSTRAINTS, chain(CORE, *EXTRAS.values()))


def test_each_pin_has_hashes_and_names_no_place() -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    pins, hashes = [line for line in lines if line[0] != " "], [line for line in lines if line[0] == " "]
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\\]+)? \\", line) for line in pins)
    assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert all(before[-1] != "\\" or after[0] == " " for before, after in pairwise(lines))


def test_the_image_takes_pytorch_within_its_range() -> None:
    ranges = {needed.name: str(needed.specifier) for needed in NEEDED if needed.name in FROM_PYTORCH}
    text = (ROOT / "Dockerfile").read_text()
    assert dict(re.findall(r'"(torch|torchvision)(>=[\d.]+)"', text)) == ranges
