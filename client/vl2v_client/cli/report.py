"""`vl2v-client report`: the page of a finished run or sweep, or several runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from vl2v_client.cli.console import plain_table, show
from vl2v_client.cli.options import COMMON, AsJson
from vl2v_client.cli.vendor import notify

_COMPARISON = Path("comparison.html")


def report(
    runs: Annotated[
        list[Path],
        Parameter(help="Folder of a finished `distill` or `sweep`; several of `distill` are compared with the first."),
    ],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            group=COMMON,
            show_default=False,
            help=f"Page to write: report.html in the run's folder, or {_COMPARISON} here, if left out.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page of a finished run or sweep again, or compare several runs on one. Costs nothing."""
    from vl2v_client.recipes.reports import compare_runs, rewrite_report

    if len(runs) == 1:
        written = rewrite_report(runs[0], out)
        path = written.page
        show(written.record, _table(written.lines), as_json=as_json)
    else:
        path = out or _COMPARISON
        comparison = compare_runs(runs, path)
        show(comparison.to_json(), _table(comparison.brief()), as_json=as_json)
    if not as_json:
        notify(f"The page is {path}.")


def _table(lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of a name and figures, from its header and rows."""
    (first, *others), *rows = lines
    return plain_table(first, *(Column(name, justify="right") for name in others), rows=rows)
