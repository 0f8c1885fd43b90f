"""Texts to token ids, in the server's process, with open_clip's own tokenizers.

open_clip (and with it torch) is imported when a tokenizer is made, not before.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final

import numpy as np

from vl2v_contract.identity import text_sha
from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, read_model_config

_MAX_CACHED_WORDS: Final = 100_000
_MAX_CACHED_WORD_BYTES: Final = 64
_END_OF_WORD: Final = "</w>"


class OpenClipTokenizer:
    """The tokenizer that belongs to a model. Many threads may call it.

    CLIP's own tokenizer gives rows of their own length, which a batch may pad with 0. Any other tokenizer has its own
    padding, so its rows are always as long as the context.

    Args:
        spec: Specification of the model.
        context_length: Length of its longest text, start and end tokens included.
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
            ItemFailure: `text_too_long`, naming count and limit.
        """
        token_ids, count = self._general(text) if self._words is None else self._simple(self._words, text, truncate)
        limit = self._context_length
        if count > limit and not truncate:
            raise self._too_long(str(count))
        return PreparedItem(np.asarray(token_ids, dtype=np.int64), text_sha(text), count, truncated=count > limit)

    def _simple(self, words: _ClipWords, text: str, truncate: bool) -> tuple[list[int], int]:
        tokenizer = self._tokenizer
        found = words.split(text)
        least = 2 + words.fewest_tokens(found)
        if least > self._context_length and not truncate:
            raise self._too_long(f"at least {least}")
        token_ids = [tokenizer.sot_token_id, *words.encode(found), tokenizer.eot_token_id]
        count = len(token_ids)
        if count > self._context_length:
            token_ids = [*token_ids[: self._context_length - 1], tokenizer.eot_token_id]
        return token_ids, count

    def _general(self, text: str) -> tuple[Any, int]:
        inner = self._tokenizer.tokenizer
        cleaned = self._tokenizer.clean_fn(text)
        # Each call sets cut and padding on the one tokenizer, for every thread.
        with self._lock:
            count = len(inner(cleaned, truncation=False)["input_ids"])
            return self._tokenizer([text], context_length=self._context_length)[0].numpy(), count

    def _too_long(self, count: str) -> ItemFailure:
        return ItemFailure(
            "text_too_long",
            f"the text has {count} tokens and the model reads {self._context_length}; "
            "shorten it or send `truncate: true`",
        )


class _ClipWords:
    """The `encode` of CLIP's own tokenizer, with the same ids, for texts that strangers choose.

    open_clip's needs a time quadratic in a word's length, and keeps every word that it ever saw.

    Args:
        tokenizer: Tokenizer of open_clip, SimpleTokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special: dict[str, list[int]] = {token: [tokenizer.encoder[token]] for token in tokenizer.cache}
        self._known = dict(self._special)
        self._longest = max(len(entry.removesuffix(_END_OF_WORD)) for entry in tokenizer.encoder)

    def split(self, text: str) -> list[str]:
        """Split the cleaned text into words, each as one letter per byte."""
        letters = self._tokenizer.byte_encoder
        pieces = self._tokenizer.pat.findall(self._tokenizer.clean_fn(text))
        return ["".join([letters[byte] for byte in piece.encode("utf-8")]) for piece in pieces]

    def fewest_tokens(self, words: list[str]) -> int:
        """Return a lower bound of the words' tokens, as no entry of the vocabulary is longer than the longest."""
        return -(-sum(map(len, words)) // self._longest)

    def encode(self, words: list[str]) -> list[int]:
        """Return the words' token ids."""
        return [token_id for word in words for token_id in self._encode_word(word)]

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
        if left < 0 or right == end:
            return
        pair = symbols[left], symbols[right]
        rank = ranks.get(pair)
        if rank is None:
            return
        if pair not in places:
            places[pair] = []
            heappush(turns, (rank, pair))
        places[pair].append(left)

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
    from open_clip.tokenizer import SimpleTokenizer

    try:
        if spec.config_file is None:
            return open_clip.get_tokenizer(spec.name or "", context_length=context_length)
        text_config = read_model_config(spec.config_file)["model_cfg"].get("text_cfg", {})
        if not text_config.get("hf_tokenizer_name"):
            return SimpleTokenizer(context_length=context_length, **text_config.get("tokenizer_kwargs", {}))
        return _build_hf_tokenizer(text_config, spec.config_file, context_length)
    except ModelLoadFailed:
        raise
    except Exception as error:
        raise ModelLoadFailed(f"cannot load the tokenizer of {spec.model_id}: {error}") from error


def _build_hf_tokenizer(text_config: dict[str, Any], config_file: Path, context_length: int) -> Any:
    """Build the tokenizer from the files beside the configuration if they are there, else by its name."""
    from open_clip.tokenizer import HFTokenizer

    beside = config_file.parent
    source = str(beside) if (beside / "tokenizer_config.json").is_file() else text_config["hf_tokenizer_name"]
    return HFTokenizer(
        source,
        context_length=context_length,
        tokenizer_mode=text_config.get("tokenizer_mode"),
        **text_config.get("tokenizer_kwargs", {}),
    )
