"""`domain.ports.Accounts` on SQL. Safe beside a running server: it takes the same locks as a charge."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TypeVar

from sqlalchemy import Connection, Engine, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.canonical import MAX_INTEGER, JSONValue
from vl2v_contract.chain import GENESIS_HASH
from vl2v_contract.identity import Modality
from vl2v_vendor.adapters.sql.admin_acts import Act, Outcome, perform
from vl2v_vendor.adapters.sql.entry_posting import Posting, post_refund, post_top_up
from vl2v_vendor.adapters.sql.price_list import check_currency, current_price, insert_price, list_prices, lock_prices
from vl2v_vendor.adapters.sql.rows import ACCOUNT_COLUMNS, KEY_COLUMNS, to_account, to_key
from vl2v_vendor.adapters.sql.tables import accounts, api_keys, budgets
from vl2v_vendor.domain.accounts import (
    Account,
    ApiKey,
    Scope,
    check_account_name,
    check_scopes,
    generate_secret,
    secret_prefix,
    secret_sha256,
)
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable, NotFound
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import Clock, Signer

_T = TypeVar("_T")


class SqlAccounts:
    """Accounts, keys and prices in the ledger's database. Every act is logged, in its own transaction."""

    def __init__(self, engine: Engine, *, signer: Signer, clock: Clock) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock

    def create_account(
        self, name: str, *, budget_units: int, currency: str = "EUR", request_id: str | None = None
    ) -> Account:
        """A new account; a budget above 0 is its first top-up entry.

        Raises:
            InvalidRequest: the name is taken or malformed, or the budget is out of range.
        """
        check_account_name(name)
        check_currency(currency)
        if budget_units < 0:
            raise InvalidRequest(f"a budget of {budget_units} queries is below 0")

        def work(connection: Connection, act_id: str, now: int) -> Outcome:
            if connection.execute(select(accounts.c.id).where(accounts.c.name == name)).first():
                raise InvalidRequest(
                    f"account {name} exists; raise its budget with `vl2v-vendor accounts topup {name} UNITS`"
                )
            account_id = f"acct_{secrets.token_hex(6)}"
            row = {"id": account_id, "name": name, "currency": currency, "created_at": now}
            connection.execute(insert(accounts).values(row))
            _insert_budget(connection, account_id, None, 0, now)
            if budget_units:
                post_top_up(connection, Posting(self._signer, account_id, act_id, now), budget_units, "first budget")
            return {"account_id": account_id}

        parameters: Mapping[str, JSONValue] = {"name": name, "budget_units": budget_units, "currency": currency}
        outcome = self._perform(Act("create_account", parameters, request_id=request_id), work)
        return self._account(outcome["account_id"])

    def find_account(self, name: str) -> Account:
        """The account of this name; raises NotFound with the remedy if there is none."""
        query = _ACCOUNTS.where(accounts.c.name == name)
        row = self._read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFound(
                f"no account {name}; `vl2v-vendor accounts list` shows those there are, "
                f"`vl2v-vendor accounts create {name} --budget UNITS` makes it"
            )
        return to_account(row)

    def accounts(self) -> list[Account]:
        """All accounts by name."""
        rows = self._read(lambda connection: connection.execute(_ACCOUNTS.order_by(accounts.c.name)).all())
        return [to_account(row) for row in rows]

    def create_key(
        self,
        account: Account,
        *,
        scopes: frozenset[Scope],
        limit_units: int | None = None,
        expires_at: int | None = None,
        name: str = "",
    ) -> tuple[ApiKey, str]:
        """A new API key and its secret, of which only a hash is stored.

        Raises:
            InvalidRequest: an unknown scope, no scope, or a budget below 0.
        """
        check_scopes(scopes)
        if limit_units is not None and not 0 <= limit_units <= MAX_INTEGER:
            raise InvalidRequest(f"a key budget of {limit_units} queries is out of range")
        secret = generate_secret()
        key_id = f"key_{secrets.token_hex(6)}"

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            row = {
                "id": key_id,
                "account_id": account.id,
                "name": name,
                "prefix": secret_prefix(secret),
                "secret_sha256": secret_sha256(secret),
                "scopes": " ".join(sorted(scopes)),
                "created_at": now,
                "expires_at": expires_at,
            }
            connection.execute(insert(api_keys).values(row))
            if limit_units is not None:
                _insert_budget(connection, account.id, key_id, limit_units, now)
            return {"api_key_id": key_id}

        parameters: Mapping[str, JSONValue] = {
            "name": name,
            "scopes": sorted(scopes),
            "limit_units": limit_units,
            "expires_at": expires_at,
        }
        self._perform(Act("create_key", parameters, account_id=account.id), work)
        return self._key(key_id), secret

    def keys(self, account: Account | None = None) -> list[ApiKey]:
        """The account's API keys, or everybody's, oldest first."""
        query = _KEYS.order_by(api_keys.c.created_at, api_keys.c.id)
        if account is not None:
            query = query.where(api_keys.c.account_id == account.id)
        return [to_key(row) for row in self._read(lambda connection: connection.execute(query).all())]

    def revoke_key(self, key_id: str) -> ApiKey:
        """End a key, named by its id, its prefix or its whole secret, at once. Revoking it again changes nothing.

        Raises:
            NotFound: there is no such key.
            InvalidRequest: the prefix fits several keys.
        """
        found = self._key(key_id)

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            revoked = update(api_keys).where(api_keys.c.id == found.id, api_keys.c.revoked_at.is_(None))
            connection.execute(revoked.values(revoked_at=now))
            return {"api_key_id": found.id}

        self._perform(Act("revoke_key", {"api_key_id": found.id}, account_id=found.account_id), work)
        return self._key(found.id)

    def top_up(
        self, account: Account, units: int, *, note: str | None = None, request_id: str | None = None
    ) -> Account:
        """Raise the account's limit by `units`, as a ledger entry; raises InvalidRequest if out of range."""

        def work(connection: Connection, act_id: str, now: int) -> Outcome:
            entry = post_top_up(connection, Posting(self._signer, account.id, act_id, now), units, note)
            return {"seq": entry.seq}

        parameters: Mapping[str, JSONValue] = {"account_id": account.id, "units": units, "note": note}
        self._perform(Act("top_up", parameters, account_id=account.id, request_id=request_id), work)
        return self._account(account.id)

    def refund(self, account: Account, seq: int, units: int, note: str, *, request_id: str | None = None) -> Account:
        """Give `units` of the charge entry `seq` back, as a ledger entry.

        Raises:
            NotFound: no charge has this seq.
            InvalidRequest: more than the charge, less earlier refunds.
        """

        def work(connection: Connection, act_id: str, now: int) -> Outcome:
            entry = post_refund(connection, Posting(self._signer, account.id, act_id, now), seq, units, note)
            return {"seq": entry.seq}

        parameters: Mapping[str, JSONValue] = {"account_id": account.id, "ref_seq": seq, "units": units, "note": note}
        self._perform(Act("refund", parameters, account_id=account.id, request_id=request_id), work)
        return self._account(account.id)

    def set_price(self, model_id: str, modality: Modality, unit_price_micro: int, currency: str) -> Price:
        """A new version of the price, in force at once; raises InvalidRequest if out of range."""

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            return asdict(insert_price(connection, model_id, modality, unit_price_micro, currency, now))

        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "modality": modality,
            "unit_price_micro": unit_price_micro,
            "currency": currency,
        }
        return Price(**self._perform(Act("set_price", parameters), work))

    def ensure_prices(self, model_id: str, image_price_micro: int, text_price_micro: int, currency: str) -> None:
        """Insert a version of each price that differs from the one in force."""
        wanted: tuple[tuple[Modality, int], ...] = (("image", image_price_micro), ("text", text_price_micro))

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            lock_prices(connection)
            inserted = []
            for modality, unit_price_micro in wanted:
                current = current_price(connection, model_id, modality)
                if current is None or (current.unit_price_micro, current.currency) != (unit_price_micro, currency):
                    inserted.append(insert_price(connection, model_id, modality, unit_price_micro, currency, now).id)
            return {"inserted_price_ids": inserted}

        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "prices": [list(price) for price in wanted],
            "currency": currency,
        }
        self._perform(Act("ensure_prices", parameters), work)

    def prices(self, model_id: str | None = None) -> list[Price]:
        """All versions of the prices of one model, or of all, oldest first."""
        return self._read(lambda connection: list_prices(connection, model_id))

    def _account(self, account_id: str) -> Account:
        query = _ACCOUNTS.where(accounts.c.id == account_id)
        return to_account(self._read(lambda connection: connection.execute(query).one()))

    def _key(self, name: str) -> ApiKey:
        named = or_(api_keys.c.id == name, api_keys.c.prefix == name, api_keys.c.secret_sha256 == secret_sha256(name))
        rows = self._read(lambda connection: connection.execute(_KEYS.where(named)).all())
        shown = secret_prefix(name)
        if not rows:
            raise NotFound(f"no API key {shown}; `vl2v-vendor keys list` shows those there are")
        if len(rows) > 1:
            raise InvalidRequest(f"{shown} fits {len(rows)} keys; name one by its id, see `vl2v-vendor keys list`")
        return to_key(rows[0])

    def _perform(self, act: Act, work: Callable[[Connection, str, int], Outcome]) -> Outcome:
        return perform(self._engine, self._clock, act, work)

    def _read(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise LedgerUnavailable(
                f"the ledger database cannot be read ({type(error).__name__}); try again"
            ) from error


_ACCOUNTS = (
    select(*ACCOUNT_COLUMNS).join(budgets, budgets.c.account_id == accounts.c.id).where(budgets.c.api_key_id.is_(None))
)
_KEYS = select(*KEY_COLUMNS).join(accounts, accounts.c.id == api_keys.c.account_id)


def _insert_budget(connection: Connection, account_id: str, api_key_id: str | None, limit_units: int, now: int) -> None:
    row = {
        "account_id": account_id,
        "api_key_id": api_key_id,
        "limit_units": limit_units,
        "used_units": 0,
        "last_seq": 0,
        "head_hash": GENESIS_HASH,
        "last_created_at": now,
    }
    connection.execute(insert(budgets).values(row))
