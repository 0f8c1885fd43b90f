"""One vendor over HTTP: authentication, retries, and one shared pause when the vendor asks for one.

The order of authority on a retry is that of the Anthropic and Stripe clients: the vendor's own `X-Should-Retry`, then a
sane `Retry-After`, then the class of the status. Embedding requests carry one key per item, so that sending one again
costs nothing that the first attempt has paid; that is why even a POST without an answer is sent again.
"""

import ipaddress
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from vl2v_client.api.addresses import base_url, other_scheme
from vl2v_client.api.bounded import MAX_MESSAGE_BYTES, read_bounded
from vl2v_client.api.responses import no_answer_error, not_a_vendor, problem_error, wrong_scheme_error
from vl2v_client.core.errors import NotAuthorized, UsageError, VendorUnavailable
from vl2v_contract.wire import headers


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

    @property
    def is_away(self) -> bool:
        """Whether nobody spoke for the vendor: refused, cut off, or a proxy said that it has nobody behind it."""
        if self.status is None:
            return not self.timed_out
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

_MOMENT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounded attempts with capped exponential backoff and jitter.

    Attributes:
        max_attempts: Requests in all, the first included; those that found a vendor away that has answered before are
            not counted, but bounded by the next one.
        max_away_seconds: Time to wait for a vendor that has answered before and is away now, since it is probably
            restarting and has a model to load.
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
            waited_seconds: Time that was waited between these attempts.
        """
        refusals = 0 if met else sum(attempt.refused for attempt in attempts)
        timeouts = sum(attempt.timed_out for attempt in attempts)
        counted = sum(not (met and attempt.is_away) for attempt in attempts)
        is_bounded = refusals < self.max_refusals and timeouts < self.max_timeouts and counted < self.max_attempts
        if met and attempts[-1].is_away:
            is_bounded &= waited_seconds < self.max_away_seconds
        return is_bounded and attempts[-1].may_be_repeated()

    def wait_seconds(self, attempts: list[Attempt], rng: random.Random) -> float:
        """Return the seconds to wait: what the vendor asked for, else backoff less up to a quarter of jitter."""
        backoff = min(self.first_wait_seconds * 2.0 ** (len(attempts) - 1), self.longest_wait_seconds)
        asked = attempts[-1].retry_after_seconds
        return backoff * (1.0 - 0.25 * rng.random()) if asked is None else asked


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


class Connection:
    """Sends requests until one is answered for good. Thread-safe.

    `httpx` itself retries nothing: each retry here is the same request under the same item keys.

    Attributes:
        on_away: Function that is told, once, that a vendor which has answered before is away for longer than a moment.

    Args:
        url: The vendor's base URL, `http://` or `https://`; a `/v1` at its end makes no difference.
        api_key: Sent as a bearer token; never shown.
        transport: Replaces the network, in tests.
        policy: When to try again.
        sleep: Wait in seconds; the default wakes up when `cancel` is called.
        rng: Source of the jitter.

    Raises:
        UsageError: The URL has no HTTP scheme.
        NotAuthorized: The key cannot be a key.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], object] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.url = base_url(url)
        self._transport = transport
        self._policy = policy or RetryPolicy()
        self._cancelled = threading.Event()
        self._sleep = sleep or self._cancelled.wait
        self._rng = rng or random.Random()  # nosec B311 # jitter
        self._gate = threading.Lock()
        self._closed_until_seconds = 0.0
        self._met = False
        self.on_away: Callable[[str], object] = lambda _: None
        self._told_away = False
        timeout = httpx.Timeout(120.0, connect=10.0)
        self._http = httpx.Client(base_url=self.url, headers=_headers(api_key), transport=transport, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    @property
    def exposes_key(self) -> bool:
        """Whether the API key travels unencrypted beyond this machine."""
        url = httpx.URL(self.url)
        if headers.AUTHORIZATION not in self._http.headers or url.scheme == "https" or url.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(url.host).is_loopback
        except ValueError:
            return True

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()

    def cancel(self) -> None:
        """Wake every waiting request and let none start any more; answers under way still arrive."""
        self._cancelled.set()

    def request(self, method: str, path: str, max_bytes: int = MAX_MESSAGE_BYTES, **content: Any) -> httpx.Response:
        """Send until an answer is final; returns a 2xx answer. `content` is as `httpx.Client.request` takes it.

        Raises:
            VendorError: One of its kinds, by what the vendor said; or the answer has more than `max_bytes`.
        """
        attempts: list[Attempt] = []
        waited_seconds = 0.0
        while True:
            self._pass_gate(was_sent=bool(attempts))
            answer = self._try(method, path, max_bytes, content, attempts)
            if isinstance(answer, httpx.Response) and answer.is_success:
                return answer
            if not self._policy.allows_another(attempts, met=self._met, waited_seconds=waited_seconds):
                raise self._error(answer, attempts)
            if attempts[-1].is_away and waited_seconds > _MOMENT_SECONDS:
                self._tell_away()
            waited_seconds += self._wait(attempts)

    def _try(
        self, method: str, path: str, max_bytes: int, content: dict[str, Any], attempts: list[Attempt]
    ) -> httpx.Response | httpx.RequestError:
        try:
            with self._http.stream(method, path, **content) as streamed:
                response = read_bounded(streamed, max_bytes)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise UsageError(f"cannot send to {self.url}: {error}") from error
        except httpx.RequestError as error:
            timed_out = isinstance(error, httpx.TimeoutException)
            attempts.append(Attempt(None, timed_out=timed_out, refused=isinstance(error, httpx.ConnectError)))
            return error
        self._met = True
        self._told_away = False
        retry_after = parse_retry_after(response.headers.get(headers.RETRY_AFTER), now_seconds=time.time())
        attempts.append(Attempt(response.status_code, response.headers.get(headers.SHOULD_RETRY), retry_after))
        return response

    def _tell_away(self) -> None:
        with self._gate:
            was_told, self._told_away = self._told_away, True
        if not was_told:
            minutes = f"{self._policy.max_away_seconds / 60:g} minutes"
            self.on_away(f"the vendor at {self.url} does not answer now; trying again for up to {minutes}")

    def _error(self, answer: httpx.Response | httpx.RequestError, attempts: list[Attempt]) -> Exception:
        is_first = isinstance(answer, httpx.Response) or not self._met
        if is_first and (other := other_scheme(self.url, answer, self._transport)) is not None:
            error = wrong_scheme_error(self.url, other)
            error.was_refused = True
        elif isinstance(answer, httpx.RequestError):
            error = no_answer_error(answer, self.url)
            error.was_refused = all(attempt.refused for attempt in attempts)
        elif answer.is_redirect:
            error = not_a_vendor(self.url, f"it redirects to {answer.headers.get('location')}")
        else:
            error = problem_error(answer, self.url)
            # An attempt without an answer, or with a 5xx, may have been charged before it was lost.
            lost = any(each.status is None or each.status >= httpx.codes.INTERNAL_SERVER_ERROR for each in attempts)
            error.was_refused = error.code is not None and not lost
        return error

    def _wait(self, attempts: list[Attempt]) -> float:
        """Wait before the next attempt; returns the seconds that were meant."""
        seconds = self._policy.wait_seconds(attempts, self._rng)
        if attempts[-1].retry_after_seconds is not None:
            # The vendor spoke to the account, not to this thread: all threads wait.
            with self._gate:
                self._closed_until_seconds = max(self._closed_until_seconds, time.monotonic() + seconds)
        self._sleep(seconds)
        return seconds

    def _pass_gate(self, *, was_sent: bool) -> None:
        if self._cancelled.is_set():
            error = VendorUnavailable("interrupted; run the same command again to go on")
            error.was_refused = not was_sent
            raise error
        seconds = self._closed_until_seconds - time.monotonic()
        if seconds > 0:
            self._sleep(seconds)


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {"Accept-Encoding": "identity"}
    key = api_key.strip()
    prefix = headers.API_KEY_PREFIX
    if not key.startswith(prefix) or not key.isascii() or not key.isprintable() or " " in key:
        raise NotAuthorized(f"the API key does not start with {prefix!r} or holds odd characters; copy it again")
    return {"Accept-Encoding": "identity", headers.AUTHORIZATION: f"Bearer {key}"}
