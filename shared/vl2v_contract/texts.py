"""Texts from outside on their way to a terminal or a table: letters stay, what steers is written out."""

import unicodedata


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with each character that does not print written out, such as `\x1b` for ESC.

    Control characters, line ends, marks that turn the direction of text, lone surrogates and unassigned characters are
    written out; letters of every script, spaces and joiners stay, and so does what is in `keep`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or _prints(letter) else repr(letter)[1:-1] for letter in text)


def _prints(letter: str) -> bool:
    # Persian, Hindi and emoji are written with zero-width joiners, which steer nothing
    return letter.isprintable() or letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs"
