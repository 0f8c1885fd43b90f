"""`vl2v-vendor ledger`: checking the books, copying and exporting them, and pruning what they need not keep."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vl2v_vendor.cli.console import DatabaseOption, JsonOption, open_books, print_line, show_json, show_table
from vl2v_vendor.cli.ledger_export import export
from vl2v_vendor.cli.ledger_files import acknowledge_restore, backup, restore
from vl2v_vendor.keys.published_heads import HeadsFile
from vl2v_vendor.ledger_sql.restoration import find_lost
from vl2v_vendor.ledger_sql.scan import open_scan
from vl2v_vendor.ledger_sql.sql_ledger import prune_results
from vl2v_vendor.service.verification import MAX_PROBLEMS, VerificationReport, verify_ledger

_SHOWN_PROBLEMS = 20

app = typer.Typer(help="The append-only ledger.", no_args_is_help=True)
app.command()(backup)
app.command()(restore)
app.command("acknowledge-restore")(acknowledge_restore)
app.command()(export)


@app.command()
def verify(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Recompute every hash chain and every sum; exit code 1 if anything does not add up."""
    with open_books(database) as books:
        with open_scan(books.engine) as scan:
            ledger_id = scan.ledger_id()
            report = verify_ledger(scan)
        published = HeadsFile(books.settings.published_heads_path, ledger_id).read()
        for lost in find_lost(books.engine, published):
            report.add(lost.account_id, lost.published.seq, "published_entry_lost", "signed, and not in the ledger")
    if as_json:
        show_json({"clean": report.clean, **asdict(report)})
    else:
        _show(report)
    if not report.clean:
        raise typer.Exit(1)


@app.command()
def prune(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Delete vectors that are past their retention; what was paid stays paid."""
    with open_books(database) as books:
        pruned = prune_results(books.engine, books.clock)
    if as_json:
        show_json({"pruned": pruned})
    else:
        print_line(f"{pruned} vectors pruned")


def _show(report: VerificationReport) -> None:
    checked = f"accounts {report.accounts}, entries {report.entries}, items {report.items}"
    if report.clean:
        print_line(f"clean; checked: {checked}")
        return
    print_line(f"problems: {report.problem_count}; checked: {checked}")
    shown = report.problems[:_SHOWN_PROBLEMS]
    show_table(
        ["ACCOUNT", "ENTRY", "PROBLEM", "DETAIL"],
        [[problem.account_id, problem.seq, problem.code, problem.detail] for problem in shown],
    )
    if report.problem_count > len(shown):
        print_line(f"... and {report.problem_count - len(shown)} more; `--json` lists up to {MAX_PROBLEMS}")
