"""What is fuzzed: something that makes an input by dice, tries it, and says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeAlias


class Fault(Exception):
    """What must never be, such as a 5xx, a wrong bill or an exception that nobody declared."""


Outcome: TypeAlias = "str | Fault"
"""In a word how an input ended, such as a status; or what was wrong."""


class Subject(Protocol):
    """One class of input.

    Attributes:
        together: how many inputs are tried at once.
    """

    together: int

    def make(self, dice: random.Random) -> bytes:
        """Make an input."""

    def try_all(self, cases: Sequence[bytes]) -> list[Outcome]:
        """Try inputs; returns how each ended."""

    def finish(self) -> list[Fault]:
        """Hold what came of all inputs against what must be, such as the bill; then close."""


class OneByOne:
    """A subject that tries one input after the other, by `check`, which raises `Fault`."""

    together = 1

    def check(self, case: bytes) -> str:
        raise NotImplementedError

    def try_all(self, cases: Sequence[bytes]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for case in cases:
            try:
                outcomes.append(self.check(case))
            except Fault as fault:
                outcomes.append(fault)
            except Exception as error:  # whatever was raised is the finding
                outcomes.append(Fault(f"{type(error).__name__}: {error}"[:500]))
        return outcomes

    def finish(self) -> list[Fault]:
        return []


def case_dice(seed: int, name: str, number: int) -> random.Random:
    """Return the dice of one input: with the same three it is made again."""
    return random.Random(f"{seed}/{name}/{number}")
