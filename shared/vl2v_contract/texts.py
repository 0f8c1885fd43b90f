"""Texts from outside, written out for terminals and tables, and told from addresses; and money, for people."""

import unicodedata
from typing import Final

_SCHEMES: Final = ("http://", "https://", "file://", "data:")
_IMAGE_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".svg")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with each character that does not print written out, such as `\x1b` for ESC.

    Control characters, line ends, marks that turn the direction of text, lone surrogates and unassigned characters are
    written out; letters of every script, spaces and joiners stay, and so does what is in `keep`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or _prints(letter) else repr(letter)[1:-1] for letter in text)


def format_micro(amount_micro: int, currency: str) -> str:
    """Return money for people: `1_250_000, "EUR"` is `1.25 EUR`; never rounded away."""
    whole, micro = divmod(abs(amount_micro), 1_000_000)
    fraction = f"{micro:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_micro < 0 else ''}{whole:,}.{fraction} {currency}"


def _prints(letter: str) -> bool:
    # Persian, Hindi and emoji are written with zero-width joiners, which steer nothing
    return letter.isprintable() or letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs"


def is_address(text: str) -> bool:
    """Return whether a text is a URL and nothing else."""
    words = text.split(maxsplit=1)
    if len(words) != 1 or not words[0][:8].lower().startswith(_SCHEMES):
        return False
    return words[0][:5].lower() != "data:" or "," in words[0]


def is_image_address(text: str) -> bool:
    """Return whether a text is the URL of an image and nothing else: its path ends as image files do, or it is one."""
    if not is_address(text):
        return False
    address = text.strip()
    if address[:5].lower() == "data:":
        return True
    path = address.partition("#")[0].partition("?")[0]
    return path.lower().endswith(_IMAGE_ENDINGS)
