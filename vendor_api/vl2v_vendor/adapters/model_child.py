"""The parent's side of one model process: batches out, vectors back, and news of its death.

Two threads move the messages, so the event loop never blocks on the pipe; everything else happens in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import queue
import threading
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.context import SpawnProcess
from typing import Final, Literal

from vl2v_vendor.adapters.model_worker import Answer, Loaded, LoadModel, Work, serve_model
from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable

_STOP_SECONDS: Final = 5.0


class ModelChild:
    """One model process as its parent sees it, from its start to its end; made inside a running event loop."""

    def __init__(self, load: LoadModel) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=serve_model, args=(load, child_connection), daemon=True, name="vl2v-model"
        )
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[ModelInfo] = self._loop.create_future()
        self._died = asyncio.Event()
        self._waiters: dict[int, asyncio.Future[VectorBatch]] = {}
        self._ids = itertools.count()
        self._outbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.process.start()
        child_connection.close()
        threading.Thread(target=self._send, args=(self._connection,), daemon=True, name="model-send").start()
        threading.Thread(target=self._receive, args=(self._connection,), daemon=True, name="model-receive").start()

    async def loaded(self) -> ModelInfo:
        """Wait for the warm model; raises ModelLoadFailed."""
        return await asyncio.shield(self._loaded)

    async def died(self) -> None:
        """Wait for the end of the process."""
        await self._died.wait()

    async def encode(self, lane: Literal["images", "tokens"], batch: PixelBatch | TokenBatch) -> VectorBatch:
        """Send one batch and wait for its vectors."""
        if self._died.is_set():
            raise _death()
        work = Work(next(self._ids), lane, batch)
        waiter: asyncio.Future[VectorBatch] = self._loop.create_future()
        self._waiters[work.id] = waiter
        try:
            self._outbox.put(work)
            return await waiter
        finally:
            self._waiters.pop(work.id, None)

    async def stop(self) -> None:
        """End the process and its threads, politely first."""
        self._outbox.put(None)
        self._loaded.cancel()
        self.process.terminate()
        try:
            await asyncio.wait_for(self._died.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self._died.wait()
        self._connection.close()

    def _send(self, connection: Connection) -> None:
        """Thread: a large batch blocks here, not in the event loop, until the child takes it."""
        with contextlib.suppress(OSError):  # the child is gone; the receiving thread tells the waiters
            while (work := self._outbox.get()) is not None:
                connection.send(work)

    def _receive(self, connection: Connection) -> None:
        """Thread: hand every message to the event loop, and the end of the process last."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            with contextlib.suppress(EOFError, OSError):  # the child is gone
                while True:
                    self._loop.call_soon_threadsafe(self._handle, connection.recv())
            wait_for_any([self.process.sentinel])
            self._loop.call_soon_threadsafe(self._bury)

    def _handle(self, message: Answer | Loaded) -> None:
        if isinstance(message, Loaded):
            if self._loaded.done():
                return
            if message.info is not None:
                self._loaded.set_result(message.info)
            else:
                self._loaded.set_exception(ModelLoadFailed(message.error or "the model cannot be loaded"))
            return
        waiter = self._waiters.get(message.id)
        if waiter is None or waiter.done():
            return
        if message.vectors is not None:
            waiter.set_result(message.vectors)
        else:
            waiter.set_exception(EncodingFailed(message.error or "the model failed"))

    def _bury(self) -> None:
        self.process.join()
        self._died.set()
        self._outbox.put(None)
        if not self._loaded.done():
            code = self.process.exitcode
            self._loaded.set_exception(
                ModelLoadFailed(f"the model process ended while loading (exit code {code}); is there enough memory?")
            )
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(_death())


def _death() -> ModelUnavailable:
    return ModelUnavailable("the model process died and is being restarted; nothing was billed", retry_after_seconds=5)
