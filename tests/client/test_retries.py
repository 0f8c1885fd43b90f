"""When a request is sent again, and how long the client waits first."""

from __future__ import annotations

import random

import httpx
import pytest

from vl2v_client.api.retries import Attempt, RetryPolicy, failed_attempt, parse_retry_after

NOW = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC


@pytest.mark.parametrize(
    ("attempt", "again"),
    [
        (Attempt(None), True),
        (Attempt(None, timed_out=True), True),
        (Attempt(500), True),
        (Attempt(503), True),
        (Attempt(429), True),
        (Attempt(408), True),
        (Attempt(400), False),
        (Attempt(401), False),
        (Attempt(404), False),
        (Attempt(409), False),
        (Attempt(422), False),
        (Attempt(402), False),
        # the vendor's word beats the status
        (Attempt(500, should_retry="false"), False),
        (Attempt(409, should_retry="true"), True),
        (Attempt(422, should_retry="TRUE"), True),
        (Attempt(503, should_retry="perhaps"), True),
        # a sane Retry-After asks to come back
        (Attempt(409, retry_after_seconds=2.0), True),
        (Attempt(409, should_retry="false", retry_after_seconds=2.0), False),
        (Attempt(402, retry_after_seconds=2.0), False),
    ],
)
def test_who_decides_about_another_attempt(attempt: Attempt, again: bool) -> None:
    assert RetryPolicy().allows_another([attempt], met=True) is again


def test_attempts_are_bounded_and_timeouts_more_so() -> None:
    policy = RetryPolicy(max_attempts=4, max_timeouts=2)
    late = Attempt(None, timed_out=True)
    busy = Attempt(503, should_retry="true")
    assert policy.allows_another([busy] * 3, met=True)
    assert not policy.allows_another([busy] * 4, met=True)
    assert policy.allows_another([late], met=True)
    assert not policy.allows_another([late, busy, late], met=True)


def test_an_address_that_is_gone_counts_as_refused_and_not_as_late() -> None:
    """A pod that vanished refuses nothing: its address answers no more."""
    gone = failed_attempt(httpx.ConnectTimeout("timed out"), has_begun=False)
    late = failed_attempt(httpx.ReadTimeout("timed out"), has_begun=False)
    assert (gone.is_away, gone.refused, gone.timed_out) == (True, True, False)
    assert (late.is_away, late.refused, late.timed_out) == (False, False, True)


def test_nobody_there_is_given_up_soon_unless_somebody_was_there_before() -> None:
    refused = [Attempt(None, refused=True)] * 2
    assert not RetryPolicy().allows_another(refused, met=False)
    assert RetryPolicy().allows_another(refused, met=True)


LOADING = Attempt(503, should_retry="true", retry_after_seconds=2.0, loading=True)


@pytest.mark.parametrize(
    "away", [Attempt(None, refused=True), Attempt(None), Attempt(502), Attempt(503), Attempt(504), LOADING]
)
def test_a_vendor_that_has_answered_is_waited_for_as_long_as_a_restart_may_take(away: Attempt) -> None:
    policy = RetryPolicy(max_attempts=3, max_away_seconds=300)
    assert policy.allows_another([away] * 20, met=True, waited_seconds=299)
    assert not policy.allows_another([away] * 20, met=True, waited_seconds=300)
    assert not policy.allows_another([away] * 3, met=False, waited_seconds=1)


def test_what_the_vendor_itself_says_is_counted_also_after_an_outage() -> None:
    policy, away = RetryPolicy(max_attempts=3), Attempt(None, refused=True)
    for overloaded in (Attempt(503, should_retry="true"), Attempt(503, retry_after_seconds=1.0)):
        assert policy.allows_another([*[away] * 9, overloaded, overloaded], met=True, waited_seconds=60)
        assert not policy.allows_another([*[away] * 9, *[overloaded] * 3], met=True, waited_seconds=60)


def test_backoff_doubles_to_a_cap_and_jitters_downwards_only() -> None:
    policy = RetryPolicy(first_wait_seconds=0.5, longest_wait_seconds=8.0)
    waits = [policy.wait_seconds([Attempt(503)] * count, random.Random(count)) for count in range(1, 9)]
    full = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert all(0.75 * most <= wait <= most for wait, most in zip(waits, full, strict=True))


def test_what_the_vendor_asks_for_is_what_is_waited() -> None:
    assert RetryPolicy().wait_seconds([Attempt(429, retry_after_seconds=17.0)], random.Random(0)) == 17.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("2.5", 2.5),
        ("60", 60.0),
        ("61", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 01:00:00 GMT", None),
        ("Wed, 31 Dec 2025 23:59:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now_seconds=NOW) == seconds
