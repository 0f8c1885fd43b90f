"""Texts from outside on their way to a terminal or a table: letters stay, what steers is written out."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Zero-width joiners: Persian, Hindi and emoji are written with them, and they steer nothing."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with each character that does not print written out, such as `\x1b` for ESC.

    Control characters, line ends, marks that turn the direction of text, lone surrogates and unassigned characters are
    written out; letters of every script, spaces and joiners stay.

    Args:
        text: Text of any origin.
        keep: Characters that stay as they are, such as a line end of one's own.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or _prints(letter) else repr(letter)[1:-1] for letter in text)


def _prints(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
