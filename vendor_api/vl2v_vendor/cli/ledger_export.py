"""`vl2v-vendor ledger export`: a month's bill, for the invoicing system."""

from __future__ import annotations

import csv
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from cyclopts import Parameter

from vl2v_contract.texts import printable
from vl2v_vendor.cli.books import open_books
from vl2v_vendor.cli.console import OUTPUT, DatabaseOption

if TYPE_CHECKING:
    from vl2v_vendor.ledger_sql.scan import AccountInvoice, InvoiceLine, Month, SqlScan

_MICRO = 1_000_000


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
    from vl2v_vendor.ledger_sql.scan import Month, open_scan

    of_month = Month.parse(month)
    with open_books(database) as books:
        account_id = None if account is None else books.accounts.find_account(account).id
        with open_scan(books.engine) as scan, _written(out) as file:
            write = _write_csv if form == "csv" else _write_json
            write(file, of_month, scan, account_id)


def decimal_amount(amount_micro: int) -> str:
    """Return micro-units as a decimal number with six places, for people: `-1234500` is `-1.234500`."""
    whole, rest = divmod(abs(amount_micro), _MICRO)
    return f"{'-' if amount_micro < 0 else ''}{whole}.{rest:06d}"


def _write_csv(file: TextIO, month: Month, scan: SqlScan, account_id: str | None) -> None:
    from vl2v_vendor.ledger_sql.scan import InvoiceLine

    columns = ("month", "account", "account_id", *(field.name for field in fields(InvoiceLine)), "amount")
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for invoice in scan.invoices(month, account_id):
        account = {"account": _as_text(invoice.account_name), "account_id": invoice.account_id}
        for line in invoice.lines:
            row = {"month": month.name, **account, **_line_document(line), "model_id": _as_text(line.model_id)}
            writer.writerow(row)


def _as_text(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula, on one line."""
    name = printable(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _write_json(file: TextIO, month: Month, scan: SqlScan, account_id: str | None) -> None:
    """Write one document, an account at a time."""
    file.write(f'{{"v": 1, "ledger_id": {json.dumps(scan.ledger_id())}, "month": "{month.name}", "accounts": [')
    for number, invoice in enumerate(scan.invoices(month, account_id)):
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
    from vl2v_vendor.host import replace_durably

    if out is None:
        yield sys.stdout
        return
    out = out.resolve()
    if out.exists() and not out.is_file():  # a device or a pipe is written to, not replaced
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            yield file
        replace_durably(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
