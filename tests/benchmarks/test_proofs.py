"""The runner of proofs: all of a folder, or those that a word names, whose neighbours' figures stay."""

from __future__ import annotations

import json
from pathlib import Path

import proofs
import pytest
from proofs import run_proofs
from result import Goal


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of three proofs, none of which is carried out."""
    titles: list[str] = []
    folder = tmp_path / "tests" / "some_proofs"
    folder.mkdir(parents=True)
    for name in ("test_flood.py", "test_long_flood.py", "test_soak.py", "conftest.py"):
        (folder / name).touch()

    def run_proof(_proof: Path, title: str, _sizes: object) -> tuple[dict[str, object], list[Goal]]:
        titles.append(title)
        return {"proof": title, "failed": False}, [Goal(f"{title}: lost", len(titles), "0", met=True)]

    monkeypatch.setattr(proofs, "ROOT", tmp_path)
    monkeypatch.setattr(proofs, "run_proof", run_proof)
    return titles


def test_without_a_name_all_proofs_run(ran: list[str], tmp_path: Path) -> None:
    run_proofs("some_proofs", "", tmp_path / "result.json")
    assert ran == ["flood", "long_flood", "soak"]


def test_a_named_proof_replaces_its_own_figures_alone(ran: list[str], tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    run_proofs("some_proofs", "", out)
    run_proofs("some_proofs", "long", out)
    assert ran == ["flood", "long_flood", "soak", "long_flood"]
    found = {goal["name"]: goal["value"] for goal in json.loads(out.read_text())["goals"]}
    assert found == {"flood: lost": 1, "long_flood: lost": 4, "soak: lost": 3}
