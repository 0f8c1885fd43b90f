"""What a refusal may undo: nothing that the vendor may have charged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized, VendorChanged, VendorError, VendorUnavailable
from vl2v_client.planning.query_plan import Limits


def test_a_refusal_after_a_lost_attempt_releases_nothing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 3)))
    posts = 0

    def lose_then_revoke(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        nonlocal posts
        if request.method != "POST":
            return answer
        posts += 1
        if posts == 1:
            raise httpx.ReadTimeout("lost", request=request)
        return vendor.problem(401, "key_revoked")

    vendor.after = lose_then_revoke
    with pytest.raises(NotAuthorized):
        buy(plan, client, cache, workers=1)
    assert vendor.billed_units == 3
    assert sum(map(len, cache.purchases.outstanding(plan.teacher.ledger_id))) == 3


@pytest.mark.parametrize(("status", "code"), [(401, "key_revoked"), (429, "rate_limited")])
def test_a_refusal_of_a_batch_that_was_charged_before_it_was_parked_releases_nothing(
    status: int, code: str, vendor: FakeVendor, cache: EmbeddingCache
) -> None:
    vendor.max_items = 2
    client = connect(vendor, policy=RetryPolicy(max_away_seconds=0))
    plan = plan_for(vendor, cache, [], ["a", "b", "c", "d"])
    is_parked = threading.Event()

    def is_first(request: httpx.Request) -> bool:
        return request.url.path == "/v1/embeddings/texts" and json.loads(request.content)["items"][0]["text"] == "a"

    def refuse_the_second_try(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/v1/embeddings/texts" and not is_first(request):
            assert is_parked.wait(20)
        return vendor.problem(status, code) if is_first(request) and is_parked.is_set() else None

    def lose_the_first_try(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if not is_first(request):
            return answer
        is_parked.set()
        raise httpx.ReadError("lost", request=request)

    vendor.before, vendor.after = refuse_the_second_try, lose_the_first_try
    with pytest.raises(VendorError):
        buy(plan, client, cache, workers=2)
    assert vendor.billed_units == 4
    assert sum(map(len, cache.purchases.outstanding(plan.teacher.ledger_id))) == 2
    vendor.before, vendor.after = lambda _request: None, lambda _request, answer: answer
    report = buy(plan, client, cache, caps=Limits(max_queries=0))
    assert (report.replayed_units, vendor.billed_units) == (2, 4)


def test_what_never_left_the_machine_is_not_on_the_books(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache
) -> None:
    plan = plan_for(vendor, cache, [], ["a", "b"])

    def hang_up(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            raise httpx.ConnectError("refused", request=request)
        return None

    vendor.before = hang_up
    with pytest.raises(VendorUnavailable):
        buy(plan, client, cache)
    assert cache.purchases.outstanding(plan.teacher.ledger_id) == []
    assert cache.records.account_ids(plan.teacher.ledger_id) == set()


def test_a_vector_that_was_answered_is_not_released_when_its_receipt_is_missing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 3)))
    lost = False

    def lose_once(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        nonlocal lost
        if request.method == "POST" and not lost:
            lost = True
            raise httpx.ReadTimeout("lost", request=request)
        return answer

    vendor.after = lose_once
    vendor.lie = lambda path, body: {**body, "paid_by": []} if "/embeddings/" in path else body
    with pytest.raises(VendorError, match="no receipt shows"):
        buy(plan, client, cache, workers=1)
    assert sum(map(len, cache.purchases.outstanding(plan.teacher.ledger_id))) == 3
    vendor.lie = lambda _path, body: body
    report = buy(plan, client, cache)
    assert (report.billed_units, vendor.billed_units) == (0, 3)


def test_one_cache_keeps_the_books_of_one_account(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    buy(plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 2))), client, cache)
    more = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "more", 5)))

    def another_account(path: str, body: dict[str, object]) -> dict[str, object]:
        return {**body, "account_id": "acct_other"} if path == "/v1/billing/summary" else body

    vendor.lie = another_account
    before = vendor.billed_units
    with pytest.raises(VendorChanged, match=r"another purchase\.cache"):
        buy(more, client, cache)
    assert vendor.billed_units == before
