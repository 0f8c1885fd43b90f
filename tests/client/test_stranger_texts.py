"""Names and words of others are shown letter by letter: on the terminal, in CSV, in reports."""

from __future__ import annotations

import json
import re
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.markdown import Markdown
from rich.table import Column, Table

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.student_factories import SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.cli.app import run
from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import STDERR, PlainConsole, show_error
from vl2v_client.core.errors import ClientError, DataError, VendorError
from vl2v_client.export.weights import export_bundle
from vl2v_client.reports.pages import Purchase
from vl2v_client.reports.report import DomainRow, ReportRow, RunReport
from vl2v_client.reports.sweep_report import Outcome, SharedPurchase, SweepReport
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

HOSTILE = "a\x1b[2J\x1b]8;;http://192.0.2.1\x07b\x1b\\ [red]c[/] [link=http://192.0.2.1]d[/link] :smile: \u202ee\r\x9bf"
SEEN = r"a\x1b[2J\x1b]8;;http://192.0.2.1\x07b\x1b\ [red]c[/] [link=http://192.0.2.1]d[/link] :smile: \u202ee\r\x9bf"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to a terminal with colours, as far as rich can tell."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "300"}.items():
        monkeypatch.setenv(name, value)


def check(shown: str) -> str:
    """No control but rich's own colours; returns the rest."""
    words = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not {letter for letter in words if not letter.isprintable()} - {"\n"}, words
    return words


@pytest.mark.usefixtures("terminal")
def test_a_console_shows_a_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", HOSTILE, title=HOSTILE, box=None, header_style="bold")
    table.add_row(HOSTILE, f"two\nlines {HOSTILE}")
    PlainConsole().print(table)
    shown = check(capsys.readouterr().out)
    assert shown.count(SEEN) == 4
    assert r"two\nlines" in shown
    PlainConsole().print(HOSTILE)
    assert check(capsys.readouterr().out).strip() == SEEN
    PlainConsole().print(Markdown(f"# {HOSTILE}\n\n| {HOSTILE} |\n| --- |\n| {HOSTILE} |\n"))
    check(capsys.readouterr().out)


@pytest.mark.usefixtures("terminal")
def test_a_table_of_hostile_cells_keeps_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(Column("name", overflow="fold"), "count", box=None)
    table.add_row(HOSTILE, "12")
    PlainConsole().print(table)
    lines = check(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 40
    assert SEEN.replace(" ", "") in "".join(line[:33] for line in lines[1:]).replace(" ", "")


def test_an_error_of_several_lines_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("error", f"{HOSTILE}\nerror: bought 1,000,000 queries")
    assert check(capsys.readouterr().err) == f"error: {SEEN}\n  error: bought 1,000,000 queries\n"


@pytest.mark.parametrize("error", [DataError(HOSTILE), VendorError(HOSTILE, code=HOSTILE, request_id=HOSTILE)])
def test_an_error_steers_nothing_where_python_prints_it(error: ClientError) -> None:
    printed = "".join(traceback.format_exception(error))
    assert SEEN in printed
    assert not {letter for letter in printed if not letter.isprintable()} - {"\n"}


def test_bars_show_facts_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STDERR, "_force_terminal", True)
    monkeypatch.setattr(STDERR, "_width", 300)
    with bars(quiet=False) as progress:
        progress("buying", 1, 2, {"money": HOSTILE})
    shown = re.sub(r"\x1b\[(\?25[lh]|[0-9]*[AK]|[0-9;]*m)|\r", "", capsys.readouterr().err)  # rich's own codes
    assert SEEN in check(shown)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    card = StudentCard(TINY_VIT, SIZE, ("[red]", "=1+1", "[link=x]blue[/]"), "VL2V-ADiP", 0, logit_scale=20.0)
    views = coloured_views(5, views=1).pixels[:, 0]
    export_bundle(tmp_path / "student", StudentBundle(fresh_classifier(), card), check_pixels=views)
    return tmp_path / "student"


def test_predictions_name_each_file_on_one_line(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = student.parent / "images"
    folder.mkdir()
    Image.fromarray(np.full((40, 40, 3), 200, dtype=np.uint8)).save(folder / "image.png")
    (folder / "image.png").rename(folder / "a\x1b[2J\nb\u202e[red].png")
    assert run(["predict", str(student), str(folder)]) == 0
    lines = check(capsys.readouterr().out).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(rf"{folder}/a\x1b[2J\nb\u202e[red].png,")
    assert run(["predict", str(student), str(folder), "--json"]) == 0
    row = capsys.readouterr().out
    assert row.isascii()
    assert json.loads(row)["path"] == f"{folder}/a\x1b[2J\nb\u202e[red].png"


@pytest.mark.parametrize("words", [(), ("--exact",)])
def test_a_class_that_no_card_can_name_is_refused_before_it_is_bought(tmp_path: Path, words: tuple[str, ...]) -> None:
    for name in ("cat", "do\x1b[2Jg"):
        (tmp_path / "data" / "photo" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32)).save(tmp_path / "data" / "photo" / name / f"{number}.png")
    with served(FakeVendor(image_size=32)) as url:
        refused = ClientShell(url, tmp_path).run("plan", *words)
    assert isinstance(refused.exception, DataError)
    assert "class folders cannot be used (a class name has control characters): rename them" in str(refused.exception)


def _report() -> RunReport:
    return RunReport(
        dataset=HOSTILE,
        class_names=(HOSTILE, "[x](http://192.0.2.1)"),
        source_domains=("<script>alert(1)</script>",),
        target_domain="![x](http://192.0.2.1/y.png)",
        counts={"train": 1, "validation": 1, "target": 1},
        rows=(ReportRow(HOSTILE, 1.0, 0.5, 0.5, note="| `x` |"), ReportRow("VL2V-ADiP", 1.0, 0.5, 0.5)),
        purchase=Purchase(1, 1, 10, HOSTILE),
        teacher=f"http://192.0.2.1/{HOSTILE}",
        student="*tiny*",
        seed=0,
        settings={"prompt": HOSTILE},
        confusion=[[1, 0], [0, 1]],
        student_folder="stu`dent",
        by_domain=(DomainRow("a_b __c__", False, 1, 0.5),),
    )


def _sweep_report() -> SweepReport:
    target = "[x](http://192.0.2.1)"
    return SweepReport(
        dataset=HOSTILE,
        targets=(target,),
        seeds=(0,),
        teacher=HOSTILE,
        student="<b>tiny</b>",
        views="4",
        outcomes=(Outcome("ERM", target, 0, 0.5, 0.5, 0.5),),
        teacher_target_in={target: 0.5},
        purchase=SharedPurchase(1, 1, 10, HOSTILE),
        queries={"ERM": 1},
        published_queries=10,
    )


@pytest.mark.parametrize("report", [_report(), _sweep_report()], ids=["run", "sweep"])
def test_no_name_in_a_report_is_markup(
    report: RunReport | SweepReport, capsys: pytest.CaptureFixture[str], terminal: None
) -> None:
    page = report.to_markdown()
    check(page)
    assert not re.search(r"(?<!\\)<\w|(?<!\\)\]\(|(?<!\\)\[x", page)
    PlainConsole().print(Markdown(page))
    shown = check(capsys.readouterr().out)
    assert "http://192.0.2.1" in shown
    assert SEEN.replace(" ", "") in re.sub(r"\s", "", shown)
    for name in ("[x](http://192.0.2.1)", "![x](http://192.0.2.1/y.png)", "<script>alert(1)</script>", "*tiny*"):
        assert name in shown or isinstance(report, SweepReport)
    if isinstance(report, RunReport):
        assert "a_b __c__" in shown
        assert replace(report, rows=report.rows[1:]).summary().startswith("# a\\\\x1b")
