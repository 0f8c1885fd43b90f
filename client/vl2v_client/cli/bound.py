"""How `vl2v-client plan` shows an upper bound, so that nobody takes it for a count."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.table import Table

from vl2v_client.core.values import format_micro
from vl2v_client.planning.bound import QueryBound


def bound_json(bound: QueryBound, left_units: int | None) -> dict[str, Any]:
    """The bound's totals as JSON values, under the names of an exact plan's; `exact` is false."""
    return {
        "exact": False,
        "ledger_id": bound.teacher.ledger_id,
        "model": bound.teacher.id,
        "images": bound.image_files,
        "views": bound.views,
        "texts": len(bound.texts.text_keys),
        "new_queries": bound.units,
        "amount_micro": bound.amount_micro,
        "currency": bound.currency,
        "seconds": bound.seconds,
        "remaining_units": left_units,
    }


def bound_table(bound: QueryBound, left_units: int | None) -> Table:
    """The bound's totals for people."""
    table = Table("upper bound", bound.teacher.id, title=None, box=None, header_style="bold")
    rows = {
        "images": f"{bound.image_files:,}, of which {bound.different_files:,} differ",
        "views": f"{bound.views:,}, none of them rendered",
        "texts": f"{len(bound.texts.text_keys):,}",
        "to buy": f"at most {bound.units:,}",
        "price": f"at most {format_micro(bound.amount_micro, bound.currency)}",
    }
    if bound.seconds is not None:
        rows["time"] = f"at most about {timedelta(seconds=round(bound.seconds))}"
    if left_units is not None:
        rows["budget left"] = f"{left_units:,}"
    rows["not subtracted"] = "views in the cache, and views that look alike: --exact renders all and counts"
    for name, value in rows.items():
        table.add_row(name, value)
    return table
