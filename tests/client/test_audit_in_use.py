"""The audit as it is used: beside a running purchase, by keys that may not read the bill, after answers were lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from support.client.buying_bench import buy, connect, plan_for
from support.client.fake_ledger import Posted, rechained
from support.client.fake_vendor import FakeVendor
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized, VendorUnavailable

TEXTS = [f"text {number}" for number in range(120)]


@pytest.fixture
def beside(cache: EmbeddingCache) -> Iterator[EmbeddingCache]:
    """The same file as another process has it open."""
    with EmbeddingCache(cache.path) as opened:
        yield opened


def lose_answers(vendor: FakeVendor, cache: EmbeddingCache, texts: list[str]) -> None:
    """Buy texts, and get none of the answers."""
    plan = plan_for(vendor, cache, [], texts)

    def cut(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadError("cut", request=request)
        return response

    vendor.after = cut
    with connect(vendor) as client, pytest.raises(VendorUnavailable):
        buy(plan, client, cache)
    vendor.after = lambda _request, response: response


def test_an_audit_beside_a_running_purchase_raises_no_alarm(
    vendor: FakeVendor, cache: EmbeddingCache, beside: EmbeddingCache
) -> None:
    """An answer that is on its way is not lost, and a charge made since the first page is left to the next audit."""
    vendor.max_items = 2
    plan = plan_for(vendor, cache, [], TEXTS)

    def take_time(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        time.sleep(0.03 if request.method == "POST" else 0)
        return response

    vendor.after = take_time
    with connect(vendor) as buyer, connect(vendor) as auditor:
        purchase = threading.Thread(target=buy, args=(plan, buyer, cache))
        purchase.start()
        reports = []
        while purchase.is_alive():
            reports.append(audit_bill(auditor, beside))
        purchase.join()
        assert [report.findings.counts for report in reports] == [{}] * len(reports)
        assert len(reports) > 1
        assert audit_bill(auditor, beside).matched_items == len(TEXTS)


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("path", ["/v1/billing/keys", "/v1/billing/summary", "/v1/billing/statement"])
def test_a_purchase_at_any_moment_of_an_audit_raises_no_alarm(
    vendor: FakeVendor, cache: EmbeddingCache, beside: EmbeddingCache, path: str, is_before: bool
) -> None:
    """Another process buys, at a price that has just changed, just before or after the vendor makes an answer."""
    with connect(vendor) as buyer:
        buy(plan_for(vendor, cache, [], TEXTS[:4]), buyer, cache)
    purchases = 0

    def buy_meanwhile(request: httpx.Request) -> None:
        nonlocal purchases
        if request.url.path == path and purchases < 2:
            purchases += 1
            vendor.prices["text"] = (10 + purchases, 20 + purchases)
            with connect(vendor, transport=honest) as buyer:
                buy(plan_for(vendor, cache, [], TEXTS[: 4 + 4 * purchases]), buyer, cache)

    def watch(request: httpx.Request) -> httpx.Response:
        if is_before:
            buy_meanwhile(request)
        response = vendor.handle(request)
        if not is_before:
            buy_meanwhile(request)
        return response

    honest = vendor.transport
    with connect(vendor, transport=httpx.MockTransport(watch)) as auditor:
        for _ in range(3):
            report = audit_bill(auditor, beside, settle_seconds=0)
            assert report.is_clean, report.findings
    assert (purchases, report.matched_items) == (2, 12)


def test_a_ledger_that_grows_faster_than_it_is_read_does_not_keep_an_audit_busy(
    vendor: FakeVendor, cache: EmbeddingCache
) -> None:
    with connect(vendor) as buyer:
        buy(plan_for(vendor, cache, [], TEXTS[:4]), buyer, cache)
    pages = 0

    def grow(request: httpx.Request) -> httpx.Response:
        nonlocal pages
        if request.url.path == "/v1/billing/statement":
            pages += 1
            assert pages < 20
            vendor.post("topup", units=1)
            request.url = request.url.copy_set_param("limit", 2)
        return vendor.handle(request)

    with connect(vendor, transport=httpx.MockTransport(grow)) as auditor:
        report = audit_bill(auditor, cache)
    assert (report.is_clean, report.head_seq, report.matched_items) == (True, 3, 4)


def test_a_key_that_changes_between_the_keys_and_the_statement_raises_no_alarm(
    vendor: FakeVendor, cache: EmbeddingCache
) -> None:
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, [], TEXTS[:2]), client, cache)
    rotated = threading.Event()

    def rotate(request: httpx.Request) -> None:
        if request.url.path == "/v1/billing/statement" and not rotated.is_set():
            rotated.set()
            vendor.rotate_key()

    vendor.before = rotate
    with connect(vendor) as client:
        assert audit_bill(client, cache).is_clean
    assert rotated.is_set()


def test_an_answer_that_does_not_come_in_time_is_lost(vendor: FakeVendor, cache: EmbeddingCache) -> None:
    lose_answers(vendor, cache, TEXTS[:3])
    with connect(vendor) as client:
        before = time.monotonic()
        report = audit_bill(client, cache, settle_seconds=0.3)
        assert time.monotonic() - before >= 0.3
    assert report.findings.counts == {"lost_response": 3}


def test_an_answer_that_comes_while_the_statement_is_read_is_matched(
    vendor: FakeVendor, cache: EmbeddingCache, beside: EmbeddingCache
) -> None:
    lose_answers(vendor, cache, TEXTS[:3])

    def arrive(*_progress: object) -> None:
        with connect(vendor) as buyer:
            buy(plan_for(vendor, cache, [], TEXTS[:3]), buyer, cache)

    with connect(vendor) as client:
        report = audit_bill(client, beside, settle_seconds=0, progress=arrive)
    assert (report.is_clean, report.matched_items, vendor.billed_units) == (True, 3, 3)


def test_a_lost_text_that_was_charged_as_an_image_is_a_price_mismatch(
    vendor: FakeVendor, cache: EmbeddingCache
) -> None:
    """Both prices were agreed to, and no receipt says which one was meant."""
    lose_answers(vendor, cache, TEXTS[:2])

    def as_an_image(history: list[Posted]) -> list[Posted]:
        top_up, charge = history
        dearer = replace(charge.entry, modality="image", price_id=1, unit_price_micro=100, amount_micro=200)
        return rechained([top_up, Posted(dearer, charge.items)])

    vendor.history = as_an_image
    with connect(vendor) as client:
        report = audit_bill(client, cache, settle_seconds=0)
    assert report.findings.counts == {"lost_response": 2, "price_mismatch": 2}


def test_recovery_takes_no_more_items_at_a_time_than_the_vendor_does(vendor: FakeVendor, cache: EmbeddingCache) -> None:
    lose_answers(vendor, cache, TEXTS[:7])
    vendor.max_items = 3
    before = vendor.seen.count("POST /v1/embeddings/replay")
    with connect(vendor) as client:
        report = audit_bill(client, cache, recover=True, settle_seconds=0)
    assert (report.is_clean, report.recovered_items) == (True, 7)
    assert vendor.seen.count("POST /v1/embeddings/replay") - before == 3
    assert vendor.billed_units == 7


def test_a_key_that_may_not_read_the_bill_is_told_so(vendor: FakeVendor, cache: EmbeddingCache) -> None:
    def refuse(request: httpx.Request) -> httpx.Response | None:
        private = request.url.path in ("/v1/billing/summary", "/v1/billing/statement")
        return vendor.problem(403, "forbidden", "this key lacks the scope `billing`") if private else None

    vendor.before = refuse
    with connect(vendor) as client, pytest.raises(NotAuthorized, match="lacks the scope `billing`"):
        audit_bill(client, cache)
