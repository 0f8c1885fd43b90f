"""`--help` on a terminal of 80 columns, checked alike for both command lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from cyclopts import App

WIDTH = 80


def commands_of(app: App, *before: str) -> Iterator[str]:
    """Yield the words of every command and group of commands below `app`."""
    for name in app:
        if not name.startswith("-"):
            yield " ".join((*before, name))
            yield from commands_of(app[name], *before, name)


def flags_of(app: App, command: str) -> set[str]:
    """Return the flags that a command reads, as its parser has them."""
    found = app
    for word in command.split():
        found = found[word]
    if found.default_command is None:
        return set()
    arguments = found.assemble_argument_collection(default_parameter=app.default_parameter)
    return {name for one in arguments for name in one.names if name.startswith("--")}


def check_screen(shown: str, flags: set[str], example: str) -> None:
    """Check that every flag is shown in full, no line is wider than the terminal, and an example is last."""
    assert flags <= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown))
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "…" not in shown
    assert f"Example: {example}" in "\n".join(shown.rstrip().splitlines()[-2:])


def groups_in(shown: str) -> set[str]:
    """Return the headings of a screen."""
    return set(re.findall(r"╭─ ([A-Z][A-Za-z ]+) ─", shown))


def check_list(shown: str, commands: set[str]) -> None:
    """Check that the list of commands says in more than three words what each is for."""
    for command in commands:
        (line,) = [line for line in shown.splitlines() if line.startswith(f"│ {command} ")]
        assert len(line.strip("│ ").split()) > 3, line


def loaded_for_help(package: str, command: str, heavy: set[str]) -> str:
    """Return which of the `heavy` modules a fresh process has loaded after it showed the help of a command."""
    code = (
        f"import sys; from {package}.cli.app import run; assert run({[*command.split(), '--help']!r}) == 0; "
        f"sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""
