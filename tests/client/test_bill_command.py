"""`vl2v-client bill`: money for people, micro-units for machines, and no more of the statement than it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.client.buying_bench import buy, connect, plan_for
from support.client.client_shell import Result, invoke
from support.client.fake_ledger import Body
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized


@pytest.fixture
def url(vendor: FakeVendor, cache: EmbeddingCache) -> Iterator[str]:
    with connect(vendor) as client:
        for number in range(12):
            buy(plan_for(vendor, cache, [], [f"text {number}"]), client, cache)
    vendor.refund(13, 1)
    with served(vendor) as found:
        yield found


def run(url: str, *words: str, key: str = API_KEY) -> Result:
    return invoke(["bill", *words], {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": key, "COLUMNS": "100"})


def grouped(path: str, body: Body) -> Body:
    if not path.endswith("summary"):
        return body
    groups: dict[str, Any] = {
        "by_day": [{"name": f"2026-11-{day:02}", "units": day, "amount_micro": day * 10} for day in range(1, 31)],
        "by_key": [
            {"name": body["api_key_id"], "units": 3, "amount_micro": 1_500_000},
            {"name": "key_\x1b[2J", "units": 1, "amount_micro": -10},
        ],
        "by_model": [{"name": "ViT-B-16", "units": 4, "amount_micro": 40}],
    }
    return {**body, **groups}


def test_people_see_money_and_the_newest_entries(vendor: FakeVendor, url: str) -> None:
    vendor.lie = grouped
    result = run(url)
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "queries left 9,989 of 10,000" in lines
    assert any("(this key) 3 1.50 EUR" in line for line in lines)
    assert any(r"key_\x1b[2J 1 -0.00001 EUR" in line for line in lines)
    assert any("2026-11-17" in line for line in lines)
    assert not any(line.startswith("2026-11-16") for line in lines)
    entries = [line for line in lines if line.split(" ")[0].isdigit()]
    assert [int(line.split()[0]) for line in entries] == list(range(14, 4, -1))
    assert "refund of 13 -1 -0.00001 EUR 9,989" in entries[0]
    assert "texts 1 0.00001 EUR" in entries[1]


def test_machines_get_micro_units_and_whole_entries(vendor: FakeVendor, url: str) -> None:
    vendor.seen.clear()
    document = json.loads(run(url, "--json").stdout)
    assert (document["remaining_units"], document["total"]) == (9989, {"units": 11, "amount_micro": 110})
    assert [entry["seq"] for entry in document["entries"]] == list(range(5, 15))
    assert document["entries"][0]["amount_micro"] == 10
    assert vendor.seen == ["GET /v1/billing/summary", "GET /v1/billing/statement"]


def test_a_statement_with_more_than_was_asked_for_is_refused(vendor: FakeVendor, url: str) -> None:
    vendor.lie = lambda _path, body: {**body, "entries": body["entries"] * 2} if "entries" in body else body
    assert "a page of 20 entries" in run(url).output


def test_a_key_that_is_none_is_named(url: str) -> None:
    refused = run(url, key="vl2v_other")
    assert isinstance(refused.exception, NotAuthorized)
    assert not refused.stdout
