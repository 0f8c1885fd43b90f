"""From what a client sent to what the model takes: every item is checked, decoded and named before anything is sold.

Decoding runs in a thread pool, beside the model and off the event loop. A bad item costs nothing but its own error.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from vl2v_contract.identity import text_sha
from vl2v_vendor.domain.encoder import ImageDecoder, Tokenizer
from vl2v_vendor.domain.errors import ItemFailure, TooManyItems
from vl2v_vendor.domain.limits import Limits
from vl2v_vendor.service.lanes import ModelInput

ImageSource: TypeAlias = bytes | str
"""A file's bytes, or their base64."""

Source = TypeVar("Source")


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
    """

    def __init__(self, decoder: ImageDecoder, tokenizer: Tokenizer, limits: Limits, executor: Executor) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._limits = limits
        self._executor = executor

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
        return await self._prepare(self._prepare_image, sources)

    async def prepare_texts(self, texts: Sequence[str], *, truncate: bool) -> list[Prepared]:
        """Tokenize texts, each to a prepared item or its own failure, in order.

        Raises:
            TooManyItems: more than the limit.
        """
        return await self._prepare(lambda text: self._prepare_text(text, truncate=truncate), texts)

    async def _prepare(self, prepare: Callable[[Source], PreparedItem], sources: Sequence[Source]) -> list[Prepared]:
        self.check_count(len(sources))
        loop = asyncio.get_running_loop()
        outcomes = await asyncio.gather(
            *(loop.run_in_executor(self._executor, prepare, source) for source in sources), return_exceptions=True
        )
        return [_prepared_or_failure(outcome) for outcome in outcomes]

    def _prepare_image(self, source: ImageSource) -> PreparedItem:
        image = self._decoder.decode(source if isinstance(source, bytes) else self._from_base64(source))
        return PreparedItem(image.pixels, image.content_sha)

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


def _prepared_or_failure(outcome: PreparedItem | BaseException) -> Prepared:
    if isinstance(outcome, PreparedItem | ItemFailure):
        return outcome
    raise outcome
