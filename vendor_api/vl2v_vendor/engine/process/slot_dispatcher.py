"""Dispatch of batches to a loaded model process: their slots, their waiters, and whether it takes too long."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import VectorBatch
from vl2v_vendor.domain.errors import EncodingFailed, ModelUnavailable
from vl2v_vendor.engine.process.model_messages import INPUT_TYPES, Answer, Loaded, Work
from vl2v_vendor.engine.process.shared_slots import Slots
from vl2v_vendor.engine.process.watchdog import Watchdog

Inputs: TypeAlias = Sequence[NDArray[np.uint8] | NDArray[np.int64]]
"""The items of a batch, one array each."""


@dataclass(frozen=True, slots=True)
class _Pending:
    work: Work
    waiter: asyncio.Future[VectorBatch]


class SlotDispatcher:
    """Gives each batch a slot and its waiter. Runs in the event loop; only `fill` is called by another thread.

    Args:
        loaded: First message of the child.
        slots: Memory shared with it.
        send: Function that has a batch copied into its slot and sends it to the child.
        floor_seconds: Shortest time after which a silent child counts as stuck.

    Attributes:
        watchdog: Watchdog of the child.
    """

    def __init__(
        self, loaded: Loaded, slots: Slots, send: Callable[[Work, Inputs], None], *, floor_seconds: float
    ) -> None:
        self._pace = loaded.pace
        self._slots = slots
        self._send = send
        self._free = deque(range(loaded.layout.count))
        self._freed = asyncio.Event()
        self._pending: dict[int, _Pending] = {}
        self._ids = itertools.count()
        self._is_closed = False
        self.watchdog = Watchdog(floor_seconds, max(pace.seconds(pace.batch_items) for pace in loaded.pace.values()))

    async def encode(self, lane: Modality, inputs: Inputs, shape: tuple[int, ...]) -> VectorBatch:
        """Encode one batch; waits for a slot if all are in use.

        If it is cancelled before the child has begun, the child leaves the batch out.

        Args:
            lane: Lane of the batch.
            inputs: Items, at most the lane's batch size.
            shape: Shape of the batch; shorter items are padded with 0.

        Raises:
            ModelUnavailable: The child is gone.
            EncodingFailed: The model could not encode the batch.
        """
        work = Work(next(self._ids), await self._take_slot(), lane, shape)
        waiter: asyncio.Future[VectorBatch] = asyncio.get_running_loop().create_future()
        self._pending[work.id] = _Pending(work, waiter)
        if len(self._pending) == 1:
            self._watch_first()
        self._send(work, inputs)
        try:
            return await waiter
        except asyncio.CancelledError:
            if work.id in self._pending:
                self._slots.set_abandoned(work.slot, True)
            raise

    def fill(self, work: Work, inputs: Inputs) -> None:
        """Copy a batch into its slot.

        Raises:
            ValueError: The batch does not fit there.
        """
        batch = self._slots.input(work.slot, work.shape, INPUT_TYPES[work.lane])
        for row, item in zip(batch, inputs, strict=True):
            row[: len(item)] = item
            row[len(item) :] = 0

    def settle(self, answer: Answer) -> None:
        """Give the waiter of a batch its vectors or its error."""
        pending = self._pending.pop(answer.id)
        if not pending.waiter.done():
            if answer.shape is not None:
                pending.waiter.set_result(self._slots.output(pending.work.slot, answer.shape).copy())
            else:
                pending.waiter.set_exception(EncodingFailed(answer.error or "the model failed"))
        self._free.append(pending.work.slot)
        self._freed.set()
        self._watch_first()

    def close(self) -> None:
        """Fail everybody who waits: the child cannot be used any more."""
        self._is_closed = True
        self._freed.set()
        for pending in self._pending.values():
            if not pending.waiter.done():
                pending.waiter.set_exception(_death())

    async def _take_slot(self) -> int:
        while not self._free and not self._is_closed:
            self._freed.clear()
            await self._freed.wait()
        if self._is_closed:
            raise _death()
        slot = self._free.popleft()
        self._slots.set_abandoned(slot, False)
        return slot

    def _watch_first(self) -> None:
        """Watch the first batch: the child works on one after the other, so it is the one that it has begun."""
        work = next(iter(self._pending.values())).work if self._pending else None
        self.watchdog.begin_batch(self._pace[work.lane].seconds(work.shape[0]) if work else None)


def _death() -> ModelUnavailable:
    return ModelUnavailable("the model process died and is being restarted; nothing was billed", retry_after_seconds=5)
