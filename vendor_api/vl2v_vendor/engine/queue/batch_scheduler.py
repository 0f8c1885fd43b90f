"""Whose batch the model runs next.

There is no wait timer. While the model is idle, a batch is whatever waits. While it runs one, the next is formed as
late as possible, so that it can still grow: when the model is free or, so that a saturated model never waits, as soon
as some lane could fill a batch. The lanes take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vl2v_vendor.engine.queue.fair_queue import Entry
from vl2v_vendor.engine.queue.micro_batcher import MicroBatcher

_MAX_BATCHES: Final = 2
"""One runs and one is ready."""


@dataclass(eq=False, slots=True)
class _Running:
    lane: MicroBatcher[Any, Any]
    batch: list[Entry[Any, Any]]
    began: float | None = None
    task: asyncio.Task[bool] = field(init=False)


class BatchScheduler:
    """Runs the batches of several lanes on one model.

    Args:
        lanes: Lanes that take turns.
        changed: Event that the lanes set when there is something to decide.
    """

    def __init__(self, lanes: Sequence[MicroBatcher[Any, Any]], changed: asyncio.Event) -> None:
        self._lanes = deque(lanes)
        self._changed = changed
        self._running: deque[_Running] = deque()
        self._dispatcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start running batches; needs a running event loop."""
        self._dispatcher = asyncio.create_task(self._dispatch(), name="batch-scheduler")

    async def close(self) -> None:
        """Stop; whatever still waits fails with ModelUnavailable."""
        running, self._running = list(self._running), deque()
        tasks: list[asyncio.Task[Any]] = [batch.task for batch in running]
        if self._dispatcher is not None:
            tasks.append(self._dispatcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes:
            lane.close([entry for batch in running if batch.lane is lane for entry in batch.batch])

    async def _dispatch(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for running in self._running:
                # Take back a batch that has not begun and that nobody waits for any more.
                if running.began is None and all(entry.request.is_over for entry in running.batch):
                    running.task.cancel()
            while (lane := self._lane_in_turn()) is not None:
                self._send(lane)

    def _lane_in_turn(self) -> MicroBatcher[Any, Any] | None:
        """Return the lane that may send a batch now, moved to the end of the line; None while there is none."""
        waiting = [lane for lane in self._lanes if lane.has_work]
        if not waiting or len(self._running) >= _MAX_BATCHES:
            return None
        if self._running and not any(lane.has_full_batch for lane in waiting):
            return None
        self._lanes.remove(waiting[0])
        self._lanes.append(waiting[0])
        return waiting[0]

    def _send(self, lane: MicroBatcher[Any, Any]) -> None:
        batch = lane.take()
        if not batch:
            return
        running = _Running(lane, batch)
        running.task = asyncio.create_task(lane.run(batch), name="batch")
        running.task.add_done_callback(lambda task: self._end(running, task))
        self._running.append(running)
        self._begin_first()

    def _end(self, running: _Running, task: asyncio.Task[bool]) -> None:
        """End a batch that is over or taken back; a callback: a task cancelled early runs none of its own code."""
        if running not in self._running:
            return  # closed
        self._running.remove(running)
        has_encoded = not task.cancelled() and task.result()
        seconds = time.monotonic() - running.began if has_encoded and running.began is not None else None
        self._begin_first()
        self._changed.set()
        running.lane.end(running.batch, seconds)

    def _begin_first(self) -> None:
        """Let the first batch begin: the model runs batches in order."""
        if self._running and self._running[0].began is None:
            first = self._running[0]
            first.began = time.monotonic()
            first.lane.begin(first.batch)
