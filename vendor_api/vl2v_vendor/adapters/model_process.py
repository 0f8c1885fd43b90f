"""The model in a process of its own, as an encoder for the server's event loop.

A model that crashes, runs out of memory or holds the interpreter lock cannot take the server with it. The child gets
batches through a pipe (`model_child`, `model_worker`). When the child dies its waiters are told at once, and another
child is started, at first after one second, then ever more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from vl2v_vendor.adapters.model_child import ModelChild
from vl2v_vendor.adapters.model_worker import LoadModel
from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed, ModelUnavailable

_FIRST_DELAY_SECONDS: Final = 1.0
_LONGEST_DELAY_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class ProcessEncoder:
    """The encoder port over a supervised child process.

    Args:
        load: loads the model in the child; picklable.
        first_delay_seconds: wait before the first restart; doubles with every failure in a row.
    """

    def __init__(self, load: LoadModel, *, first_delay_seconds: float = _FIRST_DELAY_SECONDS) -> None:
        self._load = load
        self._first_delay_seconds = first_delay_seconds
        self._info: ModelInfo | None = None
        self._child: ModelChild | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def info(self) -> ModelInfo:
        """The loaded model; kept while a dead child is being replaced.

        Raises:
            ModelUnavailable: it has not been loaded yet.
        """
        if self._info is None:
            raise ModelUnavailable("the model is being loaded")
        return self._info

    @property
    def ready(self) -> bool:
        """Whether the child is loaded, warm and alive."""
        return self._child is not None

    @property
    def process_id(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process.pid if self._child else None

    async def start(self) -> None:
        """Start the child and wait until its model is loaded and warm.

        Raises:
            ModelLoadFailed: with the child's own words.
        """
        child, self._info = await self._start_child()
        self._child = child
        self._supervisor = asyncio.create_task(self._supervise(child), name="model-supervisor")

    async def close(self) -> None:
        """Stop the child; whoever still waits is told that the model is unavailable."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._child = None

    async def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32, unit norm; raises as the port says."""
        return await self._living_child().encode("images", pixels)

    async def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids to `[N, D]` float32, unit norm; raises as the port says."""
        return await self._living_child().encode("tokens", tokens)

    def _living_child(self) -> ModelChild:
        if self._child is None:
            raise ModelUnavailable("the model process is being restarted", retry_after_seconds=5)
        return self._child

    async def _supervise(self, child: ModelChild) -> None:
        """Replace the child whenever it dies."""
        try:
            while True:
                await child.died()
                self._child = None
                _log.error("the model process died (exit code %s); restarting it", child.process.exitcode)
                child = await self._replace(child)
                self._child = child
                _log.info("the model process is back")
        finally:
            await child.stop()

    async def _replace(self, dead: ModelChild) -> ModelChild:
        """Start children, ever more slowly, until one serves the same model as before."""
        await dead.stop()
        delay_seconds = self._first_delay_seconds
        while True:
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)
            try:
                child, _ = await self._start_child()
            except (ModelLoadFailed, OSError) as error:
                _log.error("the model process cannot be restarted: %s", error)
            else:
                return child

    async def _start_child(self) -> tuple[ModelChild, ModelInfo]:
        child = ModelChild(self._load)
        try:
            info = await child.loaded()
            if self._info not in (None, info):
                raise ModelLoadFailed("the model's files changed; restart the server to sell the new model")
        except BaseException:
            await child.stop()
            raise
        return child, info
