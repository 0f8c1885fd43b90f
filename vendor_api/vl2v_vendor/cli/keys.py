"""`vl2v-vendor keys`: API keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, cast

import typer

from vl2v_vendor.cli.console import (
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    print_line,
    show_items,
    show_json,
    show_time,
)
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, ApiKey, Budget, Scope
from vl2v_vendor.service.key_issue import IssuedKey, KeyRequest, issue_key, usual_currency

app = typer.Typer(help="API keys; their secrets are shown once and stored as hashes.", no_args_is_help=True)


@app.command()
def create(
    account: Annotated[str, typer.Option(help="The account that pays; made with --budget if it is new.")],
    budget: Annotated[int | None, typer.Option(help="Queries that a new account may spend.")] = None,
    key_budget: Annotated[int | None, typer.Option(help="Queries that this key may spend of them.")] = None,
    scopes: Annotated[str, typer.Option(help="Comma-separated: embed, billing, admin.")] = ",".join(
        sorted(DEFAULT_SCOPES, reverse=True)
    ),
    expires: Annotated[float | None, typer.Option(metavar="DAYS", help="Days until it expires.")] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Make an API key, and its account if there is none of this name."""
    with open_books(database, makes=True, posts=True) as books:
        request = KeyRequest(
            account_name=account,
            budget_units=budget,
            currency=usual_currency(books.accounts, books.settings.currency),
            key_budget_units=key_budget,
            scopes=_parse_scopes(scopes),
            expires_days=expires,
            name=name,
            request_id=request_id,
        )
        issued = issue_key(books.accounts, request)
    if as_json:
        show_json({"secret": issued.secret, "key": asdict(issued.key), "account": asdict(issued.account)})
    else:
        _show_issued(issued)


@app.command("list")
def list_keys(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show API keys, without their secrets."""
    with open_books(database) as books:
        owner = None if account is None else books.accounts.find_account(account)
        keys, budgets = books.accounts.keys(owner), books.accounts.key_budgets(owner)
        now = books.clock.now()
    if as_json:
        show_json([keys_entry(key, budgets.get(key.id)) for key in keys])
    else:
        show_keys(keys, budgets, now)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id or prefix.")],
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """End an API key; it stops working at once, on every server."""
    with open_books(database) as books:
        revoked = books.accounts.revoke_key(key, request_id=request_id)
    if as_json:
        show_json(asdict(revoked))
    else:
        print_line(f"{revoked.id} ({revoked.prefix}...) of {revoked.account_name} is revoked")


def keys_entry(key: ApiKey, budget: Budget | None) -> dict[str, object]:
    """A key for a machine; `budget` is null for a key without one of its own."""
    return {**asdict(key), "budget": None if budget is None else asdict(budget)}


def show_keys(keys: Sequence[ApiKey], budgets: Mapping[str, Budget], now: int) -> None:
    """Print keys for people; `budgets` are the keys' own, by key id."""
    show_items(
        keys,
        {
            "KEY": "id",
            "PREFIX": "prefix",
            "ACCOUNT": "account_name",
            "NAME": "name",
            "SCOPES": lambda key: ",".join(sorted(key.scopes)),
            "STATE": lambda key: _state(key, now),
            "LEFT/LIMIT": lambda key: _left(budgets.get(key.id)),
            "CREATED": lambda key: show_time(key.created_at),
            "EXPIRES": lambda key: show_time(key.expires_at),
        },
    )


def _left(budget: Budget | None) -> str | None:
    return None if budget is None else f"{budget.remaining_units}/{budget.limit_units}"


def _parse_scopes(text: str) -> frozenset[Scope]:
    """Return the named scopes; `create_key` refuses unknown ones."""
    return cast("frozenset[Scope]", frozenset(scope.strip() for scope in text.split(",") if scope.strip()))


def _show_issued(issued: IssuedKey) -> None:
    if issued.secret is None:
        print_line(
            f"API key {issued.key.id} was made before under this request id, and its secret was shown then. "
            f"If it is lost: `vl2v-vendor keys revoke {issued.key.id}`, and make another.",
            err=True,
        )
        return
    budget = issued.account.budget
    made = "new account" if issued.account_is_new else "account"
    print_line(
        f"API key {issued.key.id} of {made} {issued.account.name}, "
        f"{budget.remaining_units} of {budget.limit_units} queries left.",
        err=True,
    )
    print_line("Keep it now, it is not shown again:", err=True)
    print_line(issued.secret)


def _state(key: ApiKey, now: int) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"
