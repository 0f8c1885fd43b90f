"""`vl2v-client evaluate`: score a finished run's student by domain."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vl2v_client.cli.bars import bars, plain
from vl2v_client.cli.distill import Yes
from vl2v_client.cli.purchase_options import notify, purchase_context
from vl2v_client.cli.vendor_options import (
    DEFAULT_VENDOR_URL,
    ApiKey,
    AsJson,
    CachePath,
    MaxCost,
    MaxQueries,
    ModelId,
    VendorUrl,
    open_cache,
    open_vendor,
)

if TYPE_CHECKING:
    from vl2v_client.recipes.evaluate import RunEvaluation


def evaluate(
    run: Annotated[Path, typer.Argument(help="The --out of a `distill`.")],
    data: Annotated[Path | None, typer.Option("--data", help="Another data set with the same classes.")] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Ask the teacher about the unseen images too: one query each.")
    ] = False,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_queries: MaxQueries = None,
    max_cost: MaxCost = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Score the exported student by domain; with --teacher, beside the zero-shot teacher."""
    from vl2v_client.recipes.evaluate import evaluate_run

    with ExitStack() as stack:
        progress = stack.enter_context(bars(quiet=as_json))
        buying = None
        if teacher:
            buying = purchase_context(
                stack.enter_context(open_vendor(vendor_url, api_key)),
                stack.enter_context(open_cache(cache)),
                model=model,
                max_queries=max_queries,
                max_cost=max_cost,
                yes=yes,
                as_json=as_json,
                progress=progress,
            )
        found = evaluate_run(run, data=data, buying=buying, progress=progress)
    if as_json:
        typer.echo(json.dumps([asdict(score) for score in found.scores]))
        return
    Console().print(_table(found))
    if found.report_updated:
        notify(f"The teacher's row is now in {run / 'report.md'}.")


def _table(found: RunEvaluation) -> Table:
    table = Table("domain", "role", box=None, header_style="bold")
    for column in ("images", "student", "zero-shot teacher"):
        table.add_column(column, justify="right")
    for score in found.scores:
        teacher = "-" if score.teacher is None else f"{score.teacher:.1%}"
        table.add_row(plain(score.domain), score.role, f"{score.images:,}", f"{score.student:.1%}", teacher)
    return table
