"""Image requests as the route makes them, and short words for what became of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving_shop import Vendor, item_key, png
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.service.outcomes import Delivered, EmbedOutcome
from vl2v_vendor.service.sale import EmbedRequest

RED, BLACK, GREY, BROKEN = png("red"), png("black"), png((128, 128, 128)), b"broken"


async def buy(vendor: Vendor, *files: bytes, **options: Any) -> EmbedOutcome:
    """One image request, as the route makes it."""
    items = await vendor.services.preparation.prepare_images(files)
    request = EmbedRequest(
        request_id=f"req_{len(vendor.ledger.orders):024x}",
        endpoint="/v1/embeddings/images",
        modality="image",
        items=items,
        **options,
    )
    return await vendor.services.embed.embed(caller(vendor), request)


def caller(vendor: Vendor) -> ApiKey:
    return next(iter(vendor.ledger.keys.values()))


def states(outcome: EmbedOutcome) -> list[str]:
    """Each item's status, or its error's code."""
    return [item.verdict.status if isinstance(item.verdict, Delivered) else item.verdict.code for item in outcome.items]


def keys(*names: str) -> list[str | None]:
    return [item_key(name) for name in names]


def vector(outcome: EmbedOutcome, index: int) -> np.ndarray:
    verdict = outcome.items[index].verdict
    assert isinstance(verdict, Delivered)
    return verdict.vector
