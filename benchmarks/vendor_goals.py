"""The acceptance lines that `vendor.py` decides, computed from what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from result import Goal
from vendor_arms import INFINITY, NAIVE, OURS, RAW
from vendor_turns import CAPTIONS, IDLE, IN_PROCESS, MANY_CLIENTS, MANY_IMAGES, Figures, Row
from vendor_wire import BASE64, COST, FASTAPI, HALF, SIZE

_IDLE_EXTRA_MS, _IDLE_FACTOR = 3.0, 1.10


def throughput_goals(speeds: Figures) -> list[Goal]:
    """Against the bare model, the naive server, and infinity if it ran."""
    bare, crowd, bulk = (IN_PROCESS, RAW), (MANY_CLIENTS, OURS), (MANY_IMAGES, OURS)
    found = [
        _at_least(f"{MANY_CLIENTS}: OURS / RAW", speeds.ratio(crowd, bare), 0.90),
        _at_least(f"{MANY_CLIENTS}: OURS / NAIVE", speeds.ratio(crowd, (MANY_CLIENTS, NAIVE)), 1.4),
        _at_least(f"{MANY_IMAGES}: OURS / RAW", speeds.ratio(bulk, bare), 0.95),
    ]
    for load in (MANY_CLIENTS, MANY_IMAGES):
        to_infinity = speeds.ratio((load, OURS), (load, INFINITY))
        if to_infinity is not None:
            found.append(_at_least(f"{load}: OURS / INFINITY", to_infinity, 1.0))
    return found


def latency_goals(waits: Figures) -> list[Goal]:
    """One idle client: what is left of the allowance over the direct call, of turns side by side."""
    turns = zip(waits.values[IDLE, OURS], waits.values[IDLE, RAW], strict=True)
    extra = median(mine - _IDLE_FACTOR * direct for mine, direct in turns)
    name = f"{IDLE}: p50 less {_IDLE_FACTOR:.2f} x the direct call, ms"
    return [Goal(name, round(extra, 2), f"<= {_IDLE_EXTRA_MS:g}", extra <= _IDLE_EXTRA_MS)]


def text_goals(texts: Figures, difference: float) -> list[Goal]:
    """Trimmed texts: how much faster, and how different."""
    faster = texts.ratio((CAPTIONS, OURS), (CAPTIONS, RAW))
    return [
        _at_least(f"{CAPTIONS}: OURS / padded encode_text", faster, 4.0),
        Goal(f"{CAPTIONS}: largest difference", float(f"{difference:.3g}"), "<= 1e-05", difference <= 1e-5),
    ]


def wire_goals(rows: Sequence[Row]) -> list[Goal]:
    """Bytes and time of the vectors alone, against FastAPI's default."""
    value = {(row["load"], row["arm"]): float(str(row["median"])) for row in rows if row["median"] is not None}
    found = []
    for form, most in ((BASE64, 0.27), (HALF, 0.10)):
        share = value[SIZE, form] / value[SIZE, FASTAPI]
        found.append(Goal(f"{SIZE}, {form} / FastAPI", round(share, 3), f"<= {most}", share <= most))
    for form in (BASE64, HALF):
        found.append(_at_least(f"{COST}, FastAPI / {form}", value[COST, FASTAPI] / value[COST, form], 20.0))
    return found


def _at_least(name: str, ratio: float | None, least: float) -> Goal:
    value = round(ratio, 3) if ratio is not None else "not measured"
    return Goal(name, value, f">= {least:g}", ratio is not None and ratio >= least)
