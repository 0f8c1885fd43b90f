"""`vl2v-vendor accounts`, `prices` and `log`: customers and their budgets, the price list, and who did what when."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from vl2v_contract.identity import MAX_INTEGER, Modality
from vl2v_vendor.cli.console import (
    Columns,
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    print_line,
    show,
    show_items,
    show_table,
    show_time,
)
from vl2v_vendor.cli.keys import keys_entry, show_keys

if TYPE_CHECKING:
    from vl2v_contract.records import StatementEntry
    from vl2v_vendor.domain.accounts import Account, AdminAct
    from vl2v_vendor.domain.ledger import Price
    from vl2v_vendor.domain.ports import AccountTotals

accounts_app = App(
    name="accounts",
    help="Accounts and their budgets, in queries.",
    help_epilogue="Example: `vl2v-vendor accounts create acme --budget 10000`",
)
prices_app = App(
    name="prices",
    help="Prices per query, in millionths of the currency.",
    help_epilogue="Example: `vl2v-vendor prices set tiny-teacher image 100`",
)

NameArgument = Annotated[str, Parameter(help="The account's name or id.")]
ToEntry = Number(gte=0, lte=MAX_INTEGER)


@accounts_app.command(help_epilogue="Example: `vl2v-vendor accounts create acme --budget 10000`")
def create(
    name: NameArgument,
    /,
    *,
    budget: Annotated[int, Parameter(help="Queries that the account may spend.")] = 0,
    currency: Annotated[str | None, Parameter(help="Three letters; default that of the prices.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Open an account."""
    from vl2v_vendor.service.administration import usual_currency

    with open_books(database, makes=True, posts=True) as books:
        chosen = currency or usual_currency(books.accounts, books.settings.currency)
        account = books.accounts.create_account(name, budget_units=budget, currency=chosen, request_id=request_id)
    show(asdict(account), partial(show_items, [account], _ACCOUNTS), as_json=as_json)


@accounts_app.command(name="list", help_epilogue="Example: `vl2v-vendor accounts list --json`")
def list_accounts(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show all accounts."""
    with open_books(database) as books:
        accounts = books.accounts.accounts()
    show([asdict(account) for account in accounts], partial(show_items, accounts, _ACCOUNTS), as_json=as_json)


@accounts_app.command(name="show", help_epilogue="Example: `vl2v-vendor accounts show acme`")
def show_account(name: NameArgument, /, *, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show an account's budget, keys and bill."""
    with open_books(database) as books:
        account = books.accounts.find_account(name)
        keys, budgets = books.accounts.keys(account.id), books.accounts.key_budgets(account.id)
        totals, now = books.accounts.totals(account.id), books.clock.now()

    def show_blocks() -> None:
        show_items([account], _ACCOUNTS)
        print_line()
        show_keys(keys, budgets, now)
        print_line()
        _show_totals(totals)

    keys_shown = [keys_entry(key, budgets.get(key.id)) for key in keys]
    show({"account": asdict(account), "keys": keys_shown, "totals": asdict(totals)}, show_blocks, as_json=as_json)


@accounts_app.command(help_epilogue="Example: `vl2v-vendor accounts statement acme --after-seq 100`")
def statement(
    name: NameArgument,
    /,
    *,
    after_seq: Annotated[int, Parameter(validator=ToEntry, help="Begin after this entry.")] = 0,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show an account's ledger, entry by entry; as JSON with every item and the signed head."""
    with open_books(database) as books:
        entries, head = books.accounts.statement(books.accounts.find_account(name), after_seq)
    document = {"entries": [asdict(entry) for entry in entries], "signed_head": asdict(head)}
    show(document, partial(show_items, entries, _ENTRIES), as_json=as_json)


@accounts_app.command(help_epilogue="Example: `vl2v-vendor accounts topup acme 5000 --note 'invoice 7'`")
def topup(
    name: NameArgument,
    units: Annotated[int, Parameter(help="Queries to add to the budget.")],
    /,
    *,
    note: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="Goes into the ledger, such as an invoice number.")
    ] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Raise an account's budget; a running server sees it at once."""
    with open_books(database, posts=True) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.top_up(account, units, note=note, request_id=request_id)
    show(asdict(account), partial(show_items, [account], _ACCOUNTS), as_json=as_json)


@accounts_app.command(help_epilogue="Example: `vl2v-vendor accounts refund acme 12 100 --note 'sold twice'`")
def refund(
    name: NameArgument,
    seq: Annotated[int, Parameter(help="The charge's number in the account's statement.")],
    units: Annotated[int, Parameter(help="Queries to give back.")],
    /,
    *,
    note: Annotated[str, Parameter(allow_leading_hyphen=True, help="The reason; goes into the ledger.")],
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Give queries of a charge back; the items stay paid and can still be replayed."""
    with open_books(database, posts=True) as books:
        account = books.accounts.find_account(name)
        account = books.accounts.refund(account, seq, units, note, request_id=request_id)
    show(asdict(account), partial(show_items, [account], _ACCOUNTS), as_json=as_json)


@prices_app.command(name="set", help_epilogue="Example: `vl2v-vendor prices set tiny-teacher image 100`")
def set_price(
    model: Annotated[str, Parameter(help="The model's id.")],
    modality: Annotated[Modality, Parameter(help="What is sold.")],
    unit_price_micro: Annotated[int, Parameter(help="Millionths of the currency per query.")],
    /,
    *,
    currency: Annotated[str | None, Parameter(help="Three letters; default from the settings.")] = None,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Set a price; requests that were quoted the old one are refused, not billed."""
    with open_books(database, makes=True) as books:
        price = books.accounts.set_price(
            model, modality, unit_price_micro, currency or books.settings.currency, request_id=request_id
        )
    line = f"price {price.id}: {price.unit_price_micro} micro-{price.currency} per {price.modality} of {model}"
    show(asdict(price), line, as_json=as_json)


@prices_app.command(name="list", help_epilogue="Example: `vl2v-vendor prices list --model tiny-teacher`")
def list_prices(
    *,
    model: Annotated[str | None, Parameter(help="Only this model's.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show every version of every price, oldest first."""
    with open_books(database) as books:
        prices = books.accounts.prices(model)
    columns: Columns[Price] = {
        "PRICE": "id",
        "MODEL": "model_id",
        "MODALITY": "modality",
        "MICRO PER QUERY": "unit_price_micro",
        "CURRENCY": "currency",
        "VALID FROM": lambda price: show_time(price.valid_from),
    }
    show([asdict(price) for price in prices], partial(show_items, prices, columns), as_json=as_json)


def log(
    *,
    account: Annotated[str | None, Parameter(help="Only acts that concern this account.")] = None,
    after_id: Annotated[int, Parameter(validator=ToEntry, help="Begin after this act.")] = 0,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show the acts of the staff, from the command line and over HTTP, newest last."""
    with open_books(database) as books:
        owner = None if account is None else books.accounts.find_account(account)
        acts = books.accounts.acts(after_id=after_id, limit=MAX_INTEGER, account=owner)
    columns: Columns[AdminAct] = {
        "ID": "id",
        "TIME": lambda act: show_time(act.created_at),
        "ACTOR": "actor",
        "ACT": "act",
        "ACCOUNT": "account_id",
        "REQUEST": "request_id",
        "PARAMETERS": lambda act: json.dumps(act.parameters, ensure_ascii=False),
    }
    show([asdict(act) for act in acts], partial(show_items, acts, columns), as_json=as_json)


_ENTRIES: Columns[StatementEntry] = {
    "SEQ": "entry.seq",
    "KIND": "entry.kind",
    "UNITS": "entry.units",
    "AMOUNT": lambda listed: f"{listed.entry.amount_micro} micro-{listed.entry.currency}",
    "MODEL": "entry.model_id",
    "KEY": "entry.api_key_id",
    "REQUEST": "entry.request_id",
    "TIME": lambda listed: show_time(listed.entry.created_at),
    "NOTE": "entry.note",
}
_ACCOUNTS: Columns[Account] = {
    "ACCOUNT": "name",
    "ID": "id",
    "USED": "budget.used_units",
    "LIMIT": "budget.limit_units",
    "LEFT": "budget.remaining_units",
    "CURRENCY": "currency",
    "SINCE": lambda account: show_time(account.created_at),
}


def _show_totals(totals: AccountTotals) -> None:
    """Show one line for each group: every block adds up to the total."""
    blocks = {"day": totals.by_day, "model": totals.by_model, "endpoint": totals.by_endpoint, "key": totals.by_key}
    rows = [[by, group.name, group.units, group.amount_micro] for by, groups in blocks.items() for group in groups]
    rows.append(["total", "", totals.units, totals.amount_micro])
    show_table(["BY", "GROUP", "UNITS", f"AMOUNT (MICRO-{totals.currency})"], rows)
