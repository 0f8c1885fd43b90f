"""`vl2v-client buy`: buy what a run needs and the cache lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import PURCHASING_OPTIONS, ApiKey, AsJson, ConfigFile, Named, Yes, run_config, takes
from vl2v_client.cli.vendor import open_purchase
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.buying.buyer import PurchaseReport


@takes(*PURCHASING_OPTIONS)
def buy(
    *, named: Named, config: ConfigFile = None, api_key: ApiKey = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Buy the embeddings that the cache lacks. Run again after any interruption: nothing is paid twice."""
    from vl2v_client.recipes.plan import buy as buy_run

    run = run_config(named, config)
    with open_purchase(run.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
        report = buy_run(run, context, progress=progress)
    if as_json:
        write_json(purchase_json(report))
    else:
        PlainConsole().print(purchase_line(report))


def purchase_json(report: PurchaseReport) -> dict[str, Any]:
    """Return a purchase as JSON values."""
    return {
        "billed_units": report.billed_units,
        "replayed_units": report.replayed_units,
        "amount_micro": report.amount_micro,
        "currency": report.currency,
        "failed": [{"name": one.name, "code": one.code, "detail": one.detail} for one in report.failed],
        "receipts": [{"seq": one.entry.seq, "entry_hash": one.entry_hash} for one in report.receipts],
    }


def purchase_line(report: PurchaseReport) -> str:
    """Return a purchase in one line."""
    if not report.billed_units + report.replayed_units + len(report.failed):
        return "nothing to buy: every vector is in the cache"
    line = f"bought {report.billed_units:,} queries for {format_micro(report.amount_micro, report.currency)}"
    if report.replayed_units:
        line += f"; {report.replayed_units:,} paid earlier came free"
    if report.failed:
        line += f"; {len(report.failed):,} failed, free"
    return line
