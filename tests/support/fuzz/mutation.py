"""Seeded changes of bytes and of JSON values: the same dice make the same changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

_MOST_CHANGES = 4
_LONGEST_RUN = 200

_NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**32, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 1e308, -0.0, 1e-320, 0.5)
_TEXTS = (
    "", " ", "a", "0", "-1", "1e9", "null", "true", "a" * 300, "\x00", "\x1b[2J", "\r\n", "\u202e", "\u2028", "é",
    "日本", "😀", "\ufeff", "e\u0301", "../../etc/passwd", "http://127.0.0.1/a.jpg", "data:image/png;base64,", "%00",
    "'; --", "<script>", "{{7*7}}", "=1+1", "vl2v_" + "A" * 43, "0" * 64, "f" * 64, "F" * 64, "image", "text", "raw",
    "base64", "float", "float16", "float32", "EUR", "eur", "embed", "admin", "NaN", "Infinity", "2026-01-01T00:00:00Z",
)  # fmt: skip
_LITERALS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x10", b"01", b"\xff", b"'", b"//", b"\xed\xa0\x80", b'"\\ud800"',
)  # fmt: skip
_INTEGERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\x01", b"\x01\0\0\0")


def mutate_bytes(data: bytes, dice: random.Random, *, others: Sequence[bytes] = ()) -> bytes:
    """Change up to four places: bits, runs of bytes, integers; cut it, or splice another one in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, _MOST_CHANGES)):
        dice.choice(_BYTE_CHANGES)(changed, dice, others or (data,))
    return bytes(changed)


def mutate_json(value: Any, dice: random.Random) -> Any:
    """Change up to four values, anywhere in it."""
    changed = deepcopy(value)
    for _ in range(dice.randint(1, _MOST_CHANGES)):
        changed = _change_value(changed, dice)
    return changed


def to_json(value: Any, dice: random.Random) -> bytes:
    """Write JSON, now and then of odd form, or what is nearly JSON."""
    text = json.dumps(value, ensure_ascii=dice.random() < 0.5, indent=dice.choice((None, None, None, 1)))
    data = text.encode(errors="surrogatepass")
    if dice.random() < 0.1:
        place = dice.randint(0, len(data))
        data = data[:place] + dice.choice(_LITERALS) + data[place:]
    return data


def odd_value(dice: random.Random) -> Any:
    """Return any JSON value, mostly one that is not expected anywhere."""
    kind = dice.randrange(8)
    if kind < 2:
        return dice.choice(_NUMBERS)
    if kind < 5:
        return odd_text(dice)
    if kind == 5:
        return dice.choice((None, True, False, [], {}, [[]], {"": {}}))
    if kind == 6:
        nested: Any = 0
        for _ in range(dice.choice((3, 50, 400))):
            nested = [nested] if dice.random() < 0.5 else {"a": nested}
        return nested
    return [odd_text(dice) for _ in range(dice.randint(1, 30))]


def odd_text(dice: random.Random) -> str:
    """Return a text that is empty, long, steers, looks like something else, or is random."""
    if dice.random() < 0.7:
        return dice.choice(_TEXTS)
    return "".join(chr(dice.randrange(1, dice.choice((128, 0x250, 0xD800)))) for _ in range(dice.randint(1, 40)))


def _change_value(value: Any, dice: random.Random) -> Any:
    """Go down to a random place and change what is there."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        name = dice.choice(list(value))
        kind = dice.random()
        if kind < 0.1:
            del value[name]
        elif kind < 0.2:
            value[odd_text(dice)] = odd_value(dice)
        elif kind < 0.25:
            value[dice.choice(list(value))] = value[name]
        else:
            value[name] = _change_value(value[name], dice)
        return value
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        kind = dice.random()
        if kind < 0.1:
            del value[place]
        elif kind < 0.2:
            value.insert(place, odd_value(dice))
        elif kind < 0.3:
            value.extend(deepcopy(value[place]) for _ in range(dice.choice((1, 2, 30))))
        else:
            value[place] = _change_value(value[place], dice)
        return value
    return _near(value, dice)


def _near(value: Any, dice: random.Random) -> Any:
    """Return another value, often of the same kind."""
    if isinstance(value, str) and value and dice.random() < 0.5:
        place = dice.randrange(len(value))
        return value[:place] + dice.choice(("", odd_text(dice), value[place:] * 2)) + value[place + 1 :]
    if isinstance(value, int) and not isinstance(value, bool) and dice.random() < 0.5:
        return dice.choice((value + 1, value - 1, -value, value * 10, float(value), str(value), bool(value)))
    return odd_value(dice)


def _flip(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _overwrite(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    if data:
        start = dice.randrange(len(data))
        length = min(len(data) - start, dice.choice((1, 2, 4, 16, _LONGEST_RUN)))
        data[start : start + length] = dice.randbytes(length) if dice.random() < 0.7 else bytes(length)


def _integer(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    if len(data) >= 4:
        start, width = dice.randrange(len(data) - 3), dice.choice((1, 2, 4))
        data[start : start + width] = dice.choice(_INTEGERS)[:width]


def _cut(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    if data:
        del data[dice.randrange(len(data)) :]


def _remove(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    if data:
        start = dice.randrange(len(data))
        del data[start : start + dice.choice((1, 2, 4, 16, _LONGEST_RUN))]


def _repeat(data: bytearray, dice: random.Random, _others: Sequence[bytes]) -> None:
    if data:
        start = dice.randrange(len(data))
        piece = data[start : start + dice.choice((1, 4, 16, _LONGEST_RUN))]
        data[start:start] = piece * dice.choice((1, 2, 8))


def _splice(data: bytearray, dice: random.Random, others: Sequence[bytes]) -> None:
    other = dice.choice(others)
    if data and other:
        start, place = dice.randrange(len(other)), dice.randrange(len(data))
        data[place:] = other[start:]


_BYTE_CHANGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip, _flip, _overwrite, _overwrite, _integer, _cut, _remove, _repeat, _splice,
)  # fmt: skip
