"""The threat model of SECURITY.md: each attack is stopped, by a test that exists, or is a risk that is named."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.*) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
ATTACKERS = ("stranger", "customer", "another customer", "operator", "vendor", "data set", "student", "network")


def _attacks(rows: list[str]) -> list[list[str]]:
    """Return the cells of each attack: what may be tried, what stops it, and what shows that."""
    return [[cell.strip() for cell in row.split("|")] for row in rows if not row.endswith(" shown by")]


def _faults(rows: list[str]) -> list[str]:
    faults = []
    for attack, defence, evidence in _attacks(rows):
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", evidence)
        if bool(tests and defence) == bool(re.match(r"\*\*(open|accepted)\*\*: \w+", evidence)):
            faults.append(f"{attack}: neither stopped and tested, nor open, nor accepted")
        for path, name in tests:
            file = ROOT / path
            if not (file.is_file() and re.search(rf"^(async )?def {name}\(", file.read_text(), re.MULTILINE)):
                faults.append(f"{attack}: there is no test {path}::{name}")
    return faults


def test_each_attack_is_stopped_by_a_test_that_exists_or_is_a_named_risk() -> None:
    assert _faults(ROWS) == []
    assert len(_attacks(ROWS)) > 50


def test_an_attack_that_nothing_shows_is_found() -> None:
    assert _faults(["drip | deadlines | `tests/vendor/test_gone.py::test_nothing`"]) == [
        "drip: there is no test tests/vendor/test_gone.py::test_nothing"
    ]
    here = "tests/architecture/test_threat_model.py"
    assert _faults([f"drip | deadlines | `{here}::test_nothing`"]) == [f"drip: there is no test {here}::test_nothing"]
    untold = ["drip: neither stopped and tested, nor open, nor accepted"]
    assert _faults(["drip | deadlines | "]) == _faults(["drip | | **open**"]) == _faults(["drip | some | "]) == untold
    assert _faults([f"drip | | `{here}::test_an_attack_that_nothing_shows_is_found`"]) == untold


def test_each_attacker_has_a_section() -> None:
    sections = " ".join(re.findall(r"^### (.*)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)).lower()
    assert [attacker for attacker in ATTACKERS if attacker not in sections] == []
