"""Two lanes to the model, one per modality, each with its own queue, and whose batch the model runs next.

There is no wait timer. While the model is idle, a batch is whatever waits. While it runs one, the next is formed as
late as possible, so that it can still grow: when the model is free or, so that a saturated model never waits, as soon
as some lane could fill a batch. The lanes take turns.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import MEBIBYTE, Encoder, ModelInfo, ModelInput
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.engine.queue.fair_queue import Entry
from vl2v_vendor.engine.queue.micro_batcher import LaneLimits, MicroBatcher

_MAX_BATCHES: Final = 2
"""One runs and one is ready."""
_NORM_TOLERANCE: Final = 1e-3
_TOKEN_BYTES: Final = 8


@dataclass(eq=False, slots=True)
class _Running:
    lane: MicroBatcher[Any, Any]
    batch: list[Entry[Any, Any]]
    began: float | None = None
    task: asyncio.Task[bool] = field(init=False)


class BatchScheduler:
    """Runs the batches of several lanes on one model; they set `changed` when there is something to decide."""

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
        running, self._running = self._running, deque()
        tasks = [*filter(None, [self._dispatcher]), *(batch.task for batch in running)]
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
                if running.began is None and all(entry.request.done.done() for entry in running.batch):
                    running.task.cancel()
            while (lane := self._lane_in_turn()) is not None:
                self._send(lane)

    def _lane_in_turn(self) -> MicroBatcher[Any, Any] | None:
        """Return the lane that may send a batch now, moved to the end of the line; None while there is none."""
        waiting = [lane for lane in self._lanes if lane.has_work]
        may_grow = self._running and not any(lane.has_full_batch for lane in waiting)
        if not waiting or may_grow or len(self._running) >= _MAX_BATCHES:
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
        if self._running and (first := self._running[0]).began is None:
            first.began = time.monotonic()
            for entry in first.batch:
                entry.request.last_began = first.began


class EncodingLanes(BatchScheduler):
    """Encodes single inputs in batches that many requests share.

    Args:
        max_batch_items: Number of items in one batch, of both lanes or by lane.
        max_queued_items: Number of items that may wait in a lane.
        max_queued_bytes: Bytes that the items that wait in a lane may take.
        max_wait_seconds: How long a request may wait without any of its items moving.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_batch_items: int | Mapping[Modality, int],
        max_queued_items: int,
        max_queued_bytes: int = 512 * MEBIBYTE,
        max_wait_seconds: float = 60.0,
    ) -> None:
        self._encoder = encoder
        self._input_bytes = largest_input_bytes(encoder.info)
        changed = asyncio.Event()
        encode: dict[Modality, Callable[[Any], Awaitable[Any]]]
        encode = {"image": encoder.encode_images, "text": encoder.encode_tokens}
        self._by_modality: dict[Modality, MicroBatcher[ModelInput, Vector]] = {}
        for modality, run in encode.items():
            batch_items = max_batch_items if isinstance(max_batch_items, int) else max_batch_items[modality]
            queued_items = min(max_queued_items, max_queued_bytes // self._input_bytes[modality])
            limits = LaneLimits(batch_items, queued_items, max_wait_seconds)
            self._by_modality[modality] = MicroBatcher(run, limits, changed)
        super().__init__(list(self._by_modality.values()), changed)

    @property
    def queued_items(self) -> dict[Modality, int]:
        """Items that wait, by lane."""
        return {modality: lane.queued_items for modality, lane in self._by_modality.items()}

    @property
    def queued_bytes(self) -> dict[Modality, int]:
        """Bytes that the items that wait take at most, by lane."""
        return {modality: items * self._input_bytes[modality] for modality, items in self.queued_items.items()}

    @property
    def reserved_items(self) -> dict[Modality, int]:
        """Items that are being prepared and have room to wait, by lane."""
        return {modality: lane.reserved_items for modality, lane in self._by_modality.items()}

    def observe_batches(self, observe: Callable[[Modality, int, float], None]) -> None:
        """Have `observe` called after every batch, with its lane, its items, and the seconds that the model took."""
        for modality, lane in self._by_modality.items():
            lane.observe = partial(observe, modality)

    def __getitem__(self, modality: Modality) -> MicroBatcher[ModelInput, Vector]:
        return self._by_modality[modality]

    async def encode(
        self, modality: Modality, inputs: Sequence[ModelInput], *, key: str = ""
    ) -> list[Vector | ItemFailure]:
        """Encode inputs of one modality: a checked unit vector `[D]`, or the item's own error, in order.

        Room for the inputs must have been reserved under the same `key`; keys take turns.

        Raises:
            Overloaded: The request waited too long.
            ModelUnavailable: The model process is gone; nothing was sold.
        """
        dimension = self._encoder.info.embedding_dim
        return [_checked(outcome, dimension) for outcome in await self[modality].submit(inputs, key)]


def largest_input_bytes(info: ModelInfo) -> dict[Modality, int]:
    """Return bytes of one input of the model, at most, by modality."""
    return {"image": 3 * info.image_size**2, "text": _TOKEN_BYTES * info.context_length}


def _checked(outcome: Vector | Exception, dimension: int) -> Vector | ItemFailure:
    """Return the vector if it may be sold: right width, finite, unit norm."""
    if isinstance(outcome, Exception):
        return ItemFailure("encoding_failed", "the model could not encode this item; nothing was billed for it")
    norm = float(np.linalg.norm(outcome))
    if outcome.shape != (dimension,) or not abs(norm - 1.0) <= _NORM_TOLERANCE:
        return ItemFailure("encoding_failed", "the model gave no direction for this item; nothing was billed for it")
    return outcome
