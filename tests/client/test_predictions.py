"""`predictions.csv` of a run: what each row of the report said of each image of the unseen domain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import RunError
from vl2v_client.evaluation.accuracy import ImagePrediction, read_predictions, write_predictions

TEACHER = "zero-shot teacher"
OF_NO_MODEL = ("chance", "majority class")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientShell]:
    """A finished run with ERM beside it; its unseen domain has 20 pictures of two classes."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("predictions")
    draw_domains(home / "data", 10)
    with served(FakeVendor()) as url:
        shell = ClientShell(url, home, "--target-domain", "sketch", "--views", "1", "--baseline", "erm")
        shell.distill()
        yield shell


def _by_classifier(folder: Path) -> dict[str, list[ImagePrediction]]:
    found: dict[str, list[ImagePrediction]] = {}
    for row in read_predictions(folder):
        found.setdefault(row.classifier, []).append(row)
    return found


def _share_right(rows: list[ImagePrediction]) -> float:
    return sum(row.label == row.predicted for row in rows) / len(rows)


def _check(shell: ClientShell, expected: list[str]) -> None:
    """Each classifier of the report has one line for each picture, and the accuracy that the report says."""
    found = _by_classifier(shell.run_folder)
    rows = [row for row in shell.read("report.json")["rows"] if row["name"] not in OF_NO_MODEL]
    report = {row["name"]: row["target"] for row in rows if row["target"] is not None}
    assert sorted(found) == sorted(expected) == sorted(report)
    pictures = {str(path.relative_to(shell.data)) for path in (shell.data / "sketch").glob("*/*.png")}
    for name, rows in found.items():
        assert {row.path for row in rows} == pictures
        assert len(rows) == len(pictures)
        assert _share_right(rows) == pytest.approx(report[name])
        for row in rows:
            assert row.label == Path(row.path).parent.name
            assert 0.5 <= row.probability <= 1, "the likelier of two classes"


def test_each_row_of_the_report_leaves_its_predictions(shell: ClientShell) -> None:
    _check(shell, ["ERM", "VL2V-ADiP"])


def test_the_teacher_s_are_added_once_it_is_asked_and_kept_by_the_next_call(shell: ClientShell) -> None:
    assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
    _check(shell, ["ERM", "VL2V-ADiP", TEACHER])
    before = read_predictions(shell.run_folder)
    shell.distill()
    assert sorted(map(str, read_predictions(shell.run_folder))) == sorted(map(str, before))


def test_a_run_of_before_gets_its_student_s_by_evaluate(shell: ClientShell) -> None:
    before = _by_classifier(shell.run_folder)["VL2V-ADiP"]
    (shell.run_folder / "predictions.csv").unlink()
    assert shell.run("evaluate", str(shell.run_folder)).exit_code == 0
    found = _by_classifier(shell.run_folder)
    assert list(found) == ["VL2V-ADiP"]
    assert [(row.path, row.predicted) for row in found["VL2V-ADiP"]] == [(row.path, row.predicted) for row in before]
    for again, row in zip(found["VL2V-ADiP"], before, strict=True):
        assert again.probability == pytest.approx(row.probability, abs=2e-6)


def test_the_run_s_own_data_by_another_path_is_its_own(shell: ClientShell) -> None:
    shell.distill()
    before = (shell.run_folder / "predictions.csv").read_text()
    (shell.folder / "link").symlink_to(shell.data)
    done = shell.run("evaluate", str(shell.run_folder), "--data", str(shell.folder / "link"))
    assert done.exit_code == 0, done.exception
    assert sorted((shell.run_folder / "predictions.csv").read_text().splitlines()) == sorted(before.splitlines())


def test_another_data_set_leaves_the_run_s_alone(shell: ClientShell) -> None:
    shell.distill()
    before = (shell.run_folder / "predictions.csv").read_text()
    shutil.copytree(shell.data, shell.folder / "copy")
    assert shell.run("evaluate", str(shell.run_folder), "--data", str(shell.folder / "copy")).exit_code == 0
    assert (shell.run_folder / "predictions.csv").read_text() == before


def test_on_other_test_pictures_nothing_of_before_is_kept(shell: ClientShell) -> None:
    assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
    (shell.data / "sketch" / "dog" / "0.png").unlink()
    shell.distill()
    _check(shell, ["ERM", "VL2V-ADiP"])


def test_without_a_held_out_domain_there_are_none(tmp_path: Path) -> None:
    draw_domains(tmp_path / "home", 10)
    shutil.move(tmp_path / "home" / "photo", tmp_path / "data")
    with served(FakeVendor()) as url:
        shell = ClientShell(url, tmp_path, "--views", "1")
        shell.distill()
    assert not (shell.run_folder / "predictions.csv").exists()


def test_what_is_written_is_read_back_or_refused(tmp_path: Path) -> None:
    rows = [ImagePrediction("ERM", 'a, "b"/c\u00e9.png', "cat", "dog", 0.123457)]
    write_predictions(tmp_path, rows)
    assert read_predictions(tmp_path) == rows
    header, row = (tmp_path / "predictions.csv").read_text().splitlines()
    for damaged in ("classifier,path\nERM,a.png\n", f"{header}\n{row}{'9' * 200_000}\n"):
        (tmp_path / "predictions.csv").write_text(damaged)
        with pytest.raises(RunError, match=r"predictions\.csv"):
            read_predictions(tmp_path)
    (tmp_path / "predictions.csv").unlink()
    assert read_predictions(tmp_path) == []
