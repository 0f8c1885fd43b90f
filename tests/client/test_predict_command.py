"""`vl2v-client predict`: what it reads, what it writes, and that a bad file costs its own row alone."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.client.student_factories import CLASSES, SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.cli.app import run
from vl2v_client.cli.console import STDERR
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.evaluation.image_predictions import find_files
from vl2v_client.export.weights import export_bundle
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("student")
    card = StudentCard(TINY_VIT, SIZE, CLASSES, "VL2V-ADiP", 0, logit_scale=20.0)
    views = coloured_views(5, views=1).pixels[:, 0]
    export_bundle(folder, StudentBundle(fresh_classifier(), card), check_pixels=views)
    return str(folder)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        save(folder / f"{index}.png", index)
    return folder


def save(path: Path, seed: int = 0) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)


def rows(capsys: Capture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def objects(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_bad_file_is_a_row_and_the_rest_is_classified(student: str, images: Path, capsys: Capture) -> None:
    (images / "1.png").write_bytes(b"no image")
    (images / "2.png").write_bytes(b"")
    words = ["predict", student, str(images), str(images / "none.png"), str(images / "3.png")]
    assert run([*words, "--batch-size", "2"]) == DataError.exit_code
    shown = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(shown.out)))
    assert [Path(row["path"]).name for row in found] == ["0.png", "1.png", "2.png", "3.png", "none.png", "3.png"]
    assert [row["class"] in CLASSES for row in found] == [True, False, False, True, False, True]
    assert ["is not an image" in found[1]["error"], "is empty" in found[2]["error"]] == [True, True]
    assert "No such file" in found[4]["error"]
    assert found[0]["error"] == ""
    told = " ".join(shown.err.split())
    assert "3 of 6 images could not be classified, the first:" in told
    assert "1.png is not an image, whatever its name says: replace it or remove it" in told
    assert run([*words, "--format", "jsonl"]) == DataError.exit_code
    bad = objects(capsys)[1]
    assert bad.keys() == {"path", "error"}


def test_nothing_good_is_no_crash(student: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(["predict", student, str(tmp_path / "a.png")]) == DataError.exit_code
    assert [row["class"] for row in rows(capsys)] == [""]
    (tmp_path / "folder").mkdir()
    assert run(["predict", student, str(tmp_path / "folder"), str(tmp_path / "x*")]) == DataError.exit_code
    empty, unmatched = rows(capsys)
    assert "holds no images" in empty["error"]
    assert "no file matches" in unmatched["error"]


def test_patterns_folders_and_standard_input_name_files(
    student: str, images: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "deep").mkdir()
    save(images / "deep" / "5.png")
    save(images / "[x].png")
    by_pattern = [Path(one.path).name for one in find_files([f"{images}/[0-1].png", f"{images}/**/5.png"])]
    assert by_pattern == ["0.png", "1.png", "5.png"]
    assert [Path(one.path).name for one in find_files([f"{images}/[x].png"])] == ["[x].png"]
    assert len(find_files([f"{images}/*"])) == 6
    odd = images / "odd name\xe9.png"
    save(odd)
    give_stdin(monkeypatch, f"{images}/0.png\n\n{odd}\n".encode())
    assert run(["predict", student, "-", str(images / "1.png")]) == 0
    assert [row["path"] for row in rows(capsys)] == [f"{images}/0.png", str(odd), f"{images}/1.png"]
    strange = images / "two\nlines.png"
    save(strange)
    give_stdin(monkeypatch, os.fsencode(f"{images}/0.png\0{strange}\0"))
    assert run(["predict", student, "-"]) == 0
    assert [row["path"] for row in rows(capsys)] == [f"{images}/0.png", rf"{images}/two\nlines.png"]
    give_stdin(monkeypatch, b"\n")
    assert run(["predict", student, "-"]) == DataError.exit_code
    assert "no path was given on standard input" in capsys.readouterr().err


def test_names_that_steer_or_are_no_text_are_written_out(student: str, images: Path, capsys: Capture) -> None:
    strange = os.fsencode(images) + b"/\x1b[2J\xff.png"
    save(Path(os.fsdecode(strange)))
    for words in (["--format", "csv"], ["--format", "jsonl"], ["--format", "table"]):
        assert run(["predict", student, os.fsdecode(strange), f"{images}/\x1b[2Jnone.png", *words]) == 3
        shown = capsys.readouterr()
        assert not {letter for letter in shown.out + shown.err if not letter.isprintable()} - {"\n"}


def test_the_likeliest_classes_all_probabilities_and_abstention(student: str, images: Path, capsys: Capture) -> None:
    words = ["predict", student, str(images)]
    assert run([*words, "--top-k", "2", "--all-probabilities"]) == 0
    found = rows(capsys)
    assert list(found[0]) == [
        *("path", "class", "probability", "class_2", "probability_2"),
        *(f"probability of {name}" for name in CLASSES),
        "error",
    ]
    for row in found:
        shares = {name: float(row[f"probability of {name}"]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
        assert sorted(shares, key=lambda name: -shares[name])[:2] == [row["class"], row["class_2"]]
    assert run([*words, "--top-k", "9", "--all-probabilities", "--json"]) == 0
    for document in objects(capsys):
        every = document["probabilities"]
        assert [one["class"] for one in document["top"]] == sorted(every, key=every.__getitem__, reverse=True)
        assert document["top"][0] == {"class": document["class"], "probability": document["probability"]}
    shares = sorted(float(row["probability"]) for row in found)
    between = (shares[1] + shares[2]) / 2
    assert run([*words, "--threshold", str(between), "--json"]) == 0
    assert sum(row["class"] is None for row in objects(capsys)) == 2
    assert run([*words, "--threshold", str(between)]) == 0
    abstained = [row for row in rows(capsys) if not row["class"]]
    assert len(abstained) == 2
    assert all(float(row["probability"]) < between for row in abstained)


def test_a_table_for_people_has_a_column_of_errors_only_where_there_are_some(
    student: str, images: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["predict", student, str(images), "--format", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["path", "class", "probability"]
    assert len(lines) == 1 + 4
    (images / "0.png").write_bytes(b"")
    assert run(["predict", student, str(images), "--format", "table"]) == DataError.exit_code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "error"
    assert "is empty" in lines[1]


def test_rows_go_to_standard_output_while_a_bar_is_drawn(
    student: str, images: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich takes standard output over while it draws on a terminal, and would print rows on standard error."""
    monkeypatch.setattr(STDERR, "_force_terminal", True)
    for words, count in (("csv", 5), ("jsonl", 4), ("table", 5)):
        assert run(["predict", student, str(images), "--format", words]) == 0
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == count
        assert "predict" in shown.err
        assert "4/4" in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "xml"],
        ["--format", "csv", "--json"],
        ["--top-k", "0"],
        ["--threshold", "1.5"],
        ["--batch-size", "0"],
        ["--device", "abacus"],
        ["--topk", "2"],
    ],
)
def test_a_wrong_option_is_refused(student: str, images: Path, capsys: Capture, words: list[str]) -> None:
    assert run(["predict", student, str(images), *words]) == UsageError.exit_code
    assert capsys.readouterr().out == ""
