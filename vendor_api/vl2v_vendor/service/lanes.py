"""Two lanes to the model, one per modality, each with its own queue and its own micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import Encoder, ModelInfo
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.domain.limits import MEBIBYTE
from vl2v_vendor.service.batch_scheduler import BatchScheduler
from vl2v_vendor.service.micro_batcher import LaneLimits, MicroBatcher

ModelInput: TypeAlias = NDArray[np.uint8] | NDArray[np.int64]
"""`[S, S, 3]` pixels of one image, or `[L]` token ids of one text."""

LaneObserver: TypeAlias = Callable[[Modality, int, float], None]
"""Told the lane of a batch that was encoded, its items, and the seconds that the model took."""

_NORM_TOLERANCE = 1e-3
_TOKEN_BYTES: Final = 8


class EncodingLanes:
    """Encodes single inputs in batches that many requests share.

    Args:
        encoder: the model, loaded.
        max_batch_items: items in one batch, of both lanes or by lane.
        max_queued_items: items that may wait in a lane.
        max_queued_bytes: bytes of the items that may wait in a lane.
        max_wait_seconds: how long a request may wait without any of its items moving.
        preparing: how many items of a modality are being decoded, to come here next.

    Attributes:
        on_batch: told of every batch that was encoded; set by whoever measures.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_batch_items: int | Mapping[Modality, int],
        max_queued_items: int,
        max_queued_bytes: int = 512 * MEBIBYTE,
        max_wait_seconds: float = 60.0,
        preparing: Callable[[Modality], int] = lambda _modality: 0,
    ) -> None:
        self._encoder = encoder
        self._preparing = preparing
        self._input_bytes = largest_input_bytes(encoder.info)
        self.on_batch: LaneObserver | None = None
        changed = asyncio.Event()
        both = {"image": max_batch_items, "text": max_batch_items} if isinstance(max_batch_items, int) else {}
        batch_items = cast("Mapping[Modality, int]", both or max_batch_items)

        def open_lane(modality: Modality) -> MicroBatcher[ModelInput, Vector]:
            return MicroBatcher(
                self._encode_images if modality == "image" else self._encode_texts,
                LaneLimits(batch_items[modality], max_queued_items, max_queued_bytes, max_wait_seconds),
                size_of=lambda model_input: model_input.nbytes,
                changed=changed,
                observe=partial(self._observe, modality),
            )

        self._lanes: dict[Modality, MicroBatcher[ModelInput, Vector]] = {
            "image": open_lane("image"),
            "text": open_lane("text"),
        }
        self._scheduler = BatchScheduler(list(self._lanes.values()), changed)

    @property
    def queued_items(self) -> dict[Modality, int]:
        """Items that wait, by lane."""
        return {modality: lane.queued_items for modality, lane in self._lanes.items()}

    @property
    def queued_bytes(self) -> dict[Modality, int]:
        """Bytes of the items that wait, by lane."""
        return {modality: lane.queued_bytes for modality, lane in self._lanes.items()}

    def start(self) -> None:
        """Start both lanes; needs a running event loop."""
        self._scheduler.start()

    async def close(self) -> None:
        """Stop both lanes; whatever still waits fails with ModelUnavailable."""
        await self._scheduler.close()

    def check_room(self, modality: Modality, items: int = 1, *, key: str | None = None) -> None:
        """Refuse early what would be refused later: cheap, for use before a body is read.

        What is being decoded counts as if it were queued. Room is not reserved: `encode` looks again.

        Args:
            modality: the lane.
            items: how many will come; one, if that is not known yet.
            key: the caller's API key id; with it, what cannot be encoded in time is refused too.

        Raises:
            Overloaded: the lane has no room; says when to come back.
        """
        coming = items + self._preparing(modality)
        self._lanes[modality].check_room(coming, coming * self._input_bytes[modality], key)

    async def encode(
        self, modality: Modality, inputs: Sequence[ModelInput], *, key: str = ""
    ) -> list[Vector | ItemFailure]:
        """Encode inputs of one modality: a checked unit vector `[D]`, or the item's own error, in order.

        Args:
            modality: of all inputs.
            inputs: one request's.
            key: the caller's API key id; keys take turns.

        Raises:
            Overloaded: the lane has no room, or the request waited too long.
            ModelUnavailable: the model process is gone; nothing was sold.
        """
        outcomes = await self._lanes[modality].submit(inputs, key)
        dimension = self._encoder.info.embedding_dim
        return [_checked(outcome, dimension) for outcome in outcomes]

    async def _encode_images(self, images: Sequence[ModelInput]) -> list[Vector]:
        return list(await self._encoder.encode_images(cast("Sequence[NDArray[np.uint8]]", images)))

    async def _encode_texts(self, texts: Sequence[ModelInput]) -> list[Vector]:
        return list(await self._encoder.encode_tokens(cast("Sequence[NDArray[np.int64]]", texts)))

    def _observe(self, modality: Modality, items: int, seconds: float) -> None:
        if self.on_batch is not None:
            self.on_batch(modality, items, seconds)


def largest_input_bytes(info: ModelInfo) -> dict[Modality, int]:
    """Bytes of one input of the model, at most, by modality."""
    return {"image": 3 * info.image_size**2, "text": _TOKEN_BYTES * info.context_length}


def _checked(outcome: Vector | Exception, dimension: int) -> Vector | ItemFailure:
    """The vector if it may be sold: right width, finite, unit norm."""
    if isinstance(outcome, Exception):
        return ItemFailure("encoding_failed", "the model could not encode this item; nothing was billed for it")
    norm = float(np.linalg.norm(outcome))
    if outcome.shape != (dimension,) or not abs(norm - 1.0) <= _NORM_TOLERANCE:
        return ItemFailure("encoding_failed", "the model gave no direction for this item; nothing was billed for it")
    return outcome
