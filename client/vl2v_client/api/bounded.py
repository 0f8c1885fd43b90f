"""Whole answers within bounds of size and time, whoever gives them."""

import time
from typing import Final

import httpx

from vl2v_client.core.errors import VendorError
from vl2v_client.core.values import MAX_WIDTH
from vl2v_contract.wire.embeddings import MAX_ITEMS

MAX_MESSAGE_BYTES: Final = 4 * 2**20
"""A card, keys, a problem."""
MAX_SUMMARY_BYTES: Final = 64 * 2**20
MAX_PAGE_BYTES: Final = 2**30
"""A page of a statement, with each item of each charge."""
PATIENCE_SECONDS = 30.0
"""From the head of an answer to its end; a long one has more, at `_SLOWEST_BYTES_PER_SECOND`."""
_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
_ITEM_BYTES, _VALUE_BYTES, _PAID_ITEM_BYTES = 1024, 6, 256


def embeddings_bytes(items: int, width: int = MAX_WIDTH) -> int:
    """Return the most bytes that the answer for so many items of a model's width takes.

    Each item may have been paid for by another purchase, of which all items are listed.
    """
    each = _ITEM_BYTES + _VALUE_BYTES * width + _PAID_ITEM_BYTES * MAX_ITEMS
    return min(MAX_PAGE_BYTES, MAX_MESSAGE_BYTES + items * each)


def read_bounded(response: httpx.Response, max_bytes: int) -> httpx.Response:
    """Read the body of an answer whose head has arrived.

    Args:
        response: A streamed answer.
        max_bytes: Most bytes of a success; of a refusal `MAX_MESSAGE_BYTES`.

    Raises:
        VendorError: It is larger.
        httpx.RequestError: It breaks off, is compressed, or takes too long.
    """
    coding = response.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise httpx.DecodingError(f"the answer is compressed by {coding}", request=response.request)
    limit = max_bytes if response.is_success else MAX_MESSAGE_BYTES
    pieces, received, began = [], 0, time.monotonic()
    for piece in response.iter_bytes():
        pieces.append(piece)
        received += len(piece)
        if received > limit:
            what = f"{response.request.url.path} is answered with more than the {limit:,} bytes that it can need"
            raise VendorError(f"{what}; ask the vendor")
        if time.monotonic() - began > PATIENCE_SECONDS + received / _SLOWEST_BYTES_PER_SECOND:
            raise httpx.ReadTimeout("the answer comes too slowly", request=response.request)
    return httpx.Response(
        response.status_code, headers=response.headers, content=b"".join(pieces), request=response.request
    )
