"""A month's bill for the invoicing system: integers that add up to the ledger's own sums."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.ledger.ledger_shop import MODEL, FakeClock, Shop, open_shop
from support.vendor.vendor_shell import invoke
from vl2v_contract.records import StatementEntry
from vl2v_vendor.cli.ledger import _as_text, decimal_amount
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ports import AccountTotals
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.scan import month_bounds
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

Export = Callable[..., str]


def exporter(shop: Shop, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Export:
    """Runs `vl2v-vendor ledger export` on the shop's database and returns what it prints."""
    monkeypatch.setattr("vl2v_vendor.keys.secrets.VendorSecrets.signer", lambda _secrets: shop.signer)
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    url = shop.engine.url.render_as_string(hide_password=False)

    def run(*options: str) -> str:
        result = invoke("ledger", "export", "--database", url, *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def export(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Export:
    return exporter(shop, monkeypatch, tmp_path)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def books_of(shop: Shop) -> tuple[AccountTotals, list[StatementEntry]]:
    async def story(opened: SqlLedger) -> tuple[AccountTotals, list[StatementEntry]]:
        entries = await opened.entries(shop.account.id, after_seq=0, limit=100)
        return await opened.totals(shop.account.id), entries

    return shop.run(story)


def sell(shop: Shop) -> None:
    """Charges at two prices, a refund of one, and a second account with no charge."""
    shop.charge(shop.order("a", "b"))
    shop.price_id = shop.set_price(1_234_567)
    shop.charge(shop.order("c", "d", "e"))
    shop.accounts.refund(shop.account, 3, 2, "blurred")
    shop.accounts.create_account("zebra", budget_units=3)


def this_month(shop: Shop) -> str:
    """The month of the last entry: PostgreSQL has a clock of its own."""
    created_at = books_of(shop)[1][-1].entry.created_at
    return f"{datetime.fromtimestamp(created_at / 1e6, tz=UTC):%Y-%m}"


def test_the_lines_add_up_to_the_ledgers_sums(shop: Shop, export: Export) -> None:
    sell(shop)
    totals, _entries = books_of(shop)
    lines = rows(export("--month", this_month(shop)))
    shown = [(line["kind"], line["unit_price_micro"], line["units"], line["amount_micro"]) for line in lines]
    assert shown == [
        ("charge", "100", "2", "200"),
        ("charge", "1234567", "3", "3703701"),
        ("refund", "1234567", "-2", "-2469134"),
    ]
    assert {(line["account"], line["model_id"], line["modality"], line["currency"]) for line in lines} == {
        ("acme", MODEL, "image", "EUR")
    }
    assert [line["amount"] for line in lines] == ["0.000200", "3.703701", "-2.469134"]
    assert sum(int(line["units"]) for line in lines) == totals.units == 3
    assert sum(int(line["amount_micro"]) for line in lines) == totals.amount_micro


def test_the_json_is_tied_to_the_statement(shop: Shop, export: Export) -> None:
    sell(shop)
    totals, entries = books_of(shop)
    document = json.loads(export("--month", this_month(shop), "--format", "json"))
    acme, zebra = document["accounts"]
    assert (document["month"], document["ledger_id"]) == (this_month(shop), entries[0].entry.ledger_id)
    assert acme["entries"] == {"first_seq": 1, "last_seq": 4, "head_hash": entries[-1].entry_hash}
    assert (acme["units"], acme["amount_micro"]) == (totals.units, totals.amount_micro)
    assert (zebra["account"], zebra["lines"], zebra["entries"]["last_seq"]) == ("zebra", [], 1)


def test_one_account_and_a_file(shop: Shop, export: Export, tmp_path: Path) -> None:
    sell(shop)
    out = tmp_path / "invoice.json"
    assert export("--month", this_month(shop), "--format", "json", "--account", "zebra", "--out", str(out)) == ""
    assert [account["account"] for account in json.loads(out.read_text())["accounts"]] == ["zebra"]
    with pytest.raises(NotFound, match="no account nobody"):
        export("--month", this_month(shop), "--account", "nobody", "--out", str(tmp_path / "none.csv"))
    assert not (tmp_path / "none.csv").exists()


def test_a_link_keeps_its_file_and_a_pipe_stays_a_pipe(shop: Shop, export: Export, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    export("--month", "2026-11", "--out", str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        export("--month", "2026-11", "--out", str(pipe))
        assert read.result() == (tmp_path / "real.csv").read_text()
    assert pipe.is_fifo()


def test_no_name_is_a_formula_in_a_spreadsheet(shop: Shop, export: Export) -> None:
    assert _as_text("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert _as_text('acme, "inc"') == 'acme, "inc"'


def test_months_end_at_midnight_utc(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last microsecond of November, and their neighbours; a refund counts in its own month."""
    engine = open_engine(sqlite_url)
    shop = open_shop(engine, budget_units=10)
    clock: FakeClock = shop.clock
    november, december = (_microseconds(2026, month) for month in (11, 12))
    for name, time in {"a": november - 1, "b": november, "c": december - 1, "d": december}.items():
        clock.time = time
        shop.charge(shop.order(name))
    shop.accounts.refund(shop.account, 3, 1, "of November, in December")
    found = {}
    run = exporter(shop, monkeypatch, tmp_path)
    for month in ("2026-10", "2026-11", "2026-12", "2027-01"):
        found[month] = [(line["kind"], line["units"]) for line in rows(run("--month", month))]
    assert found == {
        "2026-10": [("charge", "1")],
        "2026-11": [("charge", "2")],
        "2026-12": [("charge", "1"), ("refund", "-1")],
        "2027-01": [],
    }
    engine.dispose()


def test_the_december_of_a_year_ends_with_it() -> None:
    assert month_bounds("2026-12") == (_microseconds(2026, 12), _microseconds(2027, 1))


@pytest.mark.parametrize("name", ["2026-13", "2026-00", "2026-1", "November", "2026-11-01", "0000-01", "9999-12"])
def test_what_is_no_month_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="like 2026-11"):
        month_bounds(name)


def test_amounts_for_people_are_exact() -> None:
    amounts = {0: "0.000000", 1: "0.000001", -1: "-0.000001", -1_234_500: "-1.234500"}
    amounts[9_007_199_254_740_991] = "9007199254.740991"  # where a float could hold no more digits
    assert {amount: decimal_amount(amount) for amount in amounts} == amounts


def _microseconds(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000_000
