"""`--help` of every command on a terminal of 80 columns: every flag in full, the groups, and an example."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from support.client.client_shell import invoke
from support.help_screens import WIDTH, check_list, check_screen, commands_of, flags_of, groups_in, loaded_for_help
from vl2v_client.cli.app import app

COMMANDS = tuple(commands_of(app))
RUN_GROUPS = {"Most used", "Data", "Purchase", "Student", "Training", "Output"}
GROUPS = {
    "distill": RUN_GROUPS,
    "sweep": RUN_GROUPS,
    "plan": RUN_GROUPS,
    "pilot": RUN_GROUPS,
    "buy": RUN_GROUPS,
    "evaluate": {"Most used", "Purchase", "Output"},
    "audit": {"Most used", "Purchase", "Output"},
    "cache stats": {"Purchase", "Output"},
}


@pytest.fixture(autouse=True, scope="module")
def _terminal() -> Iterator[None]:
    app.console = Console(width=WIDTH)  # else the one of an earlier help screen in this process
    yield
    app.console = None


def _help(command: str) -> str:
    shown = invoke([*command.split(), "--help"], {})
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_all_commands_are_looked_at() -> None:
    assert {"distill", "sweep", "plan", "pilot", "buy", "evaluate", "predict", "export", "audit", "shapes"} < set(
        COMMANDS
    )
    assert {"cache", "cache stats", "cache verify"} < set(COMMANDS)
    assert "--max-queries" in flags_of(app, "distill")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_shown_in_full_no_line_is_wider_and_an_example_is_last(command: str) -> None:
    check_screen(_help(command), flags_of(app, command), f"vl2v-client {command}")


@pytest.mark.parametrize("command", GROUPS)
def test_the_options_stand_in_groups(command: str) -> None:
    assert groups_in(_help(command)) >= GROUPS[command]


def test_the_ten_options_that_people_use_first_come_first() -> None:
    first = _help("distill").partition("╭─ Data")[0]
    assert 10 <= len(re.findall(r"^│ --[a-z]", first, re.M)) <= 12


@pytest.mark.parametrize("command", ["", "distill", "plan", "buy", "audit"])
def test_help_loads_none_of_the_libraries_that_only_the_work_needs(command: str) -> None:
    heavy = {"numpy", "httpx", "torch", "PIL.Image", "sqlite3"}
    assert loaded_for_help("vl2v_client", command, heavy) == ""


def test_the_list_of_commands_says_what_each_is_for() -> None:
    check_list(_help(""), {words for words in COMMANDS if " " not in words})
