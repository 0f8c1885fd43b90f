"""What one request, and one item in it, may hold."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_vendor.domain.errors import TooManyItems

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes that are checked before any work is done.

    Attributes:
        max_items: Number of items in one request.
        max_item_bytes: Size of one image file in bytes.
        max_request_bytes: Size of one request body in bytes.
        max_pixels: Pixels of one image, read from its header before it is decoded.
        max_text_bytes: Size of one text in UTF-8 bytes, before it is tokenized.
    """

    max_items: int = 256
    max_item_bytes: int = 20 * MEBIBYTE
    max_request_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_text_bytes: int = 4096

    def check_items(self, count: int) -> None:
        """Check how many items a request has.

        Raises:
            TooManyItems: It has more than `max_items`.
        """
        if count > self.max_items:
            raise TooManyItems(count, self.max_items)
