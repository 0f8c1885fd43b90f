"""The runner of proofs: a whole folder, or what a word names beside its neighbours' old figures; or the short form."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import proofs
import pytest
from proofs import run_proofs
from result import RESULTS, Goal


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of three proofs, none of which is carried out."""
    titles: list[str] = []
    folder = tmp_path / "tests" / "some_proofs"
    folder.mkdir(parents=True)
    for name in ("test_flood.py", "test_long_flood.py", "test_soak.py", "conftest.py"):
        (folder / name).touch()

    def run_proof(_proof: Path, title: str, _sizes: object, *, short: bool) -> tuple[dict[str, object], list[Goal]]:
        titles.append(f"{title}, short" if short else title)
        row = {"proof": title, "minutes": 0.1, "failed": title == "flood" and short}
        return row, [Goal(f"{title}: lost", len(titles), "0", met=True)]

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


def test_the_short_form_writes_no_result_and_fails_as_its_proofs_do(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="failed: flood"):
        run_proofs("some_proofs", "", None)
    assert ran == ["flood, short", "long_flood, short", "soak, short"]
    assert not list(tmp_path.glob("**/*.json"))
    assert "FAILED  flood" in capsys.readouterr().out


def test_a_name_that_no_proof_has_is_refused(ran: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no proof"):
        run_proofs("some_proofs", "drought", tmp_path / "result.json")
    assert ran == []


@pytest.mark.parametrize("script", ["billing_proofs", "vendor_proofs", "stranger_proofs"])
def test_a_short_run_has_no_result_file(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(script)
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "run_proofs", lambda *words: asked.append(words))
    for words in (["--short", "--only", "races"], ["--only", "races"]):
        monkeypatch.setattr("sys.argv", [script, *words])
        module.main()
    short, full = asked
    assert short[:3] == (script, "races", None)
    assert full[:3] == (script, "races", RESULTS / f"{script}.json")
    monkeypatch.setattr("sys.argv", [script, "--short", "--out", "some.json"])
    with pytest.raises(SystemExit):
        module.main()
