"""`vl2v-client audit` as a command: its table, its JSON and its three exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.client.buying_bench import buy, connect, plan_for
from support.client.client_shell import Result, invoke
from support.client.fake_ledger import Body, rechained
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.audit.audit_report import Difference
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorUnavailable
from vl2v_contract.chain import ChargedItem


class Auditor:
    """Runs the command on one cache and vendor."""

    def __init__(self, vendor: FakeVendor, url: str, path: Path) -> None:
        self._vendor = vendor
        self._environment = {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(path), "COLUMNS": "80"}
        self.path = path

    def run(self, *words: str, **environment: str) -> Result:
        result = invoke(["audit", *words], {**self._environment, **environment})
        assert result.exception is None, result.exception
        return result

    def json(self, *words: str, **environment: str) -> tuple[int, Any]:
        result = self.run("--json", *words, **environment)
        return result.exit_code, json.loads(result.stdout)

    def buy(self, count: int, *, loses_answers: bool = False) -> None:
        def cut(request: httpx.Request, response: httpx.Response) -> httpx.Response:
            if request.method == "POST":
                raise httpx.ReadError("cut", request=request)
            return response

        with EmbeddingCache(self.path) as cache, connect(self._vendor) as client:
            plan = plan_for(self._vendor, cache, [], [f"text {number}" for number in range(count)])
            if not loses_answers:
                buy(plan, client, cache)
                return
            self._vendor.after = cut
            with pytest.raises(VendorUnavailable):
                buy(plan, client, cache)
            self._vendor.after = lambda _request, response: response


@pytest.fixture
def auditor(vendor: FakeVendor, tmp_path: Path) -> Iterator[Auditor]:
    with served(vendor) as url:
        yield Auditor(vendor, url, tmp_path / "client.db")


def test_clean_books_end_with_0(auditor: Auditor) -> None:
    auditor.buy(5)
    code, report = auditor.json()
    assert (code, report["exit_code"], report["clean"], report["matched"], report["units"]) == (0, 0, True, 5, 5)
    assert report["differences"] == dict.fromkeys(map(str, Difference), 0)
    shown = auditor.run()
    assert (shown.exit_code, "both books agree" in shown.stdout) == (0, True)


def test_a_lost_answer_ends_with_1_and_is_recovered_free(vendor: FakeVendor, auditor: Auditor) -> None:
    auditor.buy(3, loses_answers=True)
    code, report = auditor.json()
    assert (code, report["differences"]["lost_response"], report["matched"]) == (1, 3, 0)
    assert "--recover" in auditor.run().stdout
    billed = vendor.billed_units
    code, report = auditor.json("--recover")
    assert (code, report["recovered"], report["matched"], report["clean"]) == (0, 3, 3, True)
    assert vendor.billed_units == billed == 3
    assert auditor.json()[0] == 0


def test_an_answer_that_the_vendor_no_longer_keeps_stays_a_difference(vendor: FakeVendor, auditor: Auditor) -> None:
    auditor.buy(3, loses_answers=True)
    vendor.paid.clear()
    code, report = auditor.json("--recover")
    assert (code, report["recovered"], report["differences"]["lost_response"]) == (1, 0, 3)


def test_a_lie_ends_with_1_and_is_named(vendor: FakeVendor, auditor: Auditor) -> None:
    auditor.buy(5)
    vendor.history = lambda history: rechained([*history, history[-1]])
    code, report = auditor.json()
    assert (code, report["clean"], report["differences"]["duplicate_item"]) == (1, False, 5)
    assert {example["class"] for example in report["examples"]} == {"duplicate_item"}
    assert "ask for a refund" in auditor.run().stdout


def other_protocol(path: str, body: Body) -> Body:
    return {"hello": "world"} if path.endswith("/statement") else body


def no_keys(path: str, body: Body) -> Body:
    return body | {"keys": []} if path.endswith("/keys") else body


@pytest.mark.parametrize("lie", [other_protocol, no_keys])
def test_what_cannot_be_verified_ends_with_2(vendor: FakeVendor, auditor: Auditor, lie: Any) -> None:
    auditor.buy(5)
    vendor.lie = lie
    code, report = auditor.json()
    assert (code, report["clean"], report["exit_code"]) == (2, False, 2)
    shown = auditor.run()
    assert shown.exit_code == 2
    assert shown.stderr.lstrip().startswith("could not verify: ")
    assert report["error"] in shown.stderr.replace("\n", " ")


def test_a_refused_key_a_silent_vendor_and_a_damaged_cache_end_with_2(auditor: Auditor, tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_text("junk " * 400)
    for environment in ({"VL2V_API_KEY": "vl2v_wrong"}, {"VL2V_CACHE": str(junk)}, {"VL2V_API_KEY": "wrong"}):
        code, report = auditor.json(**environment)
        assert (code, report["exit_code"]) == (2, 2)
        assert report["error"]
    assert auditor.run(VL2V_VENDOR_URL="nowhere").exit_code == 2


def test_the_tables_fit_a_terminal_and_cannot_command_it(vendor: FakeVendor, auditor: Auditor) -> None:
    auditor.buy(5)
    item = ChargedItem("a" * 64, "b" * 64, 1)
    vendor.post("charge", 1, [item], "text", api_key_id="key_\x1b[2J[red]colleague[/]")
    vendor.post("charge", 1, [ChargedItem("c" * 64, "d" * 64, 1)], "text", currency="\x1b]0;title\x07", price_id=7)
    shown = auditor.run()
    assert shown.exit_code == 1
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "[red]colleague[/]" in shown.stdout
    assert not {letter for letter in shown.stdout if not letter.isprintable()} - {"\n"}
