"""Numbers in the prose of documents, and those of result files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

NUMBER = re.compile(r"(?<![\w.,/=-])[+-]?\d[\d,]*(?:\.\d+)?")
NOT_PROSE = re.compile(r"^```.*?^```$|^\|[^\n]*$|`[^`]*`|\]\([^)]*\)|K=\d", re.MULTILINE | re.DOTALL)
"""Programs, tables, code, targets of links, and the number in a row's name."""


def numbers_of_prose(text: str) -> list[str]:
    """Return the numbers of a section as they are written."""
    return [one.rstrip(",") for one in NUMBER.findall(NOT_PROSE.sub("", text))]


def without_source(numbers: Iterable[str], results: object) -> set[str]:
    """Return the numbers of prose to which none of the results' rounds."""
    known = list(known_numbers(results))
    return {one for one in numbers if not any(rounds_to(value, one) for value in known)}


def known_numbers(value: object) -> Iterator[float]:
    """Yield every number of a result, those within its texts too."""
    if isinstance(value, dict):
        for one in value.values():
            yield from known_numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from known_numbers(one)
    elif isinstance(value, str):
        yield from (float(one.replace(",", "")) for one in re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?", value))
    elif isinstance(value, int | float):
        yield value


def rounds_to(value: object, shown: str) -> bool:
    """Tell whether a number, as it is shown, is a rounded value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    digits = shown.replace(",", "").partition(".")[2]
    return abs(value - float(shown.replace(",", ""))) <= 0.5 * 10 ** -len(digits) + 1e-9
