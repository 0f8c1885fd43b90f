"""Two lanes to the model, one per modality, each with its own micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import Encoder
from vl2v_vendor.domain.errors import ItemFailure, Unavailable
from vl2v_vendor.domain.ledger import Vector
from vl2v_vendor.service.micro_batcher import MicroBatcher

ModelInput: TypeAlias = NDArray[np.uint8] | NDArray[np.int64]
"""`[S, S, 3]` pixels of one image, or `[L]` token ids of one text."""

_NORM_TOLERANCE = 1e-3


class EncodingLanes:
    """Encodes single inputs in batches that many requests share.

    Args:
        encoder: the model.
        max_batch_items: items in one batch of a lane.
        max_queued_items: items that may wait in a lane.
    """

    def __init__(self, encoder: Encoder, *, max_batch_items: int, max_queued_items: int) -> None:
        self._encoder = encoder
        sizes = {"max_batch_items": max_batch_items, "max_queued_items": max_queued_items}
        self._lanes: dict[Modality, MicroBatcher[ModelInput, Vector]] = {
            "image": MicroBatcher(self._encode_images, **sizes),
            "text": MicroBatcher(self._encode_texts, **sizes),
        }

    @property
    def queued_items(self) -> dict[Modality, int]:
        """Items that wait, by lane."""
        return {modality: lane.queued_items for modality, lane in self._lanes.items()}

    def start(self) -> None:
        """Start both lanes; needs a running event loop."""
        for lane in self._lanes.values():
            lane.start()

    async def close(self) -> None:
        """Stop both lanes; whatever still waits fails with ModelUnavailable."""
        for lane in self._lanes.values():
            await lane.close()

    async def encode(self, modality: Modality, inputs: Sequence[ModelInput]) -> list[Vector | ItemFailure]:
        """Encode inputs of one modality: a checked unit vector `[D]`, or the item's own error, in order.

        Raises:
            Overloaded: the lane has no room.
            ModelUnavailable: the model process is gone; nothing was sold.
        """
        if not inputs:
            return []
        outcomes = await self._lanes[modality].submit(inputs)
        for outcome in outcomes:
            if isinstance(outcome, Unavailable):
                raise outcome
        dimension = self._encoder.info.embedding_dim
        return [_checked(outcome, dimension) for outcome in outcomes]

    async def _encode_images(self, images: Sequence[ModelInput]) -> list[Vector]:
        pixels = np.stack([np.asarray(image, dtype=np.uint8) for image in images])  # [N, S, S, 3]
        return list(await self._encoder.encode_images(pixels))

    async def _encode_texts(self, texts: Sequence[ModelInput]) -> list[Vector]:
        tokens = np.zeros((len(texts), max(len(text) for text in texts)), dtype=np.int64)  # [N, L]
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        return list(await self._encoder.encode_tokens(tokens))


def _checked(outcome: Vector | Exception, dimension: int) -> Vector | ItemFailure:
    """The vector if it may be sold: right width, finite, unit norm."""
    if isinstance(outcome, Exception):
        return ItemFailure("encoding_failed", "the model could not encode this item; nothing was billed for it")
    norm = float(np.linalg.norm(outcome))
    if outcome.shape != (dimension,) or not abs(norm - 1.0) <= _NORM_TOLERANCE:
        return ItemFailure("encoding_failed", "the model gave no direction for this item; nothing was billed for it")
    return outcome
