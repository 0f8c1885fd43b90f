"""`vl2v-client bill`: what is left and what was spent, as the vendor tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Column

from vl2v_client.cli.console import plain_table, show, stacked
from vl2v_client.cli.options import PURCHASE_OPTIONS, ApiKey, AsJson, takes
from vl2v_client.cli.vendor import open_vendor
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from vl2v_contract.chain import LedgerEntry
    from vl2v_contract.records import Breakdown, Summary


_ENTRIES_SHOWN = 10
_DAYS_SHOWN = 14
_SIGNS = {"refund": "-", "topup": "+"}


@takes(PURCHASE_OPTIONS.only("vendor_url"))
def bill(*, config: RunConfig, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show what is left of the budget, what was spent, and the newest entries, as the vendor tells them.

    `audit` verifies them.
    """
    with open_vendor(config.purchase.vendor_url, api_key) as vendor:
        summary = vendor.summary()
        rows = vendor.entries(max(0, summary.head_seq - _ENTRIES_SHOWN), _ENTRIES_SHOWN)
    entries = [row.entry for row in rows]
    document = {**asdict(summary), "entries": [asdict(entry) for entry in entries]}
    show(document, bill_tables(summary, entries), as_json=as_json)


def bill_tables(summary: Summary, entries: Sequence[LedgerEntry]) -> Group:
    """Return the bill for people."""
    spent = format_micro(summary.total.amount_micro, summary.currency)
    facts = [
        ("queries left", f"{summary.remaining_units:,} of {summary.limit_units:,}"),
        ("spent", f"{summary.total.units:,} queries, {spent}"),
    ]
    own_key = {summary.api_key_id: f"{summary.api_key_id} (this key)"}
    groups = (
        ("day (UTC)", summary.by_day[-_DAYS_SHOWN:]),
        ("API key", summary.by_key),
        ("model", summary.by_model),
    )
    tables = [_groups_table(what, found, summary.currency, own_key) for what, found in groups if found]
    if entries:
        number, *numbers = _numbers("entry", "queries", "amount", "left")
        heading = (number, Column("time (UTC)", no_wrap=True), Column("what", overflow="fold"), *numbers)
        tables.append(plain_table(*heading, rows=map(_entry_row, reversed(entries))))
    return stacked(plain_table("bill", f"account {summary.account_id}", rows=facts), *tables)


def _groups_table(what: str, groups: Sequence[Breakdown], currency: str, names: dict[str, str]) -> Table:
    rows = [
        (names.get(one.name, one.name), f"{one.units:,}", format_micro(one.amount_micro, currency)) for one in groups
    ]
    return plain_table(Column(what, overflow="fold"), *_numbers("queries", "amount"), rows=rows)


def _entry_row(entry: LedgerEntry) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(entry.created_at // 1_000_000, tz=UTC)
    is_sale = entry.kind in ("charge", "refund")
    signed_micro = -entry.amount_micro if entry.kind == "refund" else entry.amount_micro
    return (
        str(entry.seq),
        f"{moment:%Y-%m-%d %H:%M}",
        _describe(entry),
        f"{_SIGNS.get(entry.kind, '')}{entry.units:,}",
        format_micro(signed_micro, entry.currency) if is_sale else "",
        f"{entry.limit_units - entry.used_units:,}",
    )


def _describe(entry: LedgerEntry) -> str:
    if entry.kind == "charge":
        return f"{entry.modality}s"
    what = {"refund": f"refund of {entry.ref_seq}", "topup": "top-up"}.get(entry.kind, entry.kind)
    return f"{what}: {entry.note}" if entry.note else what


def _numbers(*headings: str) -> list[Column]:
    return [Column(heading, justify="right", no_wrap=True) for heading in headings]
