"""Waiting on the event loop of a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> float:
    """Wait for a condition, at most a minute; returns the seconds that it took."""
    started = time.monotonic()
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)
    return time.monotonic() - started
