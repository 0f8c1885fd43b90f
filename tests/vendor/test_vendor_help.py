"""`--help` of every command on a terminal of 80 columns, what a wrong usage exits with, and how numbers are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from support.help_screens import WIDTH, check_list, check_screen, commands_of, flags_of, groups_in, loaded_for_help
from support.vendor.vendor_shell import invoke
from vl2v_vendor.cli.app import app, run

COMMANDS = tuple(commands_of(app))
GROUPS = {
    "serve": {"Address", "Model", "Ledger", "Output"},
    "parity": {"Parameters", "Model", "Output"},
    "keys create": {"Parameters", "Ledger", "Output"},
    "accounts topup": {"Arguments", "Parameters", "Ledger", "Output"},
    "ledger export": {"Parameters", "Ledger", "Output"},
}


@pytest.fixture(autouse=True, scope="module")
def _terminal() -> Iterator[None]:
    app.console = Console(width=WIDTH)  # else the one of an earlier help screen in this process
    yield
    app.console = None


def _help(command: str) -> str:
    shown = invoke(*command.split(), "--help")
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_all_commands_are_looked_at() -> None:
    assert len(COMMANDS) == 28
    assert {"serve", "parity", "log", "keys create", "accounts refund", "prices set", "ledger verify"} < set(COMMANDS)
    assert "--database" in flags_of(app, "serve")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_shown_in_full_no_line_is_wider_and_an_example_is_last(command: str) -> None:
    check_screen(_help(command), flags_of(app, command), f"vl2v-vendor {command}")


@pytest.mark.parametrize("command", GROUPS)
def test_the_options_stand_in_groups(command: str) -> None:
    assert groups_in(_help(command)) == GROUPS[command]


@pytest.mark.parametrize("command", ["", "serve", "keys", "keys create", "ledger export", "signing-key rotate"])
def test_help_loads_none_of_the_libraries_that_only_the_work_needs(command: str) -> None:
    heavy = {"numpy", "pydantic", "sqlalchemy", "alembic", "cryptography", "fastapi", "uvicorn", "torch", "PIL"}
    assert loaded_for_help("vl2v_vendor", command, heavy) == ""


def test_the_lists_of_commands_say_what_each_is_for() -> None:
    check_list(_help(""), {words for words in COMMANDS if " " not in words})
    for group in ("keys", "accounts", "prices", "ledger", "signing-key"):
        check_list(_help(group), {words.split()[1] for words in COMMANDS if words.startswith(f"{group} ")})


@pytest.mark.parametrize(
    "words",
    [
        "",
        "keys",
        "bogus",
        "keys bogus",
        "serve --no-such-option",
        "serve extra",
        "serve --port x",
        "serve --port 1.5",
        "keys create",
        "keys create --account",
        "keys create --account a --budget 1.5",
        "keys create --account a --budget 0x10",
        "keys create --account a --expires soon",
        "accounts topup acme",
        "accounts topup acme 1.5",
        "accounts refund acme 1 1",
        "accounts statement acme --after-seq -1",
        "prices set tiny video 3",
        "prices set tiny image 2.5",
        "ledger export --month 2026-01 --format CSV",
        "accounts create acme other",
        "accounts topup acme 5 --request-id=",
    ],
)
def test_wrong_usage_exits_with_2_and_touches_nothing(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert run(words.split()) == 2
    assert not list(tmp_path.iterdir())


def test_a_note_may_begin_with_a_hyphen(tmp_path: Path) -> None:
    place = {"XDG_DATA_HOME": str(tmp_path)}
    assert invoke("accounts", "create", "acme", "--budget", "1_000", **place).exit_code == 0
    assert invoke("accounts", "topup", "acme", "5", "--note", "-5 % off", **place).exit_code == 0
    assert "-5 % off" in invoke("accounts", "statement", "acme", **place).stdout
