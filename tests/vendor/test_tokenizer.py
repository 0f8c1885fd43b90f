"""Tokenizers under strangers and threads: open_clip's ids, little work for long words, settings that do not cross."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.engine.models import tokenizer as tokenizer_module
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer

SPEC = ModelSpec(model_id="", name="ViT-B-32")
OPEN_CLIPS = SimpleTokenizer()
TOKENIZER = OpenClipTokenizer(SPEC, context_length=4096)
ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "a", "ab", "ha", "!?.-", "😂😍", "éàü", "日本語", "o're sd'll ", "ab 1&<;")


class CountingRanks(dict[tuple[str, str], int]):
    """The ranks of pairs, and how often one was asked for."""

    asked = 0

    def get(self, pair: Any, default: Any = None) -> Any:
        self.asked += 1
        return super().get(pair, default)


class CountingPattern:
    """ftfy's pattern of an entity, and how often a text was searched for it."""

    def __init__(self) -> None:
        self.passes = 0
        self._pattern = ftfy.fixes.HTML_ENTITY_RE

    def sub(self, *arguments: Any) -> str:
        self.passes += 1
        return self._pattern.sub(*arguments)


class OneStateTokenizer:
    """Like a fast tokenizer of Hugging Face: a call sets cut and padding on the tokenizer and then uses what is set."""

    cut: int | None = None
    padding = False

    def __call__(
        self, text: str, *, truncation: bool, max_length: int = 0, padding: bool = False
    ) -> dict[str, list[int]]:
        self.cut, self.padding = (max_length if truncation else None), padding
        time.sleep(0.0005)  # another thread's turn
        token_ids = [1] * len(text.split())
        if self.cut is not None:
            token_ids = token_ids[: self.cut]
        if self.padding:
            token_ids += [0] * (max_length - len(token_ids))
        return {"input_ids": token_ids}


class FakeHFTokenizer:
    """open_clip's wrapper of it."""

    def __init__(self) -> None:
        self.tokenizer = OneStateTokenizer()
        self.clean_fn = str.strip

    def __call__(self, texts: Sequence[str], context_length: int) -> Any:
        import torch

        rows = [self.tokenizer(text, truncation=True, max_length=context_length, padding=True) for text in texts]
        return torch.tensor([row["input_ids"] for row in rows])


def wide(text: str) -> str:
    """The same letters in full width, which ftfy narrows."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


def with_inner(monkeypatch: pytest.MonkeyPatch, inner: Any, context_length: int) -> OpenClipTokenizer:
    monkeypatch.setattr(tokenizer_module, "_build_tokenizer", lambda *_: inner)
    return OpenClipTokenizer(SPEC, context_length=context_length)


@pytest.fixture
def ranks() -> CountingRanks:
    return CountingRanks()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, ranks: CountingRanks) -> OpenClipTokenizer:
    inner = SimpleTokenizer()
    ranks.update(inner.bpe_ranks)
    inner.bpe_ranks = ranks
    return with_inner(monkeypatch, inner, context_length=77)


def random_text(length: int, *, seed: int, alphabet: str = ALPHABETS[0]) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


def test_threads_keep_their_cut_and_padding_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = with_inner(monkeypatch, FakeHFTokenizer(), context_length=8)
    lengths = [3, 20] * 40
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda length: tokenizer.tokenize("dog " * length, truncate=True), lengths))
    assert [(row.tokens, row.truncated) for row in found] == [(length, length > 8) for length in lengths]
    expected = [[1] * min(length, 8) + [0] * max(8 - length, 0) for length in lengths]
    assert [row.model_input.tolist() for row in found] == expected


def test_any_text_has_open_clips_ids() -> None:
    texts = [
        random_text(length, seed=length, alphabet=chars) for chars in ALPHABETS for length in (1, 2, 3, 8, 60, 400)
    ]
    for text in [*texts, "A photo of a Dog's <start_of_text> caf&eacute; 🇺🇸🇺🇸 #1!!", "&nbsp;"]:
        expected = [OPEN_CLIPS.sot_token_id, *OPEN_CLIPS.encode(text), OPEN_CLIPS.eot_token_id]
        assert TOKENIZER.tokenize(text, truncate=False).model_input.tolist() == expected, text


NESTED = {
    "amp": "&" + "amp;" * 1000 + "lt;",
    "number": "&" + "#38;" * 1000,
    "full width": wide("&") + wide("amp;") * 500,
    "control characters": "&" + "a\x01mp;" * 800,
    "mojibake": "Ã©&" + "amp;" * 1000,
    "second line": "a tag\n&" + "amp;" * 1000 + "\n<b>",
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("of_hugging_face", [False, True])
def test_deeply_nested_entities_are_refused_after_a_few_passes(
    name: str, of_hugging_face: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = FakeHFTokenizer() if of_hugging_face else SimpleTokenizer()
    inner.clean_fn = get_clean_fn("lower")
    tokenizer = with_inner(monkeypatch, inner, context_length=77)
    pattern = CountingPattern()
    monkeypatch.setattr(ftfy.fixes, "HTML_ENTITY_RE", pattern)
    with pytest.raises(ItemFailure, match="HTML entities are nested 8 deep or more") as caught:
        tokenizer.tokenize(NESTED[name], truncate=True)
    assert caught.value.code == "invalid_encoding"
    assert pattern.passes <= 10


PIECES = ("&", "amp;", "#38;", "lt;", "#10;", "<", "<b>", "é", "Ã©", "\n", wide("&amp;"), "a", " ", "\x01", "&eacute;")


@given(st.lists(st.sampled_from(PIECES), max_size=7))
def test_what_is_nested_less_has_open_clips_ids(pieces: list[str]) -> None:
    text = "".join(pieces) + " photo" * 50
    expected = [OPEN_CLIPS.sot_token_id, *OPEN_CLIPS.encode(text), OPEN_CLIPS.eot_token_id]
    assert TOKENIZER.tokenize(text, truncate=False).model_input.tolist() == expected


def test_a_long_words_work_grows_with_its_length(counted: OpenClipTokenizer, ranks: CountingRanks) -> None:
    word = random_text(4096, seed=0)
    cut = counted.tokenize(word, truncate=True)
    assert cut.truncated
    assert len(cut.model_input) == 77
    assert 0 < ranks.asked <= 3 * len(word)


def test_a_text_that_cannot_fit_is_refused_before_its_pairs_are_looked_at(
    counted: OpenClipTokenizer, ranks: CountingRanks
) -> None:
    for text in (random_text(4096, seed=0), " ".join(random_text(6, seed=seed) for seed in range(585))):
        with pytest.raises(
            ItemFailure, match=r"at least \d+ tokens and the model reads 77; .*truncate: true"
        ) as caught:
            counted.tokenize(text, truncate=False)
        assert caught.value.code == "text_too_long"
    assert ranks.asked == 0


def test_a_text_of_the_longest_tokens_still_fits() -> None:
    tokenizer = OpenClipTokenizer(SPEC, context_length=77)
    fits = "😂" * 8 * 74 + "😂" * 7  # 32 bytes are one token, 28 at a word's end
    assert tokenizer.tokenize(fits, truncate=False).tokens == 77
    with pytest.raises(ItemFailure, match="has 78 tokens and the model reads 77"):
        tokenizer.tokenize(f"{fits} a", truncate=False)


def test_short_words_are_remembered_and_long_ones_are_not(counted: OpenClipTokenizer, ranks: CountingRanks) -> None:
    for word, remembered in ((random_text(20, seed=1), True), (random_text(500, seed=1), False)):
        counted.tokenize(word, truncate=True)
        before = ranks.asked
        counted.tokenize(word, truncate=True)
        assert (ranks.asked == before) is remembered


def test_forgetting_words_changes_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "_MAX_CACHED_WORDS", 3)
    tokenizer = with_inner(monkeypatch, SimpleTokenizer(additional_special_tokens=["<mask>"]), context_length=24)
    text = "one two three four five <mask> <end_of_text>"
    first = tokenizer.tokenize(text, truncate=False)
    assert first.tokens == 9
    assert tokenizer.tokenize(text, truncate=False).model_input.tolist() == first.model_input.tolist()
