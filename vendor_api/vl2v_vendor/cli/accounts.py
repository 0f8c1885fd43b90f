"""`vl2v-vendor accounts`: customers and their budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from vl2v_contract.identity import MAX_INTEGER
from vl2v_contract.records import Breakdown, SignedHead, StatementEntry
from vl2v_vendor.cli.console import (
    Books,
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    print_line,
    show_items,
    show_json,
    show_table,
    show_time,
)
from vl2v_vendor.cli.keys import keys_entry, show_keys
from vl2v_vendor.domain.accounts import Account
from vl2v_vendor.domain.ports import AccountTotals
from vl2v_vendor.service.key_issue import usual_currency

app = typer.Typer(help="Accounts and their budgets, in queries.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The account's name or id.")]


@app.command()
def create(
    name: NameArgument,
    budget: Annotated[int, typer.Option(help="Queries that the account may spend.")] = 0,
    currency: Annotated[str | None, typer.Option(help="Three letters; default that of the prices.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Open an account."""
    with open_books(database, makes=True, posts=True) as books:
        chosen = currency or usual_currency(books.accounts, books.settings.currency)
        account = books.accounts.create_account(name, budget_units=budget, currency=chosen, request_id=request_id)
    _show(account, as_json=as_json)


@app.command("list")
def list_accounts(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show all accounts."""
    with open_books(database) as books:
        accounts = books.accounts.accounts()
    _show_all(accounts, as_json=as_json)


@app.command()
def show(name: NameArgument, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show an account's budget, keys and bill."""
    with open_books(database) as books:
        account = books.accounts.find_account(name)
        keys, budgets = books.accounts.keys(account), books.accounts.key_budgets(account)
        totals = asyncio.run(_read_totals(books, account))
        now = books.clock.now()
    if as_json:
        keys_shown = [keys_entry(key, budgets.get(key.id)) for key in keys]
        show_json({"account": asdict(account), "keys": keys_shown, "totals": asdict(totals)})
        return
    _show_all([account])
    print_line()
    show_keys(keys, budgets, now)
    print_line()
    _show_totals(totals)


@app.command()
def statement(
    name: NameArgument,
    after_seq: Annotated[int, typer.Option(min=0, max=MAX_INTEGER, help="Begin after this entry.")] = 0,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show an account's ledger, entry by entry; as JSON with every item and the signed head."""
    with open_books(database) as books:
        account = books.accounts.find_account(name)
        entries, head = asyncio.run(_read_statement(books, account, after_seq))
    if as_json:
        show_json({"entries": [asdict(entry) for entry in entries], "signed_head": asdict(head)})
    else:
        _show_entries(entries)


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
    with open_books(database, posts=True) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.top_up(account, units, note=note, request_id=request_id)
    _show(account, as_json=as_json)


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
    with open_books(database, posts=True) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.refund(account, seq, units, note, request_id=request_id)
    _show(account, as_json=as_json)


async def _read_totals(books: Books, account: Account) -> AccountTotals:
    async with books.audit() as audit:
        return await audit.totals(account.id)


async def _read_statement(books: Books, account: Account, after_seq: int) -> tuple[list[StatementEntry], SignedHead]:
    entries: list[StatementEntry] = []
    async with books.audit() as audit:
        while True:
            page = await audit.statement(account.id, after_seq)
            entries += page.entries
            if page.next_after_seq is None:
                return entries, page.signed_head
            after_seq = page.next_after_seq


def _show_entries(entries: Sequence[StatementEntry]) -> None:
    show_items(
        [listed.entry for listed in entries],
        {
            "SEQ": "seq",
            "KIND": "kind",
            "UNITS": "units",
            "AMOUNT": lambda entry: f"{entry.amount_micro} micro-{entry.currency}",
            "MODEL": "model_id",
            "KEY": "api_key_id",
            "REQUEST": "request_id",
            "TIME": lambda entry: show_time(entry.created_at),
            "NOTE": "note",
        },
    )


def _show_totals(totals: AccountTotals) -> None:
    """One line for each group: every block adds up to the total."""
    blocks: tuple[tuple[str, Sequence[Breakdown]], ...] = (
        ("day", totals.by_day),
        ("model", totals.by_model),
        ("endpoint", totals.by_endpoint),
        ("key", totals.by_key),
        ("total", (Breakdown(totals.units, totals.amount_micro, ""),)),
    )
    show_table(
        ["BY", "GROUP", "UNITS", f"AMOUNT (MICRO-{totals.currency})"],
        [[by, group.name, group.units, group.amount_micro] for by, groups in blocks for group in groups],
    )


def _show(account: Account, *, as_json: bool) -> None:
    if as_json:
        show_json(asdict(account))
    else:
        _show_all([account])


def _show_all(accounts: Sequence[Account], *, as_json: bool = False) -> None:
    show_items(
        accounts,
        {
            "ACCOUNT": "name",
            "ID": "id",
            "USED": "budget.used_units",
            "LIMIT": "budget.limit_units",
            "LEFT": "budget.remaining_units",
            "CURRENCY": "currency",
            "SINCE": lambda account: show_time(account.created_at),
        },
        as_json=as_json,
    )
