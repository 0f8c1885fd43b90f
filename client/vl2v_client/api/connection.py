"""One vendor over HTTP: authentication, retries, and one shared pause when the vendor asks for one."""

import ipaddress
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from vl2v_client.api.addresses import base_url, other_scheme
from vl2v_client.api.bounded import MAX_MESSAGE_BYTES, read_bounded
from vl2v_client.api.responses import no_answer_error, not_a_vendor, problem_error, wrong_scheme_error
from vl2v_client.api.retries import Attempt, RetryPolicy, failed_attempt, parse_retry_after
from vl2v_client.core.errors import NotAuthorized, UsageError, VendorUnavailable
from vl2v_contract.wire import headers

_MOMENT_SECONDS = 3.0


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
            sent_at = time.monotonic()
            answer = self._try(method, path, max_bytes, content, attempts)
            waited_seconds += time.monotonic() - sent_at
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
        has_begun = False
        try:
            with self._http.stream(method, path, **content) as streamed:
                has_begun = True
                response = read_bounded(streamed, max_bytes)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise UsageError(f"cannot send to {self.url}: {error}") from error
        except httpx.RequestError as error:
            attempts.append(failed_attempt(error, has_begun=has_begun))
            return error
        self._met = True
        sent = response.headers
        retry_after = parse_retry_after(sent.get(headers.RETRY_AFTER), now_seconds=time.time())
        is_loading = response.status_code == httpx.codes.SERVICE_UNAVAILABLE and headers.MODEL_LOADING in sent
        attempts.append(Attempt(response.status_code, sent.get(headers.SHOULD_RETRY), retry_after, loading=is_loading))
        if not attempts[-1].is_away:
            self._told_away = False
        return response

    def _tell_away(self) -> None:
        with self._gate:
            was_told, self._told_away = self._told_away, True
        if not was_told:
            minutes = f"{self._policy.max_away_seconds / 60:g} minutes"
            self.on_away(f"the vendor at {self.url} does not sell now; trying again for up to {minutes}")

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
