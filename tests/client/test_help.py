"""`--help` of every command on a terminal of 80 columns: every flag in full, the groups, and an example."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.client.client_shell import invoke
from vl2v_client.cli.app import app

WIDTH = 80
COMMANDS = ("distill", "sweep", "plan", "pilot", "buy", "evaluate", "predict", "audit", "shapes")
COMMANDS += ("cache stats", "cache verify")
GROUPS = {
    "distill": {"Most used", "Data", "Purchase", "Student", "Training", "Output"},
    "sweep": {"Most used", "Data", "Purchase", "Student", "Training", "Output"},
    "plan": {"Most used", "Data", "Purchase", "Student", "Training", "Output"},
    "pilot": {"Most used", "Data", "Purchase", "Student", "Training", "Output"},
    "buy": {"Most used", "Data", "Purchase", "Student", "Training", "Output"},
    "evaluate": {"Most used", "Purchase", "Output"},
    "audit": {"Most used", "Purchase", "Output"},
    "cache stats": {"Purchase", "Output"},
}


def _help(command: str) -> str:
    shown = invoke([*command.split(), "--help"], {"COLUMNS": str(WIDTH)})
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def _flags(command: str) -> set[str]:
    """The flags that the command reads, as its parser has them."""
    found = app
    for word in command.split():
        found = found[word]
    arguments = found.assemble_argument_collection(default_parameter=app.default_parameter)
    return {name for one in arguments for name in one.names if name.startswith("--")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_shown_in_full_and_no_line_is_wider(command: str) -> None:
    shown, flags = _help(command), _flags(command)
    assert len(flags) > 3 or command not in GROUPS or command.startswith("cache")
    assert flags <= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown))
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "…" not in shown


@pytest.mark.parametrize("command", GROUPS)
def test_the_options_stand_in_groups(command: str) -> None:
    assert set(re.findall(r"╭─ ([A-Z][A-Za-z ]+) ─", _help(command))) >= GROUPS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_stands_at_the_end(command: str) -> None:
    last = _help(command).rstrip().splitlines()[-2:]
    assert f"Example: vl2v-client {command}" in "\n".join(last)


def test_the_ten_options_that_people_use_first_come_first() -> None:
    first = _help("distill").partition("╭─ Data")[0]
    assert 10 <= len(re.findall(r"^│ --[a-z]", first, re.M)) <= 12


@pytest.mark.parametrize("command", ["", "distill", "plan", "buy", "audit"])
def test_help_loads_none_of_the_libraries_that_only_the_work_needs(command: str) -> None:
    code = (
        "import sys; from vl2v_client.cli.app import run; "
        f"run({[*command.split(), '--help']!r}); "
        "sys.exit(', '.join({'numpy', 'httpx', 'torch', 'PIL.Image', 'sqlite3'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_list_of_commands_says_what_each_is_for() -> None:
    shown = invoke(["--help"], {"COLUMNS": str(WIDTH)}).stdout.splitlines()
    for command in {words.split()[0] for words in COMMANDS}:
        (line,) = [line for line in shown if line.startswith(f"│ {command} ")]
        assert len(line.strip("│ ").split()) > 3, line
