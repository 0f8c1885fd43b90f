"""Whole answers within bounds of size and time, whoever gives them."""

import time
from typing import Final

import httpx

from vl2v_client.core.errors import VendorError
from vl2v_client.core.values import MAX_WIDTH
from vl2v_contract.wire.embeddings import MAX_ITEMS, has_too_many_values

MAX_MESSAGE_BYTES: Final = 2**20
"""A card, keys, a problem."""
MAX_SUMMARY_BYTES: Final = 16 * 2**20
MAX_ANSWER_BYTES: Final = 2**30
"""Any answer, whatever was asked."""
PATIENCE_SECONDS = 30.0
"""From the head of an answer to its end; a long one has more, at `_SLOWEST_BYTES_PER_SECOND`."""
_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
_BYTES_PER_VALUE: Final = 16
"""Fewer than any honest answer has on average."""
_ITEM_BYTES, _VALUE_BYTES, _PAID_ITEM_BYTES, _ENTRY_BYTES = 1024, 6, 256, 4096


def embeddings_bytes(items: int, width: int = MAX_WIDTH) -> int:
    """Return the most bytes that the answer for so many items of a model's width takes.

    Each item may have been paid for by another purchase, of which all items are listed.
    """
    each = _ITEM_BYTES + _VALUE_BYTES * width + _PAID_ITEM_BYTES * MAX_ITEMS
    return min(MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES + items * each)


def statement_bytes(entries: int) -> int:
    """Return the most bytes that a page of a statement takes, of which each entry may have charged a whole request."""
    return min(MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES + entries * (_ENTRY_BYTES + _PAID_ITEM_BYTES * MAX_ITEMS))


def read_bounded(response: httpx.Response, max_bytes: int) -> httpx.Response:
    """Read the body of an answer whose head has arrived.

    Args:
        response: A streamed answer.
        max_bytes: Most bytes of a success; of a refusal `MAX_MESSAGE_BYTES`.

    Raises:
        VendorError: It is larger, or holds more values than so many bytes need.
        httpx.RequestError: It breaks off, is compressed, or takes too long.
    """
    coding = response.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise httpx.DecodingError(f"the answer is compressed by {coding}", request=response.request)
    limit = max_bytes if response.is_success else MAX_MESSAGE_BYTES
    path = response.request.url.path
    pieces, received, began = [], 0, time.monotonic()
    for piece in response.iter_bytes():
        pieces.append(piece)
        received += len(piece)
        if received > limit:
            raise VendorError(f"{path} is answered with more than the {limit:,} bytes that it can need; ask the vendor")
        if time.monotonic() - began > PATIENCE_SECONDS + received / _SLOWEST_BYTES_PER_SECOND:
            raise httpx.ReadTimeout("the answer comes too slowly", request=response.request)
    content = b"".join(pieces)
    if has_too_many_values(content, limit // _BYTES_PER_VALUE):
        raise VendorError(f"{path} is answered with more values than it can need; ask the vendor")
    return httpx.Response(response.status_code, headers=response.headers, content=content, request=response.request)
