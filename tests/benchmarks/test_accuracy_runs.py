"""The benchmark's record: what is in it is not run again, and a run of other options is another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import accuracy_runs
import pytest
from accuracy_arms import ADIP_4, CLASS_MEANS, ERM, NEAREST, ONLINE, TEACHER, Arm
from accuracy_runs import Bench, Cell, measure, recorded

from vl2v_client.evaluation.accuracy import ImagePrediction, write_predictions

ADIP = Arm(ADIP_4, ("--views", "4"), erm_row=ERM)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Every command that the benchmark gives; a `distill` leaves the report of all three rows."""
    given: list[tuple[str, ...]] = []

    def run(_environment: dict[str, str], *words: str) -> str:
        given.append(words)
        if words[1] == "distill":
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.json").write_text(json.dumps(REPORT))
            write_predictions(folder, PREDICTIONS)
        return "{}"

    monkeypatch.setattr(accuracy_runs, "run", run)
    monkeypatch.setattr(accuracy_runs, "vector_predictions", lambda _folder, _environment: OF_VECTORS)
    return given


def _row(name: str, target: float | None) -> dict[str, Any]:
    return {"name": name, "target": target, "source_validation": 0.9, "calibration_error": 0.1, "note": ""}


REPORT = {
    "purchase": {"images": 40, "texts": 7, "amount_micro": 4070},
    "local": None,
    "counts": {"train": 40, "validation": 8, "target": 3},
    "rows": [_row(TEACHER, 0.8), _row("chance", 0.5), _row(ERM, 0.6), _row("student", 0.7)],
}


LABELS = {"art/b.png": "cat", "art/a.png": "cat", "art/c.png": "dog"}


def _predictions(said: dict[str, tuple[str, str, str]]) -> list[ImagePrediction]:
    return [
        ImagePrediction(name, path, label, predicted, 0.5)
        for name, of_name in said.items()
        for (path, label), predicted in zip(LABELS.items(), of_name, strict=True)
    ]


PREDICTIONS = _predictions({ERM: ("cat", "dog", "dog"), "student": ("dog", "cat", "dog")})
OF_VECTORS = _predictions({CLASS_MEANS: ("dog", "dog", "dog"), NEAREST: ("cat", "cat", "dog")})


def _bench(folder: Path, *options: str) -> Bench:
    return Bench({}, folder, folder / "runs.jsonl", options, ("--student-weights", "w"), ("--online",), jobs=1)


def _cell(folder: Path, arm: Arm = ADIP) -> Cell:
    return Cell(arm, folder, "art", 0, with_erm=True)


def test_each_row_is_kept_and_nothing_is_run_twice(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    bench = _bench(tmp_path, "--batch-size", "32")
    outcomes = measure(bench, [_cell(tmp_path)])
    assert {outcome.row: (outcome.accuracy, outcome.queries) for outcome in outcomes} == {
        TEACHER: (0.8, 0),
        CLASS_MEANS: (1 / 3, 40),
        NEAREST: (1.0, 40),
        ERM: (0.6, 0),
        ADIP_4: (0.7, 47),
    }
    assert [words[1] for words in commands] == ["distill", "evaluate"]
    assert commands[0][commands[0].index("--student-weights") + 1] == "w"
    assert "--no-probe" in commands[0], "a row is that of its method"
    assert {outcome.options for outcome in outcomes} == {"--views 4 --batch-size 32"}
    assert measure(bench, [_cell(tmp_path)]) == outcomes
    assert len(commands) == 2


def test_a_record_without_the_rows_beside_the_teacher_s_is_complete(
    tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    bench = _bench(tmp_path)
    measure(bench, [_cell(tmp_path)])
    lines = [line for line in bench.record.read_text().splitlines() if "source vectors" not in line]
    bench.record.write_text("".join(f"{line}\n" for line in lines))
    assert {outcome.row for outcome in recorded(bench, [_cell(tmp_path)])} == {TEACHER, ERM, ADIP_4}
    assert {outcome.row for outcome in measure(bench, [_cell(tmp_path)])} == {TEACHER, ERM, ADIP_4}
    assert len(commands) == 2


def test_a_row_that_is_there_already_is_not_recorded_a_second_time(
    tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    bench = _bench(tmp_path)
    measure(bench, [_cell(tmp_path)])
    lines = [line for line in bench.record.read_text().splitlines() if json.loads(line)["row"] != ADIP_4]
    bench.record.write_text("".join(f"{line}\n" for line in lines))
    again = [outcome.row for outcome in measure(bench, [_cell(tmp_path)])]
    assert (len(commands), again[-1], len(set(again))) == (4, ADIP_4, len(again))
    assert bench.record.read_text().splitlines()[:-1] == lines


def test_other_training_is_another_run(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    measure(_bench(tmp_path, "--batch-size", "32"), [_cell(tmp_path)])
    outcomes = measure(_bench(tmp_path, "--batch-size", "64"), [_cell(tmp_path)])
    assert [words[1] for words in commands] == ["distill", "evaluate"] * 2
    assert {outcome.options for outcome in outcomes} == {"--views 4 --batch-size 64"}


def test_a_teacher_that_was_not_asked_leaves_no_row(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    online = Arm(ONLINE, ("--views", "1"), online=True)
    assert [outcome.row for outcome in measure(_bench(tmp_path), [_cell(tmp_path, online)])] == [ONLINE]
    assert [words[1] for words in commands] == ["distill"]


def test_what_was_right_is_kept_picture_by_picture(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    outcomes = {outcome.row: outcome for outcome in measure(_bench(tmp_path), [_cell(tmp_path)])}
    assert {row: outcome.right for row, outcome in outcomes.items()} == {
        TEACHER: "",
        CLASS_MEANS: "001",
        NEAREST: "111",
        ERM: "011",
        ADIP_4: "101",
    }
    assert {outcome.test_images for outcome in outcomes.values()} == {3}
    assert outcomes[ERM].pictures == outcomes[ADIP_4].pictures != ""


def test_recorded_runs_are_read_and_missing_ones_are_named(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    bench, online = _bench(tmp_path), Arm(ONLINE, ("--views", "1"), online=True)
    outcomes = measure(bench, [_cell(tmp_path)])
    given = len(commands)
    assert recorded(bench, [_cell(tmp_path)]) == outcomes
    with pytest.raises(SystemExit, match=r"lacks 1 runs, such as VL2V-ADiP, online .* on art, seed 0"):
        recorded(bench, [_cell(tmp_path), _cell(tmp_path, online)])
    assert recorded(bench, [_cell(tmp_path), _cell(tmp_path, online)], incomplete=True) == outcomes
    assert len(commands) == given


def test_the_seconds_of_a_run_are_kept_and_a_record_without_them_is_read(
    tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    bench = _bench(tmp_path)
    seconds = {outcome.row: outcome.seconds for outcome in measure(bench, [_cell(tmp_path)])}
    assert all(seconds[row] is not None and seconds[row] >= 0 for row in (TEACHER, ERM, ADIP_4))
    assert seconds[ERM] == seconds[ADIP_4]
    assert seconds[NEAREST] is None, "no run made it"
    lines = [json.loads(line) for line in bench.record.read_text().splitlines()]
    without = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    bench.record.write_text("".join(f"{json.dumps(line)}\n" for line in without))
    assert {outcome.seconds for outcome in recorded(bench, [_cell(tmp_path)])} == {None}
