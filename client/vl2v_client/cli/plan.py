"""`vl2v-client plan` and `buy`: what a run would buy and what it would cost, and buying it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vl2v_client.cli.console import plain_table, show
from vl2v_client.cli.options import (
    COMMON,
    PURCHASING_OPTIONS,
    ApiKey,
    AsJson,
    ConfigFile,
    Named,
    Yes,
    run_config,
    takes,
)
from vl2v_client.cli.vendor import open_purchase, plan_table
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from rich.table import Table

    from vl2v_client.buying.buyer import PurchaseReport
    from vl2v_client.planning.plan_estimate import PlanEstimate
    from vl2v_client.planning.query_plan import QueryPlan


@takes(*PURCHASING_OPTIONS)
def plan(
    *,
    named: Named,
    exact: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Render and count the views, even of a very large data set."),
    ] = False,
    config: ConfigFile = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what the same options of `distill` would buy: queries, cache hits, price, time and disk. Costs nothing."""
    from vl2v_client.buying.context import remaining_units
    from vl2v_client.planning.query_plan import Limits, QueryPlan
    from vl2v_client.recipes.plan import plan as plan_run

    run = run_config(named, config)
    with open_purchase(run.purchase, api_key, as_json=as_json, yes=False) as (context, progress):
        made = plan_run(run, context, exact=exact, progress=progress)
        left = remaining_units(context.vendor) if api_key else None
    table = plan_table(made, left) if isinstance(made, QueryPlan) else estimate_table(made, left)
    show(plan_json(made, left), table, as_json=as_json)
    made.check_caps(Limits(run.purchase.max_queries, run.purchase.max_cost_micro, left))


@takes(*PURCHASING_OPTIONS)
def buy(
    *, named: Named, config: ConfigFile = None, api_key: ApiKey = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Buy the embeddings that the cache lacks. Run again after any interruption: nothing is paid twice."""
    from vl2v_client.recipes.plan import buy as buy_run

    run = run_config(named, config)
    with open_purchase(run.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
        report = buy_run(run, context, progress=progress)
    show(_purchase_json(report), _purchase_line(report), as_json=as_json)


def plan_json(made: QueryPlan | PlanEstimate, left_units: int | None) -> dict[str, Any]:
    """Return a plan's totals as JSON values; of an upper bound, `exact` is false and some are missing."""
    from vl2v_client.planning.query_plan import QueryPlan

    exact = made if isinstance(made, QueryPlan) else made.texts
    totals: dict[str, Any] = {
        "exact": made is exact,
        "ledger_id": exact.teacher.ledger_id,
        "model": exact.teacher.id,
        "images": made.image_files,
        "new_queries": made.units,
        "texts": len(exact.text_keys),
        "amount_micro": made.amount_micro,
        "currency": exact.currency,
        "seconds": made.seconds,
        "remaining_units": left_units,
    }
    if not isinstance(made, QueryPlan):
        return {**totals, "views": made.views}
    return {
        **totals,
        "views": len(made.image_keys),
        "chosen_views": len(made.used_image_keys),
        "cached": made.cached,
        "free_queries": len(made.missing) - made.units,
        "new_bytes": made.new_bytes,
    }


def estimate_table(estimate: PlanEstimate, left_units: int | None) -> Table:
    """Return the upper bound's totals for people."""
    rows = {
        "images": f"{estimate.image_files:,}, of which {estimate.different_files:,} differ",
        "views": f"{estimate.views:,}, none of them rendered",
        "texts": f"{len(estimate.texts.text_keys):,}",
        "to buy": f"at most {estimate.units:,}",
        "price": f"at most {format_micro(estimate.amount_micro, estimate.texts.currency)}",
    }
    if estimate.seconds is not None:
        rows["time"] = f"at most about {timedelta(seconds=round(estimate.seconds))}"
    if left_units is not None:
        rows["budget left"] = f"{left_units:,}"
    rows["not subtracted"] = "views in the cache, and views that look alike: --exact renders all and counts"
    return plain_table("upper bound", estimate.texts.teacher.id, rows=rows.items())


def _purchase_json(report: PurchaseReport) -> dict[str, Any]:
    return {
        "billed_units": report.billed_units,
        "replayed_units": report.replayed_units,
        "amount_micro": report.amount_micro,
        "currency": report.currency,
        "failed": [{"name": one.name, "code": one.code, "detail": one.detail} for one in report.failed],
        "receipts": [{"seq": one.entry.seq, "entry_hash": one.entry_hash} for one in report.receipts],
    }


def _purchase_line(report: PurchaseReport) -> str:
    if not report.billed_units + report.replayed_units + len(report.failed):
        return "nothing to buy: every vector is in the cache"
    line = f"bought {report.billed_units:,} queries for {format_micro(report.amount_micro, report.currency)}"
    if report.replayed_units:
        line += f"; {report.replayed_units:,} paid earlier came free"
    if report.failed:
        line += f"; {len(report.failed):,} failed, free"
    return line
