"""When a request is sent again, and how long the client waits first.

The order of authority on a retry is that of the Anthropic and Stripe clients: the vendor's own `X-Should-Retry`, then a
sane `Retry-After`, then the class of the status. Embedding requests carry one key per item, so that sending one again
costs nothing that the first attempt has paid; that is why even a POST without an answer is sent again.
"""

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

_WITHOUT_A_WORD = "Server disconnected"
"""How httpcore begins the error for a connection that is closed before an answer; it has no type of its own."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one attempt, reduced to what decides about another.

    Attributes:
        status: The HTTP status; None if no whole answer arrived.
        should_retry: The `X-Should-Retry` header.
        retry_after_seconds: The `Retry-After` header, if it was sane.
        timed_out: No answer within the time allowed.
        refused: Nobody listens at the address, or nothing is there that would refuse.
        broken: Something came that is no whole answer in HTTP.
        loading: The vendor has started and is loading its model.
    """

    status: int | None
    should_retry: str | None = None
    retry_after_seconds: float | None = None
    timed_out: bool = False
    refused: bool = False
    broken: bool = False
    loading: bool = False

    @property
    def is_away(self) -> bool:
        """Whether nobody sells there: refused, cut off, a proxy with nobody behind it, or a model not yet loaded."""
        if self.loading:
            return True
        if self.status is None:
            return not (self.timed_out or self.broken)
        return self.status in _GATEWAY_STATUSES and self.should_retry is None and self.retry_after_seconds is None

    def may_be_repeated(self) -> bool:
        """Return whether the same request may fare better."""
        if self.status is None:
            return True
        if self.should_retry is not None and self.should_retry.lower() in {"true", "false"}:
            return self.should_retry.lower() == "true"
        if self.status == httpx.codes.PAYMENT_REQUIRED:
            return False  # a budget stays empty until somebody raises it
        is_passing = self.status in {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}
        return is_passing or self.retry_after_seconds is not None or self.status >= httpx.codes.INTERNAL_SERVER_ERROR


_GATEWAY_STATUSES = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})
"""A proxy's; the vendor's own answer says whether to retry."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounded attempts with capped exponential backoff and jitter.

    Attributes:
        max_attempts: Requests in all, the first included; those that found a vendor away that has answered before are
            not counted, but bounded by the next one.
        max_away_seconds: Time to wait for a vendor that has answered before and is away now, since it is probably
            restarting, or loads its model.
        max_timeouts: Attempts that may time out; each has cost the user a long wait.
        max_refusals: Attempts that may find nobody there before the vendor has ever answered.
        first_wait_seconds: The wait before the second attempt; it doubles from there.
        longest_wait_seconds: What the doubling stops at.
    """

    max_attempts: int = 6
    max_away_seconds: float = 300.0
    max_timeouts: int = 3
    max_refusals: int = 2
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8.0

    def allows_another(self, attempts: list[Attempt], *, met: bool, waited_seconds: float = 0.0) -> bool:
        """Return whether to send again after `attempts`, the latest last.

        Args:
            attempts: What became of the request so far.
            met: Whether this vendor has ever answered.
            waited_seconds: Time since the first of these attempts.
        """
        refusals = 0 if met else sum(attempt.refused for attempt in attempts)
        timeouts = sum(attempt.timed_out for attempt in attempts)
        counted = sum(not (met and attempt.is_away) for attempt in attempts)
        is_bounded = refusals < self.max_refusals and timeouts < self.max_timeouts and counted < self.max_attempts
        if met and attempts[-1].is_away:
            is_bounded &= waited_seconds < self.max_away_seconds
        return is_bounded and attempts[-1].may_be_repeated()

    def wait_seconds(self, attempts: list[Attempt], rng: random.Random) -> float:
        """Return the seconds to wait: what the vendor asked for, else backoff less up to a quarter of jitter.

        For a model that is being loaded, whose attempts are not counted, never less than `first_wait_seconds`.
        """
        backoff = min(self.first_wait_seconds * 2.0 ** (len(attempts) - 1), self.longest_wait_seconds)
        asked = attempts[-1].retry_after_seconds
        seconds = backoff * (1.0 - 0.25 * rng.random()) if asked is None else asked
        return max(seconds, self.first_wait_seconds) if attempts[-1].loading else seconds


def parse_retry_after(header: str | None, *, now_seconds: float) -> float | None:
    """Return the seconds of a `Retry-After` header, a number or an HTTP date; None if absent or not within 0 to 60.

    A date counts from `now_seconds`, in Unix time.
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
    return seconds if 0.0 <= seconds <= 60.0 else None


def failed_attempt(error: httpx.RequestError, *, has_begun: bool) -> Attempt:
    """Return what became of an attempt that raised `error`, after the head of an answer or before it."""
    refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    timed_out = isinstance(error, httpx.TimeoutException) and not refused
    is_garbled = isinstance(error, httpx.RemoteProtocolError) and _WITHOUT_A_WORD not in str(error)
    return Attempt(None, timed_out=timed_out, refused=refused, broken=has_begun or is_garbled)
