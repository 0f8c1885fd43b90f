"""`vl2v-vendor keys` and `signing-key`: API keys, and the keys that sign receipts and statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import App, Parameter

from vl2v_vendor.cli.console import (
    Columns,
    DatabaseOption,
    JsonOption,
    RequestIdOption,
    open_books,
    print_line,
    show,
    show_items,
    show_time,
)
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES

if TYPE_CHECKING:
    from vl2v_contract.records import PublicKey
    from vl2v_vendor.domain.accounts import ApiKey, Budget, Scope
    from vl2v_vendor.service.administration import IssuedKey

keys_app = App(
    name="keys",
    help="API keys; their secrets are shown once and stored as hashes.",
    help_epilogue="Example: `vl2v-vendor keys create --account acme --budget 10000`",
)
signing_keys_app = App(
    name="signing-key",
    help="The keys that sign receipts and statements.",
    help_epilogue="Example: `vl2v-vendor signing-key list`",
)


@keys_app.command(help_epilogue="Example: `vl2v-vendor keys create --account acme --budget 10000`")
def create(
    *,
    account: Annotated[str, Parameter(help="The account that pays; made with --budget if it is new.")],
    budget: Annotated[int | None, Parameter(help="Queries that a new account may spend.")] = None,
    key_budget: Annotated[int | None, Parameter(help="Queries that this key may spend of them.")] = None,
    scopes: Annotated[str, Parameter(help="Comma-separated: embed, billing, admin.")] = ",".join(
        sorted(DEFAULT_SCOPES, reverse=True)
    ),
    expires: Annotated[float | None, Parameter(help="Days until it expires.")] = None,
    name: Annotated[str, Parameter(allow_leading_hyphen=True, help="What the key is for.")] = "",
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Make an API key, and its account if there is none of this name."""
    from vl2v_vendor.service.administration import KeyRequest, issue_key, usual_currency

    with open_books(database, makes=True, posts=True) as books:
        request = KeyRequest(
            account_name=account,
            budget_units=budget,
            currency=usual_currency(books.accounts, books.settings.currency),
            key_budget_units=key_budget,
            # `create_key` refuses unknown ones
            scopes=cast("frozenset[Scope]", frozenset(map(str.strip, scopes.split(","))) - {""}),
            expires_days=expires,
            name=name,
            request_id=request_id,
        )
        issued = issue_key(books.accounts, request)
    document = {"secret": issued.secret, "key": asdict(issued.key), "account": asdict(issued.account)}
    show(document, partial(_show_issued, issued), as_json=as_json)


@keys_app.command(name="list", help_epilogue="Example: `vl2v-vendor keys list --account acme`")
def list_keys(
    *,
    account: Annotated[str | None, Parameter(help="Only this account's.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show API keys, without their secrets."""
    with open_books(database) as books:
        owner_id = None if account is None else books.accounts.find_account(account).id
        keys, budgets = books.accounts.keys(owner_id), books.accounts.key_budgets(owner_id)
        now = books.clock.now()
    document = [keys_entry(key, budgets.get(key.id)) for key in keys]
    show(document, partial(show_keys, keys, budgets, now), as_json=as_json)


@keys_app.command(help_epilogue="Example: `vl2v-vendor keys revoke vl2v_Xb3kT9aQ`")
def revoke(
    key: Annotated[str, Parameter(help="The key's id or prefix.")],
    /,
    *,
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """End an API key; it stops working at once, on every server."""
    with open_books(database) as books:
        revoked = books.accounts.revoke_key(key, request_id=request_id)
    show(asdict(revoked), f"{revoked.id} ({revoked.prefix}...) of {revoked.account_name} is revoked", as_json=as_json)


@signing_keys_app.command(name="list", help_epilogue="Example: `vl2v-vendor signing-key list`")
def list_signing_keys(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show the public keys, oldest first, with the times they were in use."""
    with open_books(database) as books:
        published, held = books.accounts.published_keys(), books.accounts.signer.published_keys
    known = {key.key_id for key in published}
    keys = [*published, *(key for key in held if key.key_id not in known)]

    def state(key: PublicKey) -> str:
        if key.key_id not in known:
            return "not published yet"
        return "current" if key.retired_at is None else "replaced"

    columns: Columns[PublicKey] = {
        "KEY": "key_id",
        "PUBLIC KEY": "public_key",
        "STATE": state,
        "IN USE SINCE": lambda key: show_time(key.created_at),
        "UNTIL": lambda key: show_time(key.retired_at),
        "SIGNED BY": "predecessor_id",
    }
    document = [{**asdict(key), "published": key.key_id in known} for key in keys]
    show(document, partial(show_items, keys, columns), as_json=as_json)


@signing_keys_app.command(help_epilogue="Example: `vl2v-vendor signing-key rotate`")
def rotate(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Replace the signing key by a new one, signed by the old one, which stays in the secrets file.

    Old receipts stay valid, and are signed again by the old key when they are asked for. Servers that use this
    secrets file take the new key over within a second, without a restart. Other machines need a copy of the file:
    until they have it they sign with the old key, and answer 503 where they would have to sign with the new one.
    """
    from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish

    with open_books(database) as books:
        path = books.settings.secrets_path
        key = rotate_and_publish(books.engine, path)
    show(asdict(key), f"signing key {key.key_id} replaces {key.predecessor_id}", as_json=as_json)
    if not as_json:
        print_line(f"Back up {path} now, and copy it to every other machine that serves this ledger.", err=True)


def keys_entry(key: ApiKey, budget: Budget | None) -> dict[str, object]:
    """Return a key for a machine; `budget` is null for a key without one of its own."""
    return {**asdict(key), "budget": None if budget is None else asdict(budget)}


def show_keys(keys: Sequence[ApiKey], budgets: Mapping[str, Budget], now: int) -> None:
    """Print keys for people; `budgets` are the keys' own, by key id."""

    def state(key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"

    def left(key: ApiKey) -> str | None:
        budget = budgets.get(key.id)
        return None if budget is None else f"{budget.remaining_units}/{budget.limit_units}"

    show_items(
        keys,
        {
            "KEY": "id",
            "PREFIX": "prefix",
            "ACCOUNT": "account_name",
            "NAME": "name",
            "SCOPES": lambda key: ",".join(sorted(key.scopes)),
            "STATE": state,
            "LEFT/LIMIT": left,
            "CREATED": lambda key: show_time(key.created_at),
            "EXPIRES": lambda key: show_time(key.expires_at),
        },
    )


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
