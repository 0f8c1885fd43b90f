"""An attack as a program of its own, and the process in which a proof runs it.

The program gets ready, says so in a line, waits for a line, attacks, and prints what it saw as JSON. What goes wrong in
it is a traceback on standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.adversary import connection_attacks, unpaid_attacks
from support.adversary.door import Door

_PATIENCE_SECONDS = 120.0


def attack_of(name: str) -> Callable[[Door], Awaitable[None]]:
    """Return the attack of that name."""
    found: Callable[[Door], Awaitable[None]] | None = getattr(connection_attacks, name, None)
    return found or getattr(unpaid_attacks, name)  # type: ignore[no-any-return]


class Attacker:
    """An attack's process; a context manager. Leaving it ends the process.

    Args:
        log: Where the program's errors go.
    """

    def __init__(self, name: str, port: int, secret: str, *, seconds: float, count: int, log: Path) -> None:
        words = [sys.executable, "-m", __name__, name, str(port), secret, str(seconds), str(count)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._seconds = seconds
        self._errors = log.open("ab")
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the attack could not be prepared"
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: Any, _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def begin(self) -> None:
        """Let it attack."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> Counter[str]:
        """Wait until it is over; return how its acts ended."""
        told, _ = self._process.communicate(timeout=self._seconds + _PATIENCE_SECONDS)
        assert self._process.returncode == 0, "the attack failed; see its log"
        return Counter(json.loads(told))


def main() -> None:
    """Run the attack that the command line names."""
    name, port, secret, seconds, count = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    door = Door(int(port), secret, float(seconds), int(count))
    asyncio.run(_attack(door, attack_of(name)))
    print(json.dumps(door.seen))  # noqa: T201 - its result


async def _attack(door: Door, attack: Callable[[Door], Awaitable[None]]) -> None:
    crowd = door.crowd

    async def begin_when_told(act: Callable[[int], Awaitable[str]]) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if await asyncio.to_thread(sys.stdin.readline):  # or whoever began it is gone
            await crowd(act)

    door.crowd = begin_when_told  # type: ignore[method-assign]
    await attack(door)


if __name__ == "__main__":
    main()
