"""`vl2v-client evaluate`: score a finished run's student by domain."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import COMMON, PURCHASE_OPTIONS, ApiKey, AsJson, Named, Yes, run_config, takes
from vl2v_client.cli.vendor import notify, open_purchase

if TYPE_CHECKING:
    from vl2v_client.recipes.evaluate import RunEvaluation


@takes(PURCHASE_OPTIONS.only("vendor_url", "model", "cache", "max_queries", "max_cost"))
def evaluate(
    run: Annotated[Path, Parameter(help="Folder of a `distill`.")],
    /,
    *,
    named: Named,
    data: Annotated[Path | None, Parameter(group=COMMON, help="Another data set with the same classes.")] = None,
    teacher: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Ask the teacher about the unseen images too: a query each."),
    ] = False,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Score the exported student by domain; with --teacher, beside the zero-shot teacher."""
    from vl2v_client.recipes.evaluate import evaluate_run

    if teacher:
        with open_purchase(run_config(named).purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
            found = evaluate_run(run, data=data, context=context, progress=progress)
    else:
        with bars(quiet=as_json) as progress:
            found = evaluate_run(run, data=data, context=None, progress=progress)
    if as_json:
        write_json([asdict(score) for score in found.scores])
        return
    PlainConsole().print(_table(found))
    if found.report_updated:
        notify(f"The teacher's row is now in {run / 'report.md'}.")


def _table(found: RunEvaluation) -> Table:
    table = Table("domain", "role", box=None, header_style="bold")
    for column in ("images", "student", "zero-shot teacher"):
        table.add_column(column, justify="right")
    for score in found.scores:
        teacher = "-" if score.teacher is None else f"{score.teacher:.1%}"
        table.add_row(score.domain, score.role, f"{score.images:,}", f"{score.student:.1%}", teacher)
    return table
