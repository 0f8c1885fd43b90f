"""How `vl2v-client plan` shows an upper bound, so that nobody takes it for a count."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.table import Table

from vl2v_client.cli.bars import plain
from vl2v_client.core.values import format_micro
from vl2v_client.planning.bound import PlanEstimate


def estimate_json(estimate: PlanEstimate, left_units: int | None) -> dict[str, Any]:
    """The bound's totals as JSON values, under the names of an exact plan's; `exact` is false."""
    return {
        "exact": False,
        "ledger_id": estimate.teacher.ledger_id,
        "model": estimate.teacher.id,
        "images": estimate.image_files,
        "views": estimate.views,
        "texts": len(estimate.texts.text_keys),
        "new_queries": estimate.units,
        "amount_micro": estimate.amount_micro,
        "currency": estimate.currency,
        "seconds": estimate.seconds,
        "remaining_units": left_units,
    }


def estimate_table(estimate: PlanEstimate, left_units: int | None) -> Table:
    """The bound's totals for people."""
    table = Table("upper bound", plain(estimate.teacher.id), title=None, box=None, header_style="bold")
    rows = {
        "images": f"{estimate.image_files:,}, of which {estimate.different_files:,} differ",
        "views": f"{estimate.views:,}, none of them rendered",
        "texts": f"{len(estimate.texts.text_keys):,}",
        "to buy": f"at most {estimate.units:,}",
        "price": f"at most {format_micro(estimate.amount_micro, estimate.currency)}",
    }
    if estimate.seconds is not None:
        rows["time"] = f"at most about {timedelta(seconds=round(estimate.seconds))}"
    if left_units is not None:
        rows["budget left"] = f"{left_units:,}"
    rows["not subtracted"] = "views in the cache, and views that look alike: --exact renders all and counts"
    for name, value in rows.items():
        table.add_row(name, value)
    return table
