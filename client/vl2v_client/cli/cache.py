"""`vl2v-client cache`: look at what was bought, and check it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App
from rich.table import Column, Table

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import PURCHASE_OPTIONS, AsJson, Named, run_config, takes
from vl2v_client.cli.vendor import open_cache
from vl2v_client.core.errors import CacheError
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.audit.bill import HoldingsReport
    from vl2v_client.cache.store import CacheStats

cache_app = App(
    name="cache",
    help="Look at the cache of bought embeddings, and check it.",
    help_epilogue="Example: `vl2v-client cache stats`",
)

_CACHE = PURCHASE_OPTIONS.only("cache")


@cache_app.command(help_epilogue="Example: `vl2v-client cache stats`")
@takes(_CACHE)
def stats(*, named: Named, as_json: AsJson = False) -> None:
    """Count what the cache holds, by vendor."""
    with open_cache(run_config(named).purchase.cache) as opened:
        found = opened.stats()
    if as_json:
        write_json({**asdict(found), "path": str(found.path)})
    else:
        PlainConsole().print(stats_table(found))


@cache_app.command(help_epilogue="Example: `vl2v-client cache verify --cache copy.db`")
@takes(_CACHE)
def verify(*, named: Named, as_json: AsJson = False) -> None:
    """Check every vector against the hash that was billed, and every receipt's signature. Needs no vendor."""
    from vl2v_client.audit.bill import verify_holdings

    with open_cache(run_config(named).purchase.cache) as opened, bars(quiet=as_json) as progress:
        report = verify_holdings(opened, progress=progress)
    if as_json:
        write_json(holdings_json(report))
    if not report.is_clean:
        raise CacheError(holdings_line(report))
    if not as_json:
        PlainConsole().print(holdings_line(report))


def stats_table(found: CacheStats) -> Table:
    """Return the cache's counts for people."""
    title = f"{found.path}: {found.embeddings:,} embeddings, {found.size_bytes / 1e6:,.1f} MB"
    table = Table(Column("vendor", overflow="fold"), "paid", "unanswered", "queries billed", "money", title=title)
    for vendor in found.vendors:
        money = format_micro(vendor.amount_micro, vendor.currency)
        counts = (vendor.paid_items, vendor.sent_items, vendor.billed_units)
        table.add_row(vendor.ledger_id, *(f"{count:,}" for count in counts), money)
    return table


def holdings_json(report: HoldingsReport) -> dict[str, object]:
    """Return a check of the cache as JSON values."""
    return {
        "items": report.items,
        "damage": {str(kind): count for kind, count in report.damage.items()},
        "examples": [{"item_key": key, "damage": str(kind)} for key, kind in report.examples],
        "clean": report.is_clean,
    }


def holdings_line(report: HoldingsReport) -> str:
    """Return a check of the cache in one line."""
    if report.is_clean:
        return f"{report.items:,} paid items: every vector and receipt is sound"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.damage.items())
    first = ", ".join(key[:12] for key, _ in report.examples[:3])
    return (
        f"{sum(report.damage.values()):,} of {report.items:,} paid items are damaged ({kinds}; first: {first}): "
        "restore a copy of the cache"
    )
