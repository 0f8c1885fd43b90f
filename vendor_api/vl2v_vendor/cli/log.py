"""`vl2v-vendor log`: who did what, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from vl2v_contract.identity import MAX_INTEGER
from vl2v_vendor.cli.console import Books, DatabaseOption, JsonOption, open_books, show_items, show_time
from vl2v_vendor.domain.accounts import Account, AdminAct

_PAGE_ACTS = 1000


def log(
    account: Annotated[str | None, typer.Option(help="Only acts that concern this account.")] = None,
    after_id: Annotated[int, typer.Option(min=0, max=MAX_INTEGER, help="Begin after this act.")] = 0,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show the acts of the staff, from the command line and over HTTP, newest last."""
    with open_books(database) as books:
        owner = None if account is None else books.accounts.find_account(account)
        acts = list(_read(books, owner, after_id))
    show_items(
        acts,
        {
            "ID": "id",
            "TIME": lambda act: show_time(act.created_at),
            "ACTOR": "actor",
            "ACT": "act",
            "ACCOUNT": "account_id",
            "REQUEST": "request_id",
            "PARAMETERS": lambda act: json.dumps(act.parameters, ensure_ascii=False),
        },
        as_json=as_json,
    )


def _read(books: Books, account: Account | None, after_id: int) -> Iterator[AdminAct]:
    while page := books.accounts.acts(after_id=after_id, limit=_PAGE_ACTS, account=account):
        yield from page
        after_id = page[-1].id
