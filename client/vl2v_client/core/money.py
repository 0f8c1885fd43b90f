"""Amounts of money for people."""

from __future__ import annotations


def format_micro(amount_micro: int, currency: str) -> str:
    """Return money for people: `1_250_000, "EUR"` is `1.25 EUR`; never rounded away."""
    whole, micro = divmod(amount_micro, 1_000_000)
    fraction = f"{micro:06d}".rstrip("0").ljust(2, "0")
    return f"{whole:,}.{fraction} {currency}"
