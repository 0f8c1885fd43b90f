"""`vl2v-client cache import`: purchases of other software come into the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import show
from vl2v_client.cli.options import PURCHASE_OPTIONS, ApiKey, AsJson, takes
from vl2v_client.cli.vendor import notify, open_cache, open_vendor
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.buying.importing import ImportReport


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
    show(asdict(report), _line(report), as_json=as_json)
    if report.failed:
        named = "; ".join(f"{one.name}: {one.detail}" for one in report.failed[:5])
        more = f" and {len(report.failed) - 5:,} more" if len(report.failed) > 5 else ""
        raise DataError(
            f"{len(report.failed):,} recorded items did not come: {named}{more}. All others are in the cache"
        )


def _line(report: ImportReport) -> str:
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
