"""`vl2v-vendor ledger`: checking, copying, restoring and pruning the books, and a month's bill for invoicing."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from cyclopts import App, Parameter

from vl2v_contract.texts import printable
from vl2v_vendor.cli.console import (
    OUTPUT,
    Columns,
    DatabaseOption,
    JsonOption,
    open_books,
    print_line,
    show,
    show_items,
    show_table,
)

if TYPE_CHECKING:
    from vl2v_vendor.ledger_sql.restoration import Acknowledgement
    from vl2v_vendor.ledger_sql.scan import AccountInvoice, InvoiceLine
    from vl2v_vendor.ledger_sql.sqlite_backup import LedgerCopy
    from vl2v_vendor.service.verification import VerificationReport


_SHOWN_PROBLEMS = 20
_CSV_COLUMNS = "month account account_id kind model_id modality unit_price_micro currency units amount_micro amount"

ledger_app = App(name="ledger", help="The append-only ledger.", help_epilogue="Example: `vl2v-vendor ledger verify`")


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger backup /backup/vendor.db`")
def backup(
    file: Annotated[Path, Parameter(help="A new file to write.")],
    /,
    *,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Copy a SQLite ledger beside a server that goes on selling; keep the secrets file with the copy."""
    from vl2v_vendor.ledger_sql.sqlite_backup import back_up, require_sqlite
    from vl2v_vendor.settings import load_settings

    copy = back_up(require_sqlite(load_settings(database_url=database).database, "backup"), file)
    _show_copy(copy, file, {}, as_json=as_json)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger restore /backup/vendor.db`")
def restore(
    file: Annotated[Path, Parameter(help="A file that `ledger backup` wrote.")],
    /,
    *,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Put a backup in the place of a SQLite ledger, server stopped; the replaced database is kept beside it."""
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.keys.secrets import load_secrets
    from vl2v_vendor.ledger_sql.sqlite_backup import require_sqlite
    from vl2v_vendor.ledger_sql.sqlite_backup import restore as restore_copy
    from vl2v_vendor.settings import load_settings

    settings = load_settings(database_url=database)
    path = require_sqlite(settings.database, "restore")
    copy = restore_copy(file, path, load_secrets(settings.secrets_path).signer())
    published = HeadsFile(settings.published_heads_path, copy.ledger_id).read()
    behind = sorted(
        account_id
        for account_id, head in published.items()
        if account_id not in copy.heads or copy.heads[account_id].seq < head.seq
    )
    _show_copy(copy, path, {"behind_account_ids": behind}, as_json=as_json)
    if behind and not as_json:
        print_line(
            f"behind what was signed: {', '.join(behind)}; run `vl2v-vendor ledger acknowledge-restore` before `serve`"
        )


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger acknowledge-restore --note 'disk failed'`")
def acknowledge_restore(
    *,
    note: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="Goes into the ledger, such as what happened.")
    ] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Say by a signed entry per account which published entries a restored ledger has lost; then it can serve."""
    from vl2v_vendor.ledger_sql.restoration import acknowledge

    with open_books(database) as books:
        others = books.heads.others()
        acts = acknowledge(books.accounts, books.heads, note)
    clean = "nothing to acknowledge: the ledger holds all that was signed"
    if others:
        clean = f"{books.heads.ledger_id} is a new ledger beside {', '.join(others)}"
    columns: Columns[Acknowledgement] = {
        "ACCOUNT": "lost.account_id",
        "LAST ENTRY": lambda act: "account is gone" if act.lost.last_seq is None else act.lost.last_seq,
        "PUBLISHED": "lost.published.seq",
        "RESTORED ENTRY": lambda act: None if act.restored is None else act.restored.seq,
    }
    show([asdict(act) for act in acts], partial(show_items, acts, columns) if acts else clean, as_json=as_json)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger verify`")
def verify(*, as_json: JsonOption = False, database: DatabaseOption = None) -> int:
    """Recompute every hash chain and every sum; exit code 1 if anything does not add up."""
    from vl2v_vendor.ledger_sql.reading import snapshot
    from vl2v_vendor.ledger_sql.restoration import find_lost
    from vl2v_vendor.ledger_sql.scan import verify_ledger

    with open_books(database) as books:
        with snapshot(books.engine) as connection:
            report = verify_ledger(connection)
        for other in books.heads.others():
            report.add(None, None, "another_ledger", f"{other} has signed, and this database is not it")
        for lost in find_lost(books.engine, books.heads.read()):
            report.add(lost.account_id, lost.published.seq, "published_entry_lost", "signed, and not in the ledger")
    show({"clean": report.clean, **asdict(report)}, partial(_show_report, report), as_json=as_json)
    return 0 if report.clean else 1


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger sign-entries`")
def sign_entries(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Sign entries that a server of an older version made beside this one; look at `ledger verify` before."""
    with open_books(database, posts=True) as books:
        signed = books.accounts.sign_entries()
    columns = {"ACCOUNT": itemgetter(0), "ENTRY": itemgetter(1), "HASH": itemgetter(2)}
    nothing = "every account's last entry is signed already"
    show(signed, partial(show_items, signed, columns) if signed else nothing, as_json=as_json)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger prune`")
def prune(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Delete vectors that are past their retention; what was paid stays paid."""
    from vl2v_vendor.ledger_sql.sql_ledger import prune_results

    with open_books(database) as books:
        pruned = prune_results(books.engine, books.clock)
    show({"pruned": pruned}, f"{pruned} vectors pruned", as_json=as_json)


def _show_report(report: VerificationReport) -> None:
    from vl2v_vendor.service.verification import MAX_PROBLEMS

    checked = f"accounts {report.accounts}, entries {report.entries}, items {report.items}"
    for account_id, seq in report.unsigned_before.items():
        print_line(
            f"{account_id}: of an older version, {'not signed yet' if seq is None else f'unsigned before entry {seq}'}"
        )
    if report.clean:
        print_line(f"clean; checked: {checked}")
        return
    print_line(f"problems: {report.problem_count}; checked: {checked}")
    shown = report.problems[:_SHOWN_PROBLEMS]
    show_items(shown, {"ACCOUNT": "account_id", "ENTRY": "seq", "PROBLEM": "code", "DETAIL": "detail"})
    if report.problem_count > len(shown):
        print_line(f"... and {report.problem_count - len(shown)} more; `--json` lists up to {MAX_PROBLEMS}")


def _show_copy(copy: LedgerCopy, file: Path, more: Mapping[str, object], *, as_json: bool) -> None:
    """Show what a copy holds, and `more` of it as JSON."""
    document = {
        "ledger_id": copy.ledger_id,
        "heads": {account_id: asdict(head) for account_id, head in copy.heads.items()},
        "replaced": None if copy.replaced is None else str(copy.replaced),
        **more,
    }

    def show_heads() -> None:
        print_line(f"{file}: ledger {copy.ledger_id}, {len(copy.heads)} accounts")
        if copy.replaced is not None:
            print_line(f"the replaced database is {copy.replaced}")
        rows = [[account_id, head.seq, head.entry_hash] for account_id, head in copy.heads.items()]
        show_table(["ACCOUNT", "LAST ENTRY", "HASH"], rows)

    show(document, show_heads, as_json=as_json)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger export --month 2026-11 --out november.csv`")
def export(
    *,
    month: Annotated[str, Parameter(help="A month in UTC, like 2026-11.")],
    account: Annotated[str | None, Parameter(help="Only this account, by name.")] = None,
    form: Annotated[
        Literal["csv", "json"], Parameter(name="--format", group=OUTPUT, help="JSON has the entries' range too.")
    ] = "csv",
    out: Annotated[Path | None, Parameter(group=OUTPUT, help="A file to write instead of standard output.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Sum a month up for invoicing: per account, model, modality and price, refunds as lines of their own."""
    from vl2v_vendor.ledger_sql.reading import snapshot
    from vl2v_vendor.ledger_sql.scan import month_bounds, read_invoices

    bounds = month_bounds(month)
    with open_books(database) as books:
        account_id = None if account is None else books.accounts.find_account(account).id
        with snapshot(books.engine) as connection, _written(out) as file:
            invoices = read_invoices(connection, bounds, account_id)
            if form == "csv":
                _write_csv(file, month, invoices)
            else:
                _write_json(file, month, books.heads.ledger_id, invoices)


def decimal_amount(amount_micro: int) -> str:
    """Return micro-units as a decimal number with six places, for people: `-1234500` is `-1.234500`."""
    whole, rest = divmod(abs(amount_micro), 1_000_000)
    return f"{'-' if amount_micro < 0 else ''}{whole}.{rest:06d}"


def _write_csv(file: TextIO, month: str, invoices: Iterable[AccountInvoice]) -> None:
    writer = csv.DictWriter(file, _CSV_COLUMNS.split(), lineterminator="\n")
    writer.writeheader()
    for invoice in invoices:
        account = {"account": _as_text(invoice.account_name), "account_id": invoice.account_id}
        for line in invoice.lines:
            writer.writerow({"month": month, **account, **_line_document(line), "model_id": _as_text(line.model_id)})


def _as_text(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula, on one line."""
    name = printable(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _write_json(file: TextIO, month: str, ledger_id: str, invoices: Iterable[AccountInvoice]) -> None:
    """Write one document, an account at a time."""
    file.write(f'{{"v": 1, "ledger_id": {json.dumps(ledger_id)}, "month": "{month}", "accounts": [')
    for number, invoice in enumerate(invoices):
        file.write(",\n" if number else "\n")
        json.dump(_document(invoice), file)
    file.write("\n]}\n")


def _document(invoice: AccountInvoice) -> dict[str, object]:
    amount_micro = sum(line.amount_micro for line in invoice.lines)
    return {
        "account": invoice.account_name,
        "account_id": invoice.account_id,
        "entries": asdict(invoice.entries),
        "lines": [_line_document(line) for line in invoice.lines],
        "units": sum(line.units for line in invoice.lines),
        "amount_micro": amount_micro,
        "amount": decimal_amount(amount_micro),
    }


def _line_document(line: InvoiceLine) -> dict[str, object]:
    return {**asdict(line), "amount": decimal_amount(line.amount_micro)}


@contextmanager
def _written(out: Path | None) -> Iterator[TextIO]:
    """Open standard output, or a file that is whole before it gets its name."""
    from vl2v_vendor.host import durable_file

    if out is None:
        yield sys.stdout
        return
    out = out.resolve()
    if out.exists() and not out.is_file():  # a device or a pipe is written to, not replaced
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    with durable_file(out) as file:
        yield file
