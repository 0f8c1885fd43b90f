"""The parent's side of one model process: batches out, vectors back, and its exit.

Two threads copy batches and move messages, so that the event loop waits for neither; everything else happens in it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import queue
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.context import SpawnProcess
from typing import Final

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed, ModelUnavailable
from vl2v_vendor.engine.process.model_messages import Answer, Heartbeat, Loaded, NotLoaded, Work
from vl2v_vendor.engine.process.model_worker import LoadModel, serve_model
from vl2v_vendor.engine.process.shared_slots import SharedFile, Slots
from vl2v_vendor.engine.process.slot_dispatcher import Inputs, SlotDispatcher
from vl2v_vendor.engine.process.watchdog import PERIOD_SECONDS, Watchdog

_STOP_SECONDS: Final = 5.0


class ModelChild:
    """One model process as its parent sees it, from its start to its end; made inside a running event loop.

    Args:
        load: Function that loads the model in the child; picklable.
        batch_items: Batch sizes that are decided already, by lane; None measures them.
        floor_seconds: Shortest time after which a silent child counts as stuck.

    Attributes:
        process_id: Id of the process.
        end: Reason why the process cannot be used any more; None while it can.
        dispatcher: Dispatcher of batches to the process; None until the model is loaded.
    """

    def __init__(self, load: LoadModel, batch_items: Mapping[Modality, int] | None, *, floor_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._memory = SharedFile()
        self._process: SpawnProcess = context.Process(
            target=serve_model, args=(load, batch_items, child_connection, self._memory), daemon=True, name="vl2v-model"
        )
        self.end: str | None = None
        self.dispatcher: SlotDispatcher | None = None
        self._floor_seconds = floor_seconds
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self._ended, self._gone = asyncio.Event(), asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._outbox: queue.SimpleQueue[tuple[Work, Inputs] | None] = queue.SimpleQueue()
        self._process.start()
        # At its exit a process that forgot to stop the child would wait for it: multiprocessing's SIGTERM is ignored.
        atexit.register(self._process.kill)
        self.process_id = self._process.pid
        child_connection.close()
        threading.Thread(target=self._send, daemon=True, name="model-send").start()
        threading.Thread(target=self._receive, daemon=True, name="model-receive").start()

    async def loaded(self) -> Loaded:
        """Wait for the warm model.

        Raises:
            ModelLoadFailed: The model cannot be loaded.
        """
        return await asyncio.shield(self._loaded)

    async def ended(self) -> None:
        """Wait until the process is dead, or so stuck that it is being killed."""
        await self._ended.wait()

    async def encode(self, lane: Modality, inputs: Inputs, shape: tuple[int, ...]) -> VectorBatch:
        """Encode a batch; see `SlotDispatcher.encode`.

        Raises:
            ModelUnavailable: The process is not running.
        """
        if self.dispatcher is None:
            raise ModelUnavailable("the model process is not running; nothing was billed", retry_after_seconds=5)
        return await self.dispatcher.encode(lane, inputs, shape)

    async def stop(self) -> None:
        """End the process and its threads. It has nothing to save, and ignores SIGTERM.

        A process that survives even SIGKILL is left behind.
        """
        self._finish("it was stopped")
        self._loaded.cancel()
        if not self._gone.is_set():
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), _STOP_SECONDS)
        self.dispatcher = None

    def _send(self) -> None:
        """Thread: copy each batch into its slot and send the child a message."""
        # Child or loop may be gone; then the receiving thread ends those who wait.
        with contextlib.suppress(OSError, RuntimeError):
            while (parcel := self._outbox.get()) is not None:
                work, inputs = parcel
                try:
                    assert self.dispatcher is not None
                    self.dispatcher.fill(work, inputs)
                except ValueError as error:
                    self._loop.call_soon_threadsafe(self._handle, Answer(work.id, None, str(error)))
                else:
                    self._connection.send(work)

    def _receive(self) -> None:
        """Thread: hand every message to the event loop, and the end of the process last."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            with contextlib.suppress(EOFError, OSError):  # the child is gone
                while True:
                    self._loop.call_soon_threadsafe(self._handle, self._connection.recv())
            wait_for_any([self._process.sentinel])
            self._loop.call_soon_threadsafe(self._on_exit)

    def _handle(self, message: Answer | Heartbeat | Loaded | NotLoaded) -> None:
        if self.dispatcher is not None:
            self.dispatcher.watchdog.on_heartbeat(message.cpu_seconds if isinstance(message, Heartbeat) else None)
        if isinstance(message, Answer) and self.dispatcher is not None:
            self.dispatcher.settle(message)
        elif isinstance(message, Loaded) and not self._loaded.done():
            self._open_dispatcher(message)
            self._loaded.set_result(message)
        elif isinstance(message, NotLoaded) and not self._loaded.done():
            self._loaded.set_exception(ModelLoadFailed(message.error))

    def _open_dispatcher(self, loaded: Loaded) -> None:
        slots = Slots(self._memory.map(loaded.layout.size_bytes), loaded.layout)
        self.dispatcher = SlotDispatcher(
            loaded, slots, lambda work, inputs: self._outbox.put((work, inputs)), floor_seconds=self._floor_seconds
        )
        self._watch = self._loop.create_task(self._keep_watch(self.dispatcher.watchdog), name="model-watchdog")

    async def _keep_watch(self, watchdog: Watchdog) -> None:
        while True:
            checked = self._loop.time()
            await asyncio.sleep(PERIOD_SECONDS)
            if (reason := watchdog.check(self._loop.time() - checked)) is not None:
                self._process.kill()
                self._finish(f"killed because {reason}")
                return

    def _on_exit(self) -> None:
        """Clean up after the process has exited."""
        self._process.join()
        code = self._process.exitcode
        if not self._loaded.done():
            self._loaded.set_exception(
                ModelLoadFailed(f"the model process ended while loading (exit code {code}); is there enough memory?")
            )
        self._finish(f"exit code {code}")
        self._connection.close()
        atexit.unregister(self._process.kill)
        self._process.close()
        self._gone.set()

    def _finish(self, reason: str) -> None:
        """Use the process no more."""
        if self.end is not None:
            return
        self.end = reason
        self._memory.close()
        self._outbox.put(None)
        if self._watch is not None:
            self._watch.cancel()
        if self.dispatcher is not None:
            self.dispatcher.close()
        self._ended.set()
