"""Texts to token ids, in the server's process, with open_clip's own tokenizers.

open_clip (and with it torch) is imported by `import_open_clip`, or when a tokenizer is made, not before.
"""

import hashlib
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from vl2v_contract.identity import text_sha
from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, read_model_config

_MAX_CACHED_WORDS: Final = 100_000
_MAX_CACHED_WORD_BYTES: Final = 64
_END_OF_WORD: Final = "</w>"
_START, _FIRST_WORD_ID, _END = 1, 2, 49_407
_UNGUARDED_CHARACTERS: Final = 256
"""A text up to this length is cleaned soon, however its entities are nested."""
_MAX_ENTITY_LEVELS: Final = 8


def import_open_clip() -> None:
    """Import what a tokenizer needs, which takes seconds; whoever makes one says what is missing."""
    with suppress(ImportError):
        import open_clip.tokenizer  # noqa: F401


class OpenClipTokenizer:
    """The tokenizer that belongs to a model. Many threads may call it.

    CLIP's own tokenizer gives rows of their own length, which a batch may pad with 0. Any other tokenizer has its own
    padding, so its rows are always as long as the context.
    """

    def __init__(self, spec: ModelSpec, *, context_length: int) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._context_length = context_length
        self._tokenizer = _build_tokenizer(spec, context_length)
        self._lock = threading.Lock()
        self._words = _ClipWords(self._tokenizer) if isinstance(self._tokenizer, SimpleTokenizer) else None

    def tokenize(self, text: str, *, truncate: bool) -> PreparedItem:
        """Tokenize one text, counting its tokens before any cut.

        Raises:
            ItemFailure: `text_too_long`, naming count and limit; or `invalid_encoding`.
        """
        _check_entities(text)
        limit = self._context_length
        if self._words is not None:
            token_ids, count = self._words.encode(text, limit, truncate=truncate)
        else:
            # Each call sets cut and padding on the one tokenizer, for every thread.
            with self._lock:
                count = len(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text), truncation=False)["input_ids"])
                token_ids = self._tokenizer([text], context_length=limit)[0].numpy()
        if count > limit and not truncate:
            raise _too_long(str(count), limit)
        return PreparedItem(np.asarray(token_ids, dtype=np.int64), text_sha(text), count, truncated=count > limit)


def _check_entities(text: str) -> None:
    """Refuse a text whose HTML entities are nested deep, as in `&amp;amp;amp;lt;`, before `clean_fn` unescapes it.

    That unescapes a level in each pass over a line until nothing changes, so n levels take a time of n squared. Here
    the passes are counted alone; the text is cleaned by open_clip's own functions afterwards, so its ids stay theirs.

    Raises:
        ItemFailure: `invalid_encoding`.
    """
    if len(text) <= _UNGUARDED_CHARACTERS or (text.isascii() and "&" not in text):
        return
    import ftfy

    tag = text.find("<")  # from the first line that holds one, entities stay as they are
    for line in text[: len(text) if tag < 0 else text.rfind("\n", 0, tag) + 1].split("\n"):
        before = line
        for _ in range(_MAX_ENTITY_LEVELS):
            after = ftfy.fix_text_segment(ftfy.fixes.unescape_html(before), unescape_html=False)
            if after == before:
                break
            before = after
        else:
            detail = f"HTML entities are nested {_MAX_ENTITY_LEVELS} deep or more; send the text that they stand for"
            raise ItemFailure("invalid_encoding", detail)


def _too_long(count: str, limit: int) -> ItemFailure:
    return ItemFailure(
        "text_too_long", f"the text has {count} tokens and the model reads {limit}; shorten it or send `truncate: true`"
    )


class _ClipWords:
    """The `encode` of CLIP's own tokenizer, with the same ids, for texts that strangers choose.

    open_clip's needs a time quadratic in a word's length, and keeps every word that it ever saw.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special: dict[str, list[int]] = {token: [tokenizer.encoder[token]] for token in tokenizer.cache}
        self._known = dict(self._special)
        self._longest = max(len(entry.removesuffix(_END_OF_WORD)) for entry in tokenizer.encoder)

    def encode(self, text: str, limit: int, *, truncate: bool) -> tuple[list[int], int]:
        """Return a text's token ids, cut to the limit, and how many there were.

        Raises:
            ItemFailure: The text is too long even if all its tokens are the longest, and may not be cut.
        """
        tokenizer = self._tokenizer
        pieces = tokenizer.pat.findall(tokenizer.clean_fn(text))
        words = ["".join([tokenizer.byte_encoder[byte] for byte in piece.encode("utf-8")]) for piece in pieces]
        least = 2 + math.ceil(sum(map(len, words)) / self._longest)
        if least > limit and not truncate:
            raise _too_long(f"at least {least}", limit)
        inner = [token_id for word in words for token_id in self._encode_word(word)]
        return [tokenizer.sot_token_id, *inner[: limit - 2], tokenizer.eot_token_id], len(inner) + 2

    def _encode_word(self, word: str) -> list[int]:
        token_ids = self._known.get(word)
        if token_ids is not None:
            return token_ids
        symbols = _merge_pairs([*word[:-1], word[-1] + _END_OF_WORD], self._tokenizer.bpe_ranks)
        token_ids = [self._tokenizer.encoder[symbol] for symbol in symbols]
        if len(self._known) > _MAX_CACHED_WORDS:
            self._known = dict(self._special)
        if len(word) <= _MAX_CACHED_WORD_BYTES:
            self._known[word] = token_ids
        return token_ids


def _merge_pairs(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Byte pair encoding of one word: join the pair of lowest rank wherever it stands, left to right, and so on.

    The result is that of open_clip's `bpe`, which reads the whole word again for every pair. Here a join looks at its
    two neighbours, so n letters take a time of n log n. Joining a pair never makes that same pair anew, so the places
    that are known when its turn comes are all there are.
    """
    symbols, end = list(symbols), len(symbols)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    places: dict[tuple[str, str], list[int]] = {}
    turns: list[tuple[int, tuple[str, str]]] = []

    def note(left: int, right: int) -> None:
        pair = (symbols[left], symbols[right]) if left >= 0 and right < end else ("", "")
        if (rank := ranks.get(pair)) is not None:
            if pair not in places:
                heappush(turns, (rank, pair))
            places.setdefault(pair, []).append(left)

    for left in range(end - 1):
        note(left, left + 1)
    while turns:
        _, pair = heappop(turns)
        for left in sorted(places.pop(pair)):
            right = after[left]
            if right == end or (symbols[left], symbols[right]) != pair:
                continue  # a neighbour's join took one of the two
            symbols[left], symbols[right] = symbols[left] + symbols[right], ""
            after[left] = after[right]
            if after[left] < end:
                before[after[left]] = left
            note(before[left], left)
            note(left, after[left])
    return [symbol for symbol in symbols if symbol]


def _build_tokenizer(spec: ModelSpec, context_length: int) -> Any:
    import open_clip
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    try:
        if spec.config_file is None:
            return open_clip.get_tokenizer(spec.name, context_length=context_length)
        text_config = read_model_config(spec.config_file)["model_cfg"].get("text_cfg", {})
        options = {**text_config.get("tokenizer_kwargs", {}), "context_length": context_length}
        if not text_config.get("hf_tokenizer_name"):
            return SimpleTokenizer(**options)
        # From the files beside the configuration if they are there, else by its name.
        is_beside = (spec.config_file.parent / "tokenizer_config.json").is_file()
        source = str(spec.config_file.parent) if is_beside else text_config["hf_tokenizer_name"]
        return HFTokenizer(source, tokenizer_mode=text_config.get("tokenizer_mode"), **options)
    except ModelLoadFailed:
        raise
    except Exception as error:
        raise ModelLoadFailed(f"cannot load the tokenizer of {spec.model_id}: {error}") from error


@dataclass(frozen=True, slots=True)
class WordTokenizer:
    """One token per word: the tokenizer that goes with `HashEncoder`."""

    context_length: int = 77

    def tokenize(self, text: str, *, truncate: bool) -> PreparedItem:
        """Tokenize one text.

        Raises:
            ItemFailure: `text_too_long`, naming count and limit.
        """
        words = [_FIRST_WORD_ID + int(hashlib.sha256(word.encode()).hexdigest()[:4], 16) for word in text.split()]
        count = len(words) + 2
        if count > self.context_length and not truncate:
            raise _too_long(str(count), self.context_length)
        token_ids = np.array([_START, *words[: self.context_length - 2], _END], dtype=np.int64)
        return PreparedItem(token_ids, text_sha(text), count, truncated=count > self.context_length)
