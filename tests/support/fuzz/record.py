"""How far a run has come, in a file that a killed run leaves whole, and what was found."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.fuzz.subject import case_dice
from vl2v_vendor.host import return_free_memory

LARGEST_KEPT = 64 * 1024
"""Bytes of an input that is kept as a file; a larger one is made again by its number."""


@dataclass
class Record:
    """What a run of one class has done.

    Attributes:
        done: inputs that were tried: those with the numbers below it.
        seconds: processor time of that, and what the system did for it.
        outcomes: how many ended in which way.
        found: what was wrong, by the number of the input.
        resident: samples of the process's memory in bytes, by the number of inputs tried; since the last start.
    """

    seed: int
    done: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    resident: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, seed: int) -> Record:
        """Read a record, or begin one; what was begun with another seed is begun anew."""
        if path.exists():
            known: dict[str, Any] = json.loads(path.read_text())
            if known["seed"] == seed:
                return cls(**known)
        return cls(seed)

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(path)

    @property
    def growth_percent(self) -> float | None:
        """Growth of the memory after the first half of what this process did; None if that was too little to say."""
        if len(self.resident) < 10:
            return None
        first, last = self.resident[len(self.resident) // 2][1], self.resident[-1][1]
        return round(100 * (last / first - 1), 2)


def keep(corpus: Path, name: str, seed: int, number: int, case: bytes) -> None:
    """Write an input into the corpus, from which the suite tries it again, unless it is large."""
    if len(case) <= LARGEST_KEPT:
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}-{number}").write_bytes(case)


def make_case(make: Any, seed: int, name: str, number: int) -> bytes:
    """Make the input of a number."""
    case: bytes = make(case_dice(seed, name, number))
    return case


def resident_bytes() -> int:
    """Return this process's memory, without what is free and the C library keeps."""
    return_free_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spent_seconds() -> float:
    """Return the processor time of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
