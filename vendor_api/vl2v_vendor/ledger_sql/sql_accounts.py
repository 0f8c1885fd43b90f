"""`domain.ports.Accounts` on SQL; the port says what each act refuses.

Safe beside a running server: an act takes the same locks as a charge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TypeVar

from sqlalchemy import Connection, Engine, select, update

from vl2v_contract.identity import JSONValue, Modality
from vl2v_vendor.domain.accounts import (
    MAX_MODEL_ID_LENGTH,
    MAX_NOTE_LENGTH,
    Account,
    AdminAct,
    ApiKey,
    Budget,
    Scope,
    check_account_name,
    check_text,
)
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import Clock, Signer
from vl2v_vendor.ledger_sql.account_rows import (
    KeyTerms,
    insert_account,
    insert_key,
    read_account,
    read_accounts,
    read_key,
    read_key_budgets,
    read_keys,
)
from vl2v_vendor.ledger_sql.admin_acts import Act, Outcome, Work, ignore_replay, perform, read_acts
from vl2v_vendor.ledger_sql.entry_posting import PostingContext, post_refund, post_top_up
from vl2v_vendor.ledger_sql.price_list import check_currency, current_price, insert_price, list_prices, lock_prices
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.tables import accounts, api_keys

_T = TypeVar("_T")


class SqlAccounts:
    """Accounts, keys and prices in the ledger's database. Every act is logged, in its own transaction.

    Args:
        engine: Engine from `open_engine`, migrated by `upgrade`.
        signer: Signer whose key new entries name.
        clock: The time, where the database has no clock of its own (SQLite).
        actor: Name of the actor in the log.
        on_replay: Function that is called by an act whose request id was done before.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        signer: Signer,
        clock: Clock,
        actor: str = "server",
        on_replay: Callable[[], None] = ignore_replay,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._actor = actor
        self._on_replay = on_replay

    def acting_as(self, actor: str, *, on_replay: Callable[[], None] = ignore_replay) -> SqlAccounts:
        """Return the same accounts, for one member of the staff."""
        return SqlAccounts(self._engine, signer=self._signer, clock=self._clock, actor=actor, on_replay=on_replay)

    def create_account(
        self, name: str, *, budget_units: int, currency: str = "EUR", request_id: str | None = None
    ) -> Account:
        """Open an account; a budget above 0 is its first top-up entry.

        Raises:
            InvalidRequest: The name is taken or malformed, or the budget is out of range.
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
            account_id = insert_account(connection, name, currency, now)
            if budget_units:
                post_top_up(
                    connection, PostingContext(self._signer, account_id, act_id, now), budget_units, "first budget"
                )
            return {"account_id": account_id}

        parameters: Mapping[str, JSONValue] = {"name": name, "budget_units": budget_units, "currency": currency}
        outcome = self._perform(Act("create_account", parameters, request_id=request_id), work)
        # As it was made, also when that was long ago and the act is tried again.
        return replace(self.find_account(outcome["account_id"]), budget=Budget(budget_units, 0))

    def find_account(self, name: str) -> Account:
        """Return the account of this id or, if no account has it, of this name; raises NotFound if there is none."""
        return self._read(lambda connection: read_account(connection, name))

    def accounts(self) -> list[Account]:
        """Return all accounts by name."""
        return self._read(read_accounts)

    def create_key(
        self,
        account: Account,
        *,
        scopes: frozenset[Scope],
        limit_units: int | None = None,
        expires_at: int | None = None,
        lifetime_seconds: int | None = None,
        name: str = "",
        request_id: str | None = None,
    ) -> tuple[ApiKey, str | None]:
        """Make an API key and its secret, of which only a hash is stored; None when the key was made before."""
        terms = KeyTerms(scopes, limit_units, expires_at, lifetime_seconds, name)
        terms.check()
        secret: str | None = None

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            nonlocal secret
            key_id, secret = insert_key(connection, account.id, terms, now)
            return {"api_key_id": key_id}

        parameters: Mapping[str, JSONValue] = {**asdict(terms), "account_id": account.id, "scopes": sorted(scopes)}
        outcome = self._perform(Act("create_key", parameters, account.id, request_id), work)
        return self._read(lambda connection: read_key(connection, outcome["api_key_id"])), secret

    def keys(self, account: Account | None = None) -> list[ApiKey]:
        """Return the account's API keys, or everybody's, oldest first."""
        return self._read(lambda connection: read_keys(connection, _id_of(account)))

    def key_budgets(self, account: Account | None = None) -> Mapping[str, Budget]:
        """Return the keys' own budgets by key id; a key without one is not there."""
        return self._read(lambda connection: read_key_budgets(connection, _id_of(account)))

    def revoke_key(self, key_id: str, *, request_id: str | None = None) -> ApiKey:
        """End a key, named by its id, its prefix or its whole secret, at once; again changes nothing."""
        found = self._read(lambda connection: read_key(connection, key_id))

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            revoked = update(api_keys).where(api_keys.c.id == found.id, api_keys.c.revoked_at.is_(None))
            connection.execute(revoked.values(revoked_at=now))
            return {"api_key_id": found.id}

        self._perform(Act("revoke_key", {"api_key_id": found.id}, found.account_id, request_id), work)
        return self._read(lambda connection: read_key(connection, found.id))

    def top_up(
        self, account: Account, units: int, *, note: str | None = None, request_id: str | None = None
    ) -> Account:
        """Raise the account's limit by `units`, as a ledger entry."""
        check_text("a note", note or "", MAX_NOTE_LENGTH)

        def work(connection: Connection, act_id: str, now: int) -> Outcome:
            entry = post_top_up(connection, PostingContext(self._signer, account.id, act_id, now), units, note)
            return {"seq": entry.seq}

        parameters: Mapping[str, JSONValue] = {"account_id": account.id, "units": units, "note": note}
        self._perform(Act("top_up", parameters, account.id, request_id), work)
        return self.find_account(account.id)

    def refund(self, account: Account, seq: int, units: int, note: str, *, request_id: str | None = None) -> Account:
        """Give `units` of the charge entry `seq` back, as a ledger entry."""
        check_text("a note", note, MAX_NOTE_LENGTH)

        def work(connection: Connection, act_id: str, now: int) -> Outcome:
            entry = post_refund(connection, PostingContext(self._signer, account.id, act_id, now), seq, units, note)
            return {"seq": entry.seq}

        parameters: Mapping[str, JSONValue] = {"account_id": account.id, "ref_seq": seq, "units": units, "note": note}
        self._perform(Act("refund", parameters, account.id, request_id), work)
        return self.find_account(account.id)

    def set_price(
        self,
        model_id: str,
        modality: Modality,
        unit_price_micro: int,
        currency: str,
        *,
        request_id: str | None = None,
    ) -> Price:
        """Make a new version of the price, in force at once."""
        check_text("a model's id", model_id, MAX_MODEL_ID_LENGTH)

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            return asdict(insert_price(connection, model_id, modality, unit_price_micro, currency, now))

        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "modality": modality,
            "unit_price_micro": unit_price_micro,
            "currency": currency,
        }
        return Price(**self._perform(Act("set_price", parameters, request_id=request_id), work))

    def ensure_prices(self, model_id: str, wanted: Mapping[Modality, int], currency: str) -> None:
        """Insert a version of each wanted price, by modality, that differs from the one in force."""

        def work(connection: Connection, _act_id: str, now: int) -> Outcome:
            lock_prices(connection)
            inserted = []
            for modality, unit_price_micro in wanted.items():
                current = current_price(connection, model_id, modality)
                if current is None or (current.unit_price_micro, current.currency) != (unit_price_micro, currency):
                    inserted.append(insert_price(connection, model_id, modality, unit_price_micro, currency, now).id)
            return {"inserted_price_ids": inserted}

        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "prices": [list(price) for price in wanted.items()],
            "currency": currency,
        }
        self._perform(Act("ensure_prices", parameters), work)

    def prices(self, model_id: str | None = None) -> list[Price]:
        """Return all versions of the prices of one model, or of all, oldest first."""
        return self._read(lambda connection: list_prices(connection, model_id))

    def acts(self, *, after_id: int = 0, limit: int, account: Account | None = None) -> list[AdminAct]:
        """Return logged acts after `after_id` in order, at most `limit`; of one account, if given."""
        return self._read(
            lambda connection: read_acts(connection, after_id=after_id, limit=limit, account_id=_id_of(account))
        )

    def _perform(self, act: Act, work: Work) -> Outcome:
        return perform(self._engine, self._clock, replace(act, actor=self._actor), work, on_replay=self._on_replay)

    def _read(self, query: Callable[[Connection], _T]) -> _T:
        with snapshot(self._engine) as connection:
            return query(connection)


def _id_of(account: Account | None) -> str | None:
    return None if account is None else account.id
