"""What is shown while a command works: lines in a file, bars in a terminal, and both at 80 columns."""

from __future__ import annotations

import re

import pytest

from vl2v_client.cli.bars import Bars, Lines, bars, rate
from vl2v_client.cli.console import STDERR


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_gets_a_line_every_ten_seconds_and_at_the_end_of_each_phase() -> None:
    clock, lines = Clock(), list[str]()
    progress = Lines(lines.append, clock)
    for step in range(1, 101):
        clock.now += 0.5
        progress("distill", step, 100, {"loss": f"-0.{step}", "validation": "86.7%"})
    assert len(lines) == 5, "50 seconds"
    assert lines[0] == "distill: 20 of 100, 2.0/s, 40 s left, loss -0.20, validation 86.7%"
    assert lines[-1] == "distill: 100 of 100, 2.0/s, took 50 s, loss -0.100, validation 86.7%"


def test_a_short_phase_has_one_line_and_says_no_speed() -> None:
    clock, lines = Clock(), list[str]()
    progress = Lines(lines.append, clock)
    for done in (1, 2, 2):
        progress("files", done, 2)
    progress("texts", 7, 7, {})
    assert lines == ["files: 2 of 2", "texts: 7 of 7"]
    progress("files", 1, 2)
    clock.now += 11
    progress("files", 2, 2)
    assert lines[2:] == ["files: 2 of 2, 11 s each, took 11 s"], "the same phase of another purchase"


def test_a_phase_that_went_on_counts_its_own_steps_alone() -> None:
    clock, lines = Clock(), list[str]()
    progress = Lines(lines.append, clock)
    progress("distill", 4000, 5000)
    clock.now += 10
    progress("distill", 4100, 5000)
    assert lines == ["distill: 4,100 of 5,000, 10/s, 2 min left"]


@pytest.mark.parametrize(
    ("speed", "words"), [(1234.5, "1,234/s"), (31, "31/s"), (3.14, "3.1/s"), (0.08, "12 s each"), (0.5, "0.5/s")]
)
def test_no_speed_is_rounded_to_nothing(speed: float, words: str) -> None:
    assert rate(speed) == words


def test_where_standard_error_is_no_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with bars(quiet=False) as progress:
        assert isinstance(progress, Lines)
        progress("buying [red]\x1b[2J", 2, 2, {"money": "0.01 EUR"})
    assert capsys.readouterr().err == "buying [red]\\x1b[2J: 2 of 2, money 0.01 EUR\n"


def test_at_80_columns_count_speed_and_loss_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STDERR, "_force_terminal", True)
    monkeypatch.setattr(STDERR, "_width", 80)
    clock = Clock()
    monkeypatch.setattr(STDERR, "get_time", clock)
    with bars(quiet=False) as progress:
        assert isinstance(progress, Bars)
        for step in range(1, 5002, 100):
            clock.now += 4
            facts = {"loss": "-0.8123", "validation": "86.7%", "gap to floor": "0.0512"}
            progress("vl2v-adip: distill", step, 5001, facts)
    shown = re.sub(r"\x1b\[(\?25[lh]|[0-9]*[AK]|[0-9;]*m)", "", capsys.readouterr().err)
    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert len(last) <= 80
    for words in ("vl2v-adip: distill", "5001/5001", " 25/s ", "loss -0.8123  validation 86.7%"):
        assert words in last, last
    assert "gap" not in last, "it has no room, whole"
    assert "\u2026" not in last
