"""The commands and programs that stand in a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_BEFORE = re.compile(r"^<!-- before: (.+) -->$", re.MULTILINE)
SHELL = ("console", "bash", "sh")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        line: Line of the page that it begins at, counted from 1.
        language: The word behind the fence.
        text: What stands in it.
        reason: Why the tests do not run it, from the comment `<!-- not run: ... -->` above it; empty if they do.
    """

    line: int
    language: str
    text: str
    reason: str

    @property
    def commands(self) -> Sequence[str]:
        """Its command lines, continued lines joined, without comments and empty lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def taken_for_granted(page: Path) -> Sequence[str]:
    """Return the commands of the comments `<!-- before: COMMAND -->`: what a reader of the page has done already."""
    return _BEFORE.findall(page.read_text())


def blocks_of(page: Path, *languages: str) -> Sequence[Block]:
    """Return the fenced blocks of a page in these languages, in order."""
    text = page.read_text()
    return [
        Block(
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=found["text"],
            reason=found["reason"] or "",
        )
        for found in _FENCED.finditer(text)
        if found["language"] in languages
    ]
