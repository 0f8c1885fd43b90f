"""Where the servers of `crashing_vendor` live and die, one at a time, on one port and one database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from support.vendor.live_parties import free_port

_HATCH = "from support.vendor import crashing_vendor; crashing_vendor.hatch({log!r}, {life_line})"


class Nest:
    """Restarts the server as often as it is killed.

    Args:
        home: the vendor's data folder: secrets, and the lock file of a SQLite database.
        database_url: migrated.
    """

    def __init__(self, home: Path, database_url: str) -> None:
        self.port = free_port()
        self._home = home
        self._points = home / "points.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VL2V_")}
        self._environment = clean | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
            "VL2V_VENDOR_DATA_DIR": str(home),
            "VL2V_VENDOR_DATABASE_URL": database_url,
            "VL2V_VENDOR_ENCODER": "hash",
            "VL2V_VENDOR_PORT": str(self.port),
            "VL2V_VENDOR_LOG_LEVEL": "warning",
        }
        self._launcher: asyncio.subprocess.Process | None = None
        self._life_line: int | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Nest:
        child_end, self._life_line = os.pipe()
        words = ("-c", _HATCH.format(log=str(self._points), life_line=child_end))
        with (self._home / "server.log").open("ab") as log:
            self._launcher = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=(child_end,),
            )
        os.close(child_end)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._launcher is not None
        assert self._launcher.stdin is not None
        assert self._life_line is not None
        os.close(self._life_line)  # whatever still serves dies of it
        self._launcher.stdin.close()
        await self._launcher.wait()

    async def hatch(self, point: str = "", hits: int = 1) -> None:
        """Start a server; one that is to die by itself is told where."""
        assert self._launcher is not None
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(json.dumps({"point": point, "hits": hits}).encode() + b"\n")
        self._pid = await self._read_number()

    def kill(self) -> None:
        """End the server with SIGKILL."""
        with suppress(ProcessLookupError):  # it was faster
            os.kill(self._pid, signal.SIGKILL)

    async def see_it_die(self, *, within_seconds: float) -> bool:
        """Wait for the end; kill what lives longer, and say so by False."""
        dying = asyncio.ensure_future(self._read_number())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await asyncio.shield(dying)
        in_time = dying.done()
        if not in_time:
            self.kill()
        code = await dying
        assert code == -signal.SIGKILL, f"the vendor ended by itself with code {code}; see {self._home / 'server.log'}"
        return in_time

    def points_seen(self) -> list[str]:
        """Every point that any server has passed."""
        return sorted(self._noted("seen "))

    def points_hit(self) -> Counter[str]:
        """How many servers died at each point."""
        return self._noted("killed ")

    def _noted(self, word: str) -> Counter[str]:
        lines = self._points.read_text().splitlines() if self._points.exists() else []
        return Counter(line.removeprefix(word) for line in lines if line.startswith(word))

    async def _read_number(self) -> int:
        assert self._launcher is not None
        assert self._launcher.stdout is not None
        return int(await self._launcher.stdout.readline())
