"""What a refusal may undo: nothing that the vendor may have charged."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from buying_bench import ask, draw_pictures, plan_for
from fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized, VendorChanged, VendorError
from vl2v_client.planning.purchase import buy


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
    with pytest.raises(VendorChanged, match="another --cache"):
        buy(more, client, cache)
    assert vendor.billed_units == before
