"""Who waits for an order at the group-commit writer, and whether the order may still be committed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vl2v_vendor.domain.ledger import Charge, ChargeOrder

Outcome = Charge | Exception | None
"""What became of an order: a charge, or why there is none; None for a probe."""


@dataclass(slots=True, eq=False)
class Waiter:
    """An order, or None for a mere probe of the database, and who waits for it.

    Attributes:
        is_claimed: `COMMIT` is about to be sent, or was.
        is_given_up: The caller was refused, and the order must not be committed any more.
    """

    order: ChargeOrder | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Charge | None] = field(repr=False)
    is_claimed: bool = False
    is_given_up: bool = False

    @property
    def account_id(self) -> str:
        """The order's account; empty for a probe."""
        return self.order.account_id if self.order else ""


class Claims:
    """Decides between the writer, which claims orders for its commit, and the callers, who give theirs up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def give_up(self, waiter: Waiter) -> bool:
        """Take an order back for good, unless it is claimed; returns whether it was taken back."""
        with self._lock:
            waiter.is_given_up = not waiter.is_claimed
        return waiter.is_given_up

    def claim(self, group: Sequence[Waiter], outcomes: Sequence[Outcome]) -> bool:
        """Claim the group for its commit, unless a caller gave up an order that was charged; returns whether it did."""
        with self._lock:
            if any(
                waiter.is_given_up and _is_written(outcome) for waiter, outcome in zip(group, outcomes, strict=True)
            ):
                return False
            for waiter in group:
                waiter.is_claimed = True
        return True


def resolve(group: Sequence[Waiter], outcomes: Sequence[Outcome]) -> None:
    """Hand each waiter its outcome in its own loop, with one wake-up per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Charge | None], Outcome]]] = {}
    for waiter, outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(waiter.loop, []).append((waiter.future, outcome))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            loop.call_soon_threadsafe(_deliver, settled)


def _is_written(outcome: Outcome) -> bool:
    return isinstance(outcome, Charge) and outcome.posted is not None


def _deliver(settled: Sequence[tuple[asyncio.Future[Charge | None], Outcome]]) -> None:
    for future, outcome in settled:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
