"""Two lanes to the model, one per modality, each with its own queue and its own micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, TypeAlias, cast

import numpy as np

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import MEBIBYTE, Encoder, ModelInfo, ModelInput
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.engine.queue.batch_scheduler import BatchScheduler
from vl2v_vendor.engine.queue.micro_batcher import LaneLimits, MicroBatcher

LaneObserver: TypeAlias = Callable[[Modality, int, float], None]
"""Called with the lane of a batch that was encoded, its items, and the seconds that the model took."""

_Encode: TypeAlias = Callable[[Sequence[ModelInput]], Awaitable[Sequence[Vector]]]

_NORM_TOLERANCE = 1e-3
_TOKEN_BYTES: Final = 8


class EncodingLanes:
    """Encodes single inputs in batches that many requests share.

    Args:
        encoder: Model, loaded.
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
        encode: dict[Modality, _Encode] = {
            "image": cast("_Encode", encoder.encode_images),
            "text": cast("_Encode", encoder.encode_tokens),
        }
        self._lanes: dict[Modality, MicroBatcher[ModelInput, Vector]] = {}
        for modality, run in encode.items():
            batch_items = max_batch_items if isinstance(max_batch_items, int) else max_batch_items[modality]
            queued_items = min(max_queued_items, max_queued_bytes // self._input_bytes[modality])
            self._lanes[modality] = MicroBatcher(run, LaneLimits(batch_items, queued_items, max_wait_seconds), changed)
        self._scheduler = BatchScheduler(list(self._lanes.values()), changed)

    @property
    def queued_items(self) -> dict[Modality, int]:
        """Items that wait, by lane."""
        return {modality: lane.queued_items for modality, lane in self._lanes.items()}

    @property
    def queued_bytes(self) -> dict[Modality, int]:
        """Bytes that the items that wait take at most, by lane."""
        return {modality: lane.queued_items * self._input_bytes[modality] for modality, lane in self._lanes.items()}

    @property
    def reserved_items(self) -> dict[Modality, int]:
        """Items that are being prepared and have room to wait, by lane."""
        return {modality: lane.reserved_items for modality, lane in self._lanes.items()}

    def observe_batches(self, observe: LaneObserver) -> None:
        """Have `observe` called after every batch."""
        for modality, lane in self._lanes.items():
            lane.observe = partial(observe, modality)

    def start(self) -> None:
        """Start both lanes; needs a running event loop."""
        self._scheduler.start()

    async def close(self) -> None:
        """Stop both lanes; whatever still waits fails with ModelUnavailable."""
        await self._scheduler.close()

    def check_room(self, modality: Modality) -> None:
        """Check that one more item may wait: cheap, for use before a body is read.

        Raises:
            Overloaded: The lane has no room; says when to come back.
        """
        self._lanes[modality].check_room(1)

    def reserve(self, modality: Modality, items: int, *, key: str) -> AbstractContextManager[None]:
        """Keep room for the items of one request while they are prepared, until `encode` queues them.

        Args:
            modality: Lane of the items.
            items: Number of items.
            key: The caller's API key id.

        Raises:
            Overloaded: There is no room, or the items cannot be encoded in time; says when to come back.
        """
        return self._lanes[modality].reserve(items, key)

    async def encode(
        self, modality: Modality, inputs: Sequence[ModelInput], *, key: str = ""
    ) -> list[Vector | ItemFailure]:
        """Encode inputs of one modality: a checked unit vector `[D]`, or the item's own error, in order.

        Args:
            modality: Modality of all inputs.
            inputs: Inputs of one request, for which room is reserved.
            key: The caller's API key id; keys take turns.

        Raises:
            Overloaded: The request waited too long.
            ModelUnavailable: The model process is gone; nothing was sold.
        """
        outcomes = await self._lanes[modality].submit(inputs, key)
        dimension = self._encoder.info.embedding_dim
        return [_checked(outcome, dimension) for outcome in outcomes]


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
