"""The parent's side of one model process: batches out, vectors back, and its exit.

Two threads copy batches and move messages, so that the event loop waits for neither; everything else happens in it.
"""

import asyncio
import atexit
import contextlib
import itertools
import multiprocessing
import queue
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.context import SpawnProcess
from typing import Final, TypeAlias

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInput, VectorBatch
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable
from vl2v_vendor.engine.process.model_worker import Answer, Heartbeat, Loaded, LoadModel, Message, serve_model
from vl2v_vendor.engine.process.shared_slots import Slots, Work, map_memory, open_memory
from vl2v_vendor.engine.process.watchdog import PERIOD_SECONDS, Watchdog

_STOP_SECONDS: Final = 5.0

_Outbox: TypeAlias = queue.SimpleQueue[tuple[Work, Sequence[ModelInput]] | None]
"""Batches for the sending thread; None ends it."""


class SlotDispatcher:
    """Gives each batch a slot and its waiter. Runs in the event loop."""

    def __init__(self, loaded: Loaded, slots: Slots, outbox: _Outbox, *, floor_seconds: float) -> None:
        self._pace = loaded.pace
        self._slots = slots
        self._outbox = outbox
        self._free: asyncio.Queue[int | None] = asyncio.Queue()  # None: closed
        self._pending: dict[int, tuple[Work, asyncio.Future[VectorBatch]]] = {}
        self._ids = itertools.count()
        self.watchdog = Watchdog(floor_seconds, max(pace.seconds(pace.batch_items) for pace in loaded.pace.values()))
        for slot in range(loaded.layout.count):
            self._free.put_nowait(slot)

    async def encode(self, lane: Modality, items: Sequence[ModelInput], shape: tuple[int, ...]) -> VectorBatch:
        """Encode one batch, shorter items padded with 0 to its shape; waits for a slot if all are in use.

        If it is cancelled before the child has begun, the child leaves the batch out.

        Raises:
            ModelUnavailable: The child is gone.
            EncodingFailed: The model could not encode the batch.
        """
        if (slot := await self._free.get()) is None:
            self._free.put_nowait(None)  # for the next who waits
            raise _death()
        self._slots.abandoned[slot] = False
        work = Work(next(self._ids), slot, lane, shape)
        waiter: asyncio.Future[VectorBatch] = asyncio.get_running_loop().create_future()
        self._pending[work.id] = work, waiter
        if len(self._pending) == 1:
            self._watch_first()
        self._outbox.put((work, items))
        try:
            return await waiter
        except asyncio.CancelledError:
            if work.id in self._pending:
                self._slots.abandoned[work.slot] = True
            raise

    def settle(self, answer: Answer) -> None:
        """Give the waiter of a batch its vectors or its error; nobody waits for an answer after `close`."""
        if answer.id not in self._pending:
            return
        work, waiter = self._pending.pop(answer.id)
        if not waiter.done():
            if answer.shape is not None:
                waiter.set_result(self._slots.output(work.slot, answer.shape).copy())
            else:
                waiter.set_exception(EncodingFailed(answer.error or "the model failed"))
        self._free.put_nowait(work.slot)
        self._watch_first()

    def close(self) -> None:
        """Fail everybody who waits: the child cannot be used any more. The slots are not read from here on."""
        while not self._free.empty():
            self._free.get_nowait()
        self._free.put_nowait(None)
        for _, waiter in self._pending.values():
            if not waiter.done():
                waiter.set_exception(_death())
        self._pending.clear()

    def _watch_first(self) -> None:
        """Watch the first batch: the child works on one after the other, so it is the one that it has begun."""
        work, _ = next(iter(self._pending.values()), (None, None))
        self.watchdog.begin_batch(self._pace[work.lane].seconds(work.shape[0]) if work else None)


def _death() -> ModelUnavailable:
    return ModelUnavailable("the model process died and is being restarted; nothing was billed", retry_after_seconds=5)


class ModelChild:
    """One model process as its parent sees it, from its start to its end; made inside a running event loop.

    Attributes:
        process_id: Id of the process.
        loaded: Future of the warm model, or of ModelLoadFailed.
        ended: Future of the reason why the process cannot be used any more: it is dead, or stuck and being killed.
        dispatcher: Dispatcher of batches to the process; None until the model is loaded.
    """

    def __init__(self, load: LoadModel, batch_items: Mapping[Modality, int] | None, *, floor_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._memory = open_memory()
        self._process: SpawnProcess = context.Process(
            target=serve_model, args=(load, batch_items, child_connection, self._memory), daemon=True, name="vl2v-model"
        )
        self._floor_seconds = floor_seconds
        self._loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._gone = asyncio.Event()
        self.dispatcher: SlotDispatcher | None = None
        self._watch: asyncio.Task[None] | None = None
        self._outbox: _Outbox = queue.SimpleQueue()
        self._process.start()
        # At its exit a process that forgot to stop the child would wait for it: multiprocessing's SIGTERM is ignored.
        atexit.register(self._process.kill)
        self.process_id = self._process.pid
        child_connection.close()
        threading.Thread(target=self._receive, daemon=True, name="model-receive").start()

    async def stop(self) -> None:
        """End the process and its threads. It has nothing to save, and ignores SIGTERM.

        A process that survives even SIGKILL is left behind.
        """
        self._finish("it was stopped")
        self.loaded.cancel()
        if not self._gone.is_set():
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), _STOP_SECONDS)

    def _send(self, slots: Slots) -> None:
        """Thread: copy each batch into its slot and send the child a message; unmap the slots at the end.

        The event loop stops reading slots before it ends this thread, which is the last that uses them.
        """
        while (parcel := self._outbox.get()) is not None:
            work, items = parcel
            # Child or loop may be gone; then the receiving thread ends those who wait.
            with contextlib.suppress(OSError, RuntimeError):
                try:
                    slots.fill(work, items)
                except ValueError as error:
                    self._loop.call_soon_threadsafe(self._handle, Answer(work.id, None, str(error)))
                else:
                    self._connection.send(work)
        slots.close()

    def _receive(self) -> None:
        """Thread: hand every message to the event loop, and the end of the process last."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            with contextlib.suppress(EOFError, OSError):  # the child is gone
                while True:
                    self._loop.call_soon_threadsafe(self._handle, self._connection.recv())
            wait_for_any([self._process.sentinel])
            self._loop.call_soon_threadsafe(self._on_exit)

    def _handle(self, message: Message) -> None:
        if self.dispatcher is not None:
            self.dispatcher.watchdog.on_heartbeat(message.busy_seconds if isinstance(message, Heartbeat) else None)
            if isinstance(message, Answer):
                self.dispatcher.settle(message)
        elif self.loaded.done():
            return
        elif isinstance(message, ModelLoadFailed):
            self.loaded.set_exception(message)
        elif isinstance(message, Loaded):
            slots = Slots(map_memory(self._memory, message.layout.size_bytes), message.layout)
            self.dispatcher = SlotDispatcher(message, slots, self._outbox, floor_seconds=self._floor_seconds)
            threading.Thread(target=self._send, args=(slots,), daemon=True, name="model-send").start()
            self._watch = self._loop.create_task(self._keep_watch(self.dispatcher.watchdog), name="model-watchdog")
            self.loaded.set_result(message)

    async def _keep_watch(self, watchdog: Watchdog) -> None:
        reason = None
        while reason is None:
            checked = self._loop.time()
            await asyncio.sleep(PERIOD_SECONDS)
            reason = watchdog.check(self._loop.time() - checked)
        self._process.kill()
        self._finish(f"killed because {reason}")

    def _on_exit(self) -> None:
        """Clean up after the process has exited."""
        self._process.join()
        code = self._process.exitcode
        if not self.loaded.done():
            self.loaded.set_exception(
                ModelLoadFailed(f"the model process ended while loading (exit code {code}); is there enough memory?")
            )
        self._finish(f"exit code {code}")
        self._connection.close()
        atexit.unregister(self._process.kill)
        self._process.close()
        self._gone.set()

    def _finish(self, reason: str) -> None:
        """Use the process no more."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._memory.close()
        if self._watch is not None:
            self._watch.cancel()
        if self.dispatcher is not None:
            self.dispatcher.close()
        self._outbox.put(None)  # only now: the sending thread unmaps the slots
