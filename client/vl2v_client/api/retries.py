"""When to send a request again, and how long to wait first. Pure policy: no clock, no network.

The order of authority is that of the Anthropic and Stripe clients: the vendor's own `X-Should-Retry`, then a sane
`Retry-After`, then the class of the status. Embedding requests carry one key per item, so that sending one again
costs nothing that the first attempt has paid; that is why even a POST without an answer is sent again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_RETRY_AFTER_SECONDS = 60.0

_PAYMENT_REQUIRED = 402
_RETRYABLE_STATUSES = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one attempt, reduced to what decides about another.

    Attributes:
        status: The HTTP status; None if no whole answer arrived.
        should_retry: The `X-Should-Retry` header.
        retry_after_seconds: The `Retry-After` header, if it was sane.
        timed_out: No answer within the time allowed.
        refused: Nobody listens at the address.
    """

    status: int | None
    should_retry: str | None = None
    retry_after_seconds: float | None = None
    timed_out: bool = False
    refused: bool = False

    def may_be_repeated(self) -> bool:
        """Return whether the same request may fare better."""
        if self.status is None:
            return True
        if self.should_retry is not None and self.should_retry.lower() in {"true", "false"}:
            return self.should_retry.lower() == "true"
        if self.status == _PAYMENT_REQUIRED:
            return False  # a budget stays empty until somebody raises it
        if self.retry_after_seconds is not None:
            return True
        return self.status in _RETRYABLE_STATUSES or self.status >= 500


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounded attempts with capped exponential backoff and jitter.

    Attributes:
        max_attempts: Requests in all, the first included.
        max_timeouts: Attempts that may time out; each has cost the user a long wait.
        max_refusals: Attempts that may find nobody there before the vendor has ever answered; afterwards it is
            probably restarting.
        first_wait_seconds: The wait before the second attempt; it doubles from there.
        longest_wait_seconds: What the doubling stops at.
    """

    max_attempts: int = 6
    max_timeouts: int = 3
    max_refusals: int = 2
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8.0

    def allows_another(self, attempts: list[Attempt], *, met: bool) -> bool:
        """Return whether to send again after `attempts`, the latest last; `met` if this vendor has ever answered."""
        if not attempts[-1].may_be_repeated() or len(attempts) >= self.max_attempts:
            return False
        if not met and sum(attempt.refused for attempt in attempts) >= self.max_refusals:
            return False
        return sum(attempt.timed_out for attempt in attempts) < self.max_timeouts

    def wait_seconds(self, attempts: list[Attempt], rng: random.Random) -> float:
        """Return the seconds to wait: what the vendor asked for, else backoff less up to a quarter of jitter."""
        asked = attempts[-1].retry_after_seconds
        if asked is not None:
            return asked
        backoff = min(self.first_wait_seconds * 2.0 ** (len(attempts) - 1), self.longest_wait_seconds)
        return backoff * (1.0 - 0.25 * rng.random())


def parse_retry_after(header: str | None, *, now_seconds: float) -> float | None:
    """Return the seconds of a `Retry-After` header, a number or an HTTP date; None if absent or not within 0 to 60.

    Args:
        header: Header as received.
        now_seconds: Unix time, for the date form.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = date.timestamp() - now_seconds
    return seconds if 0.0 <= seconds <= LONGEST_RETRY_AFTER_SECONDS else None
