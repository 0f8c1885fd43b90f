"""`vl2v-vendor accounts`: customers and their budgets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vl2v_vendor.cli.books import (
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    show_json,
    show_table,
    show_time,
)
from vl2v_vendor.domain.accounts import Account

app = typer.Typer(help="Accounts and their budgets, in queries.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The account's name.")]


@app.command()
def create(
    name: NameArgument,
    budget: Annotated[int, typer.Option(help="Queries that the account may spend.")] = 0,
    currency: Annotated[str | None, typer.Option(help="Three letters; default from the settings.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Open an account."""
    with open_books(database) as books:
        account = books.accounts.create_account(
            name, budget_units=budget, currency=currency or books.settings.currency, request_id=request_id
        )
    _show([account], as_json=as_json)


@app.command("list")
def list_accounts(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show all accounts."""
    with open_books(database) as books:
        accounts = books.accounts.accounts()
    if as_json:
        show_json([asdict(account) for account in accounts])
    else:
        _show(accounts, as_json=False)


@app.command()
def topup(
    name: NameArgument,
    units: Annotated[int, typer.Argument(help="Queries to add to the budget.")],
    note: Annotated[str | None, typer.Option(help="Goes into the ledger, such as an invoice number.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Raise an account's budget; a running server sees it at once."""
    with open_books(database) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.top_up(account, units, note=note, request_id=request_id)
    _show([account], as_json=as_json)


@app.command()
def refund(
    name: NameArgument,
    seq: Annotated[int, typer.Argument(help="The charge's number in the account's statement.")],
    units: Annotated[int, typer.Argument(help="Queries to give back.")],
    note: Annotated[str, typer.Option(help="The reason; goes into the ledger.")],
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Give queries of a charge back; the items stay paid and can still be replayed."""
    with open_books(database) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.refund(account, seq, units, note, request_id=request_id)
    _show([account], as_json=as_json)


def _show(accounts: list[Account], *, as_json: bool) -> None:
    if as_json:
        show_json(asdict(accounts[0]))
        return
    show_table(
        ["ACCOUNT", "ID", "USED", "LIMIT", "LEFT", "CURRENCY", "SINCE"],
        [
            [
                account.name,
                account.id,
                account.budget.used_units,
                account.budget.limit_units,
                account.budget.remaining_units,
                account.currency,
                show_time(account.created_at),
            ]
            for account in accounts
        ],
    )
