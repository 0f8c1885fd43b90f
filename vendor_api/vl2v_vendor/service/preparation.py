"""From what a client sent to what the model takes: every item is checked, decoded and named before anything is sold.

Decoding runs in a thread pool, beside the model and off the event loop. A bad item costs nothing but its own error.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from vl2v_contract.identity import Modality, text_sha
from vl2v_vendor.domain.encoder import DecodedImage, ImageDecoder, Tokenizer
from vl2v_vendor.domain.errors import ItemFailure, TooManyItems
from vl2v_vendor.domain.limits import Limits
from vl2v_vendor.service.lanes import ModelInput
from vl2v_vendor.service.stage_clock import timed

Source = TypeVar("Source")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RawPixels:
    """An image that is already the model's input: RGB8, nothing to decode.

    Attributes:
        data: `S * S * 3` bytes, rows from the top, RGB interleaved; any other length is the item's own failure.
    """

    data: bytes | memoryview


ImageSource: TypeAlias = bytes | str | RawPixels
"""A file's bytes, their base64, or raw pixels."""


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """An item that the model can take.

    Attributes:
        model_input: pixels `[S, S, 3]` or token ids `[L]`.
        content_sha: the contract's name of the content.
        tokens: of a text, before any cut.
        truncated: whether the text was cut.
    """

    model_input: ModelInput
    content_sha: str
    tokens: int | None = None
    truncated: bool = False


Prepared: TypeAlias = PreparedItem | ItemFailure


class Preparation:
    """Checks and decodes items in a thread pool.

    Args:
        decoder: of images.
        tokenizer: of texts.
        limits: sizes refused before any work.
        executor: where decoding runs.
        in_flight: items that one request may have in the executor; twice its threads keep it busy.

    Attributes:
        unfinished_items: of all requests that are being prepared, by modality.
    """

    def __init__(
        self, decoder: ImageDecoder, tokenizer: Tokenizer, limits: Limits, executor: Executor, *, in_flight: int = 4
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._limits = limits
        self._executor = executor
        self._in_flight = in_flight
        self.unfinished_items: dict[Modality, int] = {"image": 0, "text": 0}

    def check_count(self, count: int) -> None:
        """Check how many items a request has.

        Raises:
            TooManyItems: more than the limit.
        """
        if count > self._limits.max_items:
            raise TooManyItems(count, self._limits.max_items)

    async def prepare_images(self, sources: Sequence[ImageSource]) -> list[Prepared]:
        """Decode images, each to a prepared item or its own failure, in order.

        Raises:
            TooManyItems: more than the limit.
        """
        with timed("decode"):
            return await self._prepare("image", self._prepare_image, sources)

    async def prepare_texts(self, texts: Sequence[str], *, truncate: bool) -> list[Prepared]:
        """Tokenize texts, each to a prepared item or its own failure, in order.

        Raises:
            TooManyItems: more than the limit.
        """
        with timed("decode"):
            return await self._prepare("text", lambda text: self._prepare_text(text, truncate=truncate), texts)

    async def _prepare(
        self, modality: Modality, prepare: Callable[[Source], PreparedItem], sources: Sequence[Source]
    ) -> list[Prepared]:
        """Prepare items in the pool, at most `in_flight` at once, so that requests take turns in it."""
        self.check_count(len(sources))
        loop = asyncio.get_running_loop()
        outcomes: list[Prepared | None] = [None] * len(sources)
        waiting = iter(enumerate(sources))

        async def take_turns() -> None:
            for index, source in waiting:
                try:
                    outcomes[index] = await loop.run_in_executor(self._executor, prepare, source)
                except ItemFailure as failure:
                    outcomes[index] = failure
                except Exception:
                    # A library's fault at one item must not fail its neighbours.
                    _log.exception("item %d of a request could not be prepared", index)
                    outcomes[index] = ItemFailure("encoding_failed", "the item could not be read; nothing was billed")

        self.unfinished_items[modality] += len(sources)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._in_flight, len(sources))):
                    group.create_task(take_turns())
        finally:
            self.unfinished_items[modality] -= len(sources)
        return [outcome for outcome in outcomes if outcome is not None]

    def _prepare_image(self, source: ImageSource) -> PreparedItem:
        image = self._decode(source)
        return PreparedItem(image.pixels, image.content_sha)

    def _decode(self, source: ImageSource) -> DecodedImage:
        if isinstance(source, RawPixels):
            return self._decoder.from_rgb8(source.data)
        return self._decoder.decode(source if isinstance(source, bytes) else self._from_base64(source))

    def _from_base64(self, text: str) -> bytes:
        if len(text) // 4 * 3 > self._limits.max_item_bytes + 2:
            limit = f"{self._limits.max_item_bytes:,}"
            raise ItemFailure("image_too_large", f"the file has more than {limit} bytes; scale it down")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ItemFailure(
                "invalid_encoding", "`image` is not valid base64; encode the file's bytes, without a data URI prefix"
            ) from None

    def _prepare_text(self, text: str, *, truncate: bool) -> PreparedItem:
        if not text.strip():
            raise ItemFailure("empty_item", "the text is empty; leave the item out")
        try:
            size_bytes = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise ItemFailure("invalid_encoding", "the text holds a lone surrogate; send valid Unicode") from None
        if size_bytes > self._limits.max_text_bytes:
            raise ItemFailure(
                "text_too_long",
                f"the text has {size_bytes:,} bytes and at most {self._limits.max_text_bytes:,} are read; shorten it",
            )
        tokenized = self._tokenizer.tokenize(text, truncate=truncate)
        return PreparedItem(tokenized.token_ids, text_sha(text), tokenized.count, tokenized.truncated)
