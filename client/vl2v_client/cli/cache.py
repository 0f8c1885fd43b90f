"""`vl2v-client cache`: what was bought is counted, checked, and joined by what other software bought."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Column

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import plain_table, show
from vl2v_client.cli.options import PURCHASE_OPTIONS, ApiKey, AsJson, takes
from vl2v_client.cli.vendor import notify, open_cache, open_vendor
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import CacheError, DataError, UsageError
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.audit.bill import HoldingsReport
    from vl2v_client.buying.importing import ImportReport
    from vl2v_client.cache.store import CacheStats


cache_app = App(
    name="cache",
    help="Look at the cache of bought embeddings, and check it.",
    help_epilogue="Example: `vl2v-client cache stats`",
)


@cache_app.command(help_epilogue="Example: `vl2v-client cache stats`")
@takes(PURCHASE_OPTIONS.only("cache"))
def stats(*, config: RunConfig, as_json: AsJson = False) -> None:
    """Count what the cache holds, by vendor.

    Raises:
        CacheError: There is none.
    """
    with open_cache(config.purchase.cache, must_exist=True) as opened:
        found = opened.stats()
    show({**asdict(found), "path": str(found.path)}, stats_table(found), as_json=as_json)


@cache_app.command(help_epilogue="Example: `vl2v-client cache verify --cache copy.db`")
@takes(PURCHASE_OPTIONS.only("cache"))
def verify(*, config: RunConfig, as_json: AsJson = False) -> None:
    """Check every vector against the hash that was billed, and every receipt's signature. Needs no vendor.

    Raises:
        CacheError: There is no cache, or vectors or receipts are damaged.
    """
    from vl2v_client.audit.bill import verify_holdings

    with open_cache(config.purchase.cache, must_exist=True) as opened, bars(quiet=as_json) as progress:
        report = verify_holdings(opened, progress=progress)
    if as_json or report.is_clean:
        document = {
            "items": report.items,
            "damage": {str(kind): count for kind, count in report.damage.items()},
            "examples": [{"item_key": key, "damage": str(kind)} for key, kind in report.examples],
            "clean": report.is_clean,
        }
        show(document, _holdings_line(report), as_json=as_json)
    if not report.is_clean:
        raise CacheError(_holdings_line(report))


@cache_app.command(name="import", help_epilogue="Example: `vl2v-client cache import bought.jsonl`")
@takes(PURCHASE_OPTIONS.only("vendor_url", "model", "cache"))
def import_purchases(
    *recordings: Annotated[Path, Parameter(help="Recordings: files *.jsonl or *.json, or folders of them.")],
    config: RunConfig,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Bring in what other software bought on this account: receipts and vectors. Costs nothing.

    Raises:
        UsageError: No recording is named.
        DataError: Some recorded items did not come; the others did.
    """
    if not recordings:
        raise UsageError(
            "name the recordings of other software's purchases: files *.jsonl or *.json, or folders of them"
        )
    from vl2v_client.buying import importing
    from vl2v_client.buying.context import PurchaseContext

    terms = config.purchase
    with (
        open_cache(terms.cache) as cache,
        open_vendor(terms.vendor_url, api_key) as vendor,
        bars(quiet=as_json) as progress,
    ):
        context = PurchaseContext(vendor, cache, lambda _plan: None, notify, model=terms.model)
        report = importing.import_purchases(recordings, context, progress=progress)
    show(asdict(report), _import_line(report), as_json=as_json)
    if report.failed:
        named = "; ".join(f"{one.name}: {one.detail}" for one in report.failed[:5])
        more = f" and {len(report.failed) - 5:,} more" if len(report.failed) > 5 else ""
        raise DataError(
            f"{len(report.failed):,} recorded items did not come: {named}{more}. All others are in the cache"
        )


def stats_table(found: CacheStats) -> Group:
    """Return the cache's counts for people."""
    table = plain_table(Column("vendor", overflow="fold"), "paid", "unanswered", "queries billed", "money")
    for vendor in found.vendors:
        money = format_micro(vendor.amount_micro, vendor.currency)
        counts = (vendor.paid_items, vendor.sent_items, vendor.billed_units)
        table.add_row(vendor.ledger_id, *(f"{count:,}" for count in counts), money)
    return Group(f"{found.path}: {found.embeddings:,} embeddings, {found.size_bytes / 1e6:,.1f} MB", table)


def _holdings_line(report: HoldingsReport) -> str:
    if report.is_clean:
        return f"{report.items:,} paid items: every vector and receipt is sound"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.damage.items())
    first = ", ".join(key[:12] for key, _ in report.examples[:3])
    return (
        f"{sum(report.damage.values()):,} of {report.items:,} paid items are damaged ({kinds}; first: {first}): "
        "restore a copy of the cache"
    )


def _import_line(report: ImportReport) -> str:
    line = f"imported {report.items:,} queries that had cost {format_micro(report.amount_micro, report.currency)}"
    if report.known:
        line += f"; {report.known:,} were here already"
    if report.twice:
        line += f"; {report.twice:,} were bought twice: under an Idempotency-Key a repeated request is free"
    if report.unasked:
        line += (
            f"; {report.unasked:,} are images that the vendor has cut to a square, about which no plan asks: send "
            "square images, or pictures at the model's input size"
        )
    return line
