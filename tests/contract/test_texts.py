"""What may steer a terminal is written out; what people write stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_contract.texts import printable


@pytest.mark.parametrize(
    "text", ["", "dog", "Straße", "犬\u3000猫", "می\u200cشود", "👩\u200d🔬", "a\u00a0b", "e\u0301", "[red]", "\\x1b"]
)
def test_letters_of_every_script_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("letter", "shown"),
    [
        ("\x1b", r"\x1b"),
        ("\x9b", r"\x9b"),
        ("\x07", r"\x07"),
        ("\r", r"\r"),
        ("\n", r"\n"),
        ("\t", r"\t"),
        ("\0", r"\x00"),
        ("\x7f", r"\x7f"),
        ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"),
        ("\u2066", r"\u2066"),
        ("\u200f", r"\u200f"),
        ("\u200b", r"\u200b"),
        ("\ufeff", r"\ufeff"),
        ("\udce9", r"\udce9"),
        ("\U000e0041", r"\U000e0041"),
        ("\ue000", r"\ue000"),
    ],
)
def test_what_steers_is_written_out(letter: str, shown: str) -> None:
    assert printable(f"do{letter}g") == f"do{shown}g"


def test_one_s_own_line_ends_may_stay() -> None:
    assert printable("one\ntwo\r", keep="\n") == "one\ntwo\\r"


@given(st.text())
def test_it_is_done_once_and_leaves_nothing(text: str) -> None:
    once = printable(text)
    assert printable(once) == once
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in once)
    once.encode()
