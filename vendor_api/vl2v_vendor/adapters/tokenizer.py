"""Texts to token ids, in the server's process, with open_clip's own tokenizers.

open_clip (and with it torch) is imported when a tokenizer is made, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from vl2v_vendor.adapters.open_clip_files import ModelSpec, read_model_config
from vl2v_vendor.domain.encoder import TokenizedText
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed

_MAX_CACHED_WORDS: Final = 100_000


class OpenClipTokenizer:
    """The tokenizer that belongs to a model.

    CLIP's own tokenizer gives rows of their own length, which a batch may pad with 0. Any other tokenizer has a padding
    of its own, so its rows are always as long as the context.

    Args:
        spec: the model.
        context_length: its longest text, start and end tokens included.
    """

    def __init__(self, spec: ModelSpec, *, context_length: int) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._context_length = context_length
        self._tokenizer = _build_tokenizer(spec, context_length)
        self._is_simple = isinstance(self._tokenizer, SimpleTokenizer)

    def tokenize(self, text: str, *, truncate: bool) -> TokenizedText:
        """Tokenize one text, counting its tokens before any cut.

        Raises:
            ItemFailure: text_too_long, naming count and limit.
        """
        token_ids, count = self._simple(text) if self._is_simple else self._general(text)
        limit = self._context_length
        if count > limit and not truncate:
            raise ItemFailure(
                "text_too_long",
                f"the text has {count} tokens and the model reads {limit}; shorten it or send `truncate: true`",
            )
        return TokenizedText(np.asarray(token_ids, dtype=np.int64), count, truncated=count > limit)

    def _simple(self, text: str) -> tuple[list[int], int]:
        tokenizer = self._tokenizer
        token_ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if len(tokenizer.cache) > _MAX_CACHED_WORDS:
            # open_clip remembers every word it ever saw; strangers choose the words here.
            tokenizer.cache = {word: word for word in ("<start_of_text>", "<end_of_text>")}
        count = len(token_ids)
        if count > self._context_length:
            token_ids = [*token_ids[: self._context_length - 1], tokenizer.eot_token_id]
        return token_ids, count

    def _general(self, text: str) -> tuple[Any, int]:
        inner = self._tokenizer.tokenizer
        count = len(inner(self._tokenizer.clean_fn(text), truncation=False)["input_ids"])
        return self._tokenizer([text], context_length=self._context_length)[0].numpy(), count


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
    """The tokenizer from the files beside the configuration if they are there, else by its name."""
    from open_clip.tokenizer import HFTokenizer

    beside = config_file.parent
    source = str(beside) if (beside / "tokenizer_config.json").is_file() else text_config["hf_tokenizer_name"]
    return HFTokenizer(
        source,
        context_length=context_length,
        tokenizer_mode=text_config.get("tokenizer_mode"),
        **text_config.get("tokenizer_kwargs", {}),
    )
