"""What one request, and one item in it, may hold."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes that are checked before any work is done.

    Attributes:
        max_items: items in one request.
        max_item_bytes: bytes of one image file.
        max_request_bytes: bytes of one request body.
        max_pixels: pixels of one image, from its header, before it is decoded.
        max_text_bytes: UTF-8 bytes of one text, before it is tokenized.
    """

    max_items: int = 256
    max_item_bytes: int = 20 * MEBIBYTE
    max_request_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_text_bytes: int = 4096
