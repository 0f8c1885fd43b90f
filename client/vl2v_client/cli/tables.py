"""Plans as tables and JSON values; an upper bound says that it is one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.planning.plan_estimate import PlanEstimate
    from vl2v_client.planning.query_plan import QueryPlan


def plan_json(plan: QueryPlan, left_units: int | None) -> dict[str, Any]:
    """Return the plan's totals as JSON values."""
    return {
        "exact": True,
        "ledger_id": plan.teacher.ledger_id,
        "model": plan.teacher.id,
        "images": plan.image_files,
        "views": len(plan.image_keys),
        "chosen_views": len(plan.used_image_keys),
        "texts": len(plan.text_keys),
        "cached": plan.cached,
        "new_queries": plan.units,
        "free_queries": len(plan.missing) - plan.units,
        "amount_micro": plan.amount_micro,
        "currency": plan.currency,
        "seconds": plan.seconds,
        "new_bytes": plan.new_bytes,
        "remaining_units": left_units,
    }


def plan_table(plan: QueryPlan, left_units: int | None) -> Table:
    """Return the plan's totals for people."""
    rows = {
        "images": f"{plan.image_files:,}",
        "views": f"{len(plan.image_keys):,}",
        "texts": f"{len(plan.text_keys):,}",
        "in the cache": f"{plan.cached:,}",
        "to buy": f"{plan.units:,}",
        "price": format_micro(plan.amount_micro, plan.currency),
        "disk": f"{plan.new_bytes / 1e6:,.1f} MB",
    }
    if free := len(plan.missing) - plan.units:
        rows["to buy"] += f", and {free:,} that are charged and whose answers were lost"
    if plan.chosen is not None:
        rows["views"] += f", of which {len(plan.chosen):,} are chosen"
    if plan.seconds is not None and plan.units:
        rows["time"] = f"about {timedelta(seconds=round(plan.seconds))}"
    if left_units is not None:
        short = plan.units - left_units
        rows["budget left"] = f"{left_units:,}" + (f" ({short:,} too few)" if short > 0 else "")
    return _table("plan", plan.teacher.id, rows)


def estimate_json(estimate: PlanEstimate, left_units: int | None) -> dict[str, Any]:
    """Return the upper bound's totals as JSON values, under the names of an exact plan's; `exact` is false."""
    return {
        "exact": False,
        "ledger_id": estimate.texts.teacher.ledger_id,
        "model": estimate.texts.teacher.id,
        "images": estimate.image_files,
        "views": estimate.views,
        "texts": len(estimate.texts.text_keys),
        "new_queries": estimate.units,
        "amount_micro": estimate.amount_micro,
        "currency": estimate.texts.currency,
        "seconds": estimate.seconds,
        "remaining_units": left_units,
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
    return _table("upper bound", estimate.texts.teacher.id, rows)


def _table(what: str, model: str, rows: dict[str, str]) -> Table:
    table = Table(what, model, title=None, box=None, header_style="bold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
