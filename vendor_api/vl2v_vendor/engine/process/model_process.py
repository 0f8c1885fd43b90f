"""The model in a process of its own, as an encoder for the server's event loop.

A model that crashes, hangs, runs out of memory or holds the interpreter lock cannot take the server with it. The child
gets batches through shared memory (`shared_slots`) and is watched (`watchdog`). When it dies, or is
stuck and therefore killed, its waiters fail at once, and another child is started, at first after one second, then ever
more slowly.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInfo, VectorBatch
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable
from vl2v_vendor.engine.process.model_child import ModelChild, SlotDispatcher
from vl2v_vendor.engine.process.model_worker import Loaded, LoadModel

_LONGEST_DELAY_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class ProcessEncoder:
    """The encoder port over a supervised child process.

    Args:
        load: Function that loads the model in the child; picklable.
        max_batch_items: Number of items in one batch; None measures the best, for each lane.
        load_seconds: Time that the first load may take. Later ones may take three times what the first
            took, and a minute at least.
        first_delay_seconds: Wait before the first restart; doubles with every failure in a row.
        stuck_seconds: Shortest time after which a child that gives no sign of life is killed.

    Attributes:
        restarts: Number of times that the child was replaced.
    """

    def __init__(
        self,
        load: LoadModel,
        *,
        max_batch_items: int | None = None,
        load_seconds: float = 1800.0,
        first_delay_seconds: float = 1.0,
        stuck_seconds: float = 2.0,
    ) -> None:
        self._load = load
        self._batch_items: Mapping[Modality, int] | None = (
            None if max_batch_items is None else {"image": max_batch_items, "text": max_batch_items}
        )
        self._load_seconds = load_seconds
        self._first_delay_seconds = first_delay_seconds
        self._stuck_seconds = stuck_seconds
        self._info: ModelInfo | None = None
        self._child: ModelChild | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def info(self) -> ModelInfo:
        """The loaded model; kept while a dead child is being replaced.

        Raises:
            ModelUnavailable: It has not been loaded yet.
        """
        if self._info is None:
            raise ModelUnavailable("the model is being loaded")
        return self._info

    @property
    def ready(self) -> bool:
        """Whether the child is loaded, warm and alive."""
        return self._child is not None and not self._child.ended.done()

    @property
    def process_id(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process_id if self._child else None

    @property
    def batch_items(self) -> Mapping[Modality, int]:
        """The largest batch of each lane: as configured, or as measured when the model was first loaded.

        Raises:
            ModelUnavailable: The model has not been loaded yet.
        """
        if self._batch_items is None:
            raise ModelUnavailable("the model is being loaded")
        return self._batch_items

    @property
    def stuck_seconds(self) -> float:
        """How long the child may give no sign of life before it is killed."""
        dispatcher = self._child.dispatcher if self._child else None
        return dispatcher.watchdog.silence_limit if dispatcher else self._stuck_seconds

    async def start(self) -> None:
        """Start the child and wait until its model is loaded and warm.

        Raises:
            ModelLoadFailed: The child says why, or it took too long.
        """
        started = time.monotonic()
        child, loaded = await self._start_child()
        self._load_seconds = max(60.0, 3 * (time.monotonic() - started))
        self._info = loaded.info
        self._batch_items = {lane: pace.batch_items for lane, pace in loaded.pace.items()}
        self._child = child
        self._supervisor = asyncio.create_task(self._supervise(child), name="model-supervisor")

    async def close(self) -> None:
        """Stop the child; whoever still waits fails with ModelUnavailable."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._child = None

    async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm.

        Raises:
            EncodingFailed: An image has another size, or the model could not encode the batch.
            ModelUnavailable: The model process is gone.
        """
        dispatcher, size = self._dispatcher(), self.info.image_size
        if any(image.shape != (size, size, 3) for image in images):
            raise EncodingFailed(f"the model takes images of {size} x {size} pixels")
        return await dispatcher.encode("image", images, (len(images), size, size, 3))

    async def encode_tokens(self, texts: Sequence[NDArray[np.int64]]) -> VectorBatch:
        """Encode N texts of `[L]` token ids to `[N, D]` float32, unit norm; raises as the port says."""
        return await self._dispatcher().encode("text", texts, (len(texts), max(len(text) for text in texts)))

    def _dispatcher(self) -> SlotDispatcher:
        if not self.ready or self._child is None or self._child.dispatcher is None:
            raise ModelUnavailable("the model process is being restarted; nothing was billed", retry_after_seconds=5)
        return self._child.dispatcher

    async def _supervise(self, child: ModelChild) -> None:
        """Replace the child whenever it dies or is stuck."""
        try:
            while True:
                reason = await asyncio.shield(child.ended)
                self._child = None
                _log.error("the model process died (%s); restarting it", reason)
                await child.stop()
                child = await self._start_another()
                self._child = child
                self.restarts += 1
                _log.info("the model process is back")
        finally:
            await child.stop()

    async def _start_another(self) -> ModelChild:
        """Start children, ever more slowly, until one serves the same model as before."""
        delay_seconds = self._first_delay_seconds
        while True:
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)
            try:
                return (await self._start_child())[0]
            except (ModelLoadFailed, OSError) as error:
                _log.error("the model process cannot be restarted: %s", error)

    async def _start_child(self) -> tuple[ModelChild, Loaded]:
        child = ModelChild(self._load, self._batch_items, floor_seconds=self._stuck_seconds)
        try:
            loaded = await asyncio.wait_for(child.loaded, self._load_seconds)
            if self._info not in (None, loaded.info):
                raise ModelLoadFailed("the model's files changed; restart the server to sell the new model")
        except BaseException as error:
            await child.stop()
            if isinstance(error, TimeoutError):
                raise ModelLoadFailed(
                    f"the model was not loaded within {self._load_seconds:.0f} seconds; "
                    "if it only needs longer, raise max_load_seconds"
                ) from None
            raise
        return child, loaded
