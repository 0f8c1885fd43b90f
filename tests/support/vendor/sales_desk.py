"""Image requests as the route makes them, and short words for what became of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import Vendor, png
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.service.sale import Sale, SaleRequest

RED, BLACK, GREY, BROKEN = png("red"), png("black"), png((128, 128, 128)), b"broken"


async def buy(vendor: Vendor, *sources: bytes | str, **options: Any) -> Sale:
    """One image request, as the route makes it."""
    request = SaleRequest(
        request_id=f"req_{len(vendor.ledger.orders):024x}",
        endpoint="/v1/embeddings/images",
        sources=sources,
        **{"modality": "image", **options},
    )
    return await vendor.services.seller.sell(caller(vendor), request)


def caller(vendor: Vendor) -> ApiKey:
    return next(iter(vendor.ledger.keys.values()))


def states(sale: Sale) -> list[str]:
    """Each item's status, or its error's code."""
    return [item.failure.code if item.failure is not None else str(item.status) for item in sale.items]


def keys(*names: str) -> list[str | None]:
    return [item_key(name) for name in names]


def vector(sale: Sale, index: int) -> np.ndarray:
    found = sale.items[index].vector
    assert found is not None
    return found
