"""How much each account may have computed again free of charge: a token bucket of its own.

Kept in memory: it guards the model's time, not money, so a restart may forget it and each replica has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_vendor.domain.errors import RateLimited
from vl2v_vendor.domain.ports import Clock

_MINUTE_MICRO = 60_000_000


@dataclass(slots=True)
class _Bucket:
    items: float
    filled_at: int


class RecomputeAllowance:
    """Hands out free recomputations.

    Args:
        clock: Source of the time.
        items_per_minute: Rate at which an account's bucket fills; it holds one minute's worth.
    """

    def __init__(self, clock: Clock, items_per_minute: int) -> None:
        self._clock = clock
        self._items_per_minute = items_per_minute
        self._buckets: dict[str, _Bucket] = {}

    def take(self, account_id: str, items: int) -> None:
        """Take `items` out of the account's bucket.

        Raises:
            RateLimited: The bucket does not hold them; says when it will. Nothing is taken.
        """
        now = self._clock.now()
        bucket = self._buckets.setdefault(account_id, _Bucket(self._items_per_minute, now))
        elapsed = max(0, now - bucket.filled_at)
        bucket.items = min(self._items_per_minute, bucket.items + elapsed * self._items_per_minute / _MINUTE_MICRO)
        bucket.filled_at = now
        # More than a full bucket holds could never be served, so that much empties it.
        cost = min(items, self._items_per_minute)
        if cost > bucket.items:
            seconds = (cost - bucket.items) * 60 / self._items_per_minute
            raise RateLimited(
                f"{items} vectors are past their retention, and this account may have {self._items_per_minute} a "
                "minute computed again free; send the same items later, or fewer at a time",
                retry_after_seconds=int(seconds) + 1,
            )
        bucket.items -= cost

    def give_back(self, account_id: str, items: int) -> None:
        """Put back what was taken for items that the vendor could not compute."""
        bucket = self._buckets.get(account_id)
        if bucket is not None:
            bucket.items = min(self._items_per_minute, bucket.items + items)
