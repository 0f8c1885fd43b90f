"""`domain.ports.Accounts` on SQL; the port says what each act refuses.

Safe beside a running server: an act takes the same locks as a charge.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, insert, text, update

from vl2v_contract.identity import MAX_INTEGER, JSONValue, Modality
from vl2v_contract.records import SignedHead, StatementEntry
from vl2v_vendor.domain.accounts import (
    MAX_KEY_NAME_LENGTH,
    MAX_MODEL_ID_LENGTH,
    MAX_NOTE_LENGTH,
    Account,
    ApiKey,
    Budget,
    Scope,
    check_account_name,
    check_scopes,
    check_text,
    generate_secret,
    secret_prefix,
    secret_sha256,
)
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import MAX_UNIT_PRICE_MICRO, Price
from vl2v_vendor.domain.ports import Clock
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql import account_rows, reading
from vl2v_vendor.ledger_sql.admin_acts import Act, ActInProgress, Outcome, Work, perform, read_acts
from vl2v_vendor.ledger_sql.database import is_postgresql, writing
from vl2v_vendor.ledger_sql.key_publication import ensure_published, publish_keys
from vl2v_vendor.ledger_sql.signatures import SIGN_ENTRIES, sign_heads
from vl2v_vendor.ledger_sql.signed_pages import read_signed_head
from vl2v_vendor.ledger_sql.tables import api_keys, prices
from vl2v_vendor.service.audit import sign_head

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MICRO = 1_000_000
_MAX_LIFETIME_SECONDS = 100 * 366 * 86_400
_PRICES_LOCK = 0x766C3278  # beside the locks of the migrations, of the signing keys and of the admin log


def _reads(query: Callable[Concatenate[Connection, _P], _T]) -> "Callable[Concatenate[SqlAccounts, _P], _T]":
    """Make a method of `SqlAccounts` from a query on the connection of one snapshot."""

    @wraps(query)
    def method(self: "SqlAccounts", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with reading.snapshot(self.engine) as connection:
            return query(connection, *args, **kwargs)

    return method


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlAccounts:
    """Accounts, keys and prices in the ledger's database. Every act is logged, in its own transaction.

    Attributes:
        engine: Engine from `open_engine`, migrated by `upgrade`.
        signer: Signer whose key new entries name.
        clock: The time, where the database has no clock of its own (SQLite).
    """

    engine: Engine = field(kw_only=False)
    signer: SecretSigner
    clock: Clock
    actor: str = "server"
    on_replay: Callable[[], None] | None = None

    accounts = _reads(account_rows.read_accounts)
    acts = _reads(read_acts)
    find_account = _reads(account_rows.read_account)
    key_budgets = _reads(account_rows.read_key_budgets)
    keys = _reads(account_rows.read_keys)
    prices = _reads(reading.read_prices)
    published_keys = _reads(reading.read_published_keys)
    totals = _reads(reading.read_totals)
    _find_key = _reads(account_rows.read_key)

    def statement(self, account: Account, after_seq: int) -> tuple[list[StatementEntry], SignedHead]:
        """Return all entries after `after_seq`, and the signed head; raises WrongSecrets as `publish_keys`."""
        with reading.unavailable("written"), writing(self.engine).begin() as connection:
            publish_keys(connection, self.signer)
        with reading.snapshot(self.engine) as connection:
            entries = reading.read_entries(connection, account.id, after_seq, MAX_INTEGER)
            ledger_id, end = (
                reading.read_ledger_id(connection),
                read_signed_head(connection, self.signer, account.id),
            )
        return entries, sign_head(self.signer, ledger_id, account.id, end, now=self.clock.now())

    def acting_as(self, actor: str, *, on_replay: Callable[[], None] | None = None) -> "SqlAccounts":
        """Return the same accounts, for one member of the staff."""
        return replace(self, actor=actor, on_replay=on_replay)

    def create_account(
        self, name: str, *, budget_units: int, currency: str = "EUR", request_id: str | None = None
    ) -> Account:
        """Open an account; a budget above 0 is its first top-up entry.

        Raises:
            InvalidRequest: The name is taken or malformed, or the budget is out of range.
        """
        check_account_name(name)
        _check_currency(currency)
        if budget_units < 0:
            raise InvalidRequest(f"a budget of {budget_units} queries is below 0")

        def work(act: ActInProgress) -> Outcome:
            account_id = account_rows.insert_account(act, name, currency)
            if budget_units:
                account_rows.post_top_up(act, self.signer, account_id, budget_units, "first budget")
            return {"account_id": account_id}

        parameters: Mapping[str, JSONValue] = {"name": name, "budget_units": budget_units, "currency": currency}
        outcome = self.perform(Act("create_account", parameters, request_id=request_id), work)
        # As it was made, also when that was long ago and the act is tried again.
        return replace(self.find_account(outcome["account_id"]), budget=Budget(budget_units, 0))

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
        """Make an API key and its secret, of which only a hash is stored; None when the key was made before.

        Raises:
            InvalidRequest: There is an unknown scope, no scope, or a name, budget or lifetime out of range.
        """
        check_scopes(scopes)
        check_text("a key's name", name, MAX_KEY_NAME_LENGTH)
        if limit_units is not None and not 0 <= limit_units <= MAX_INTEGER:
            raise InvalidRequest(f"a key budget of {limit_units} queries is out of range")
        if lifetime_seconds is not None and not 0 < lifetime_seconds <= _MAX_LIFETIME_SECONDS:
            raise InvalidRequest(
                f"a key cannot expire after {lifetime_seconds} seconds; give more than 0, and less than 100 years"
            )
        new_id, secret = f"key_{secrets.token_hex(6)}", generate_secret()
        secret_columns = {"prefix": secret_prefix(secret), "secret_sha256": secret_sha256(secret)}
        terms = {"account_id": account.id, "name": name, "scopes": " ".join(sorted(scopes))}

        def work(act: ActInProgress) -> Outcome:
            end = expires_at if lifetime_seconds is None else act.now + lifetime_seconds * _MICRO
            row = {"id": new_id, **secret_columns, **terms, "created_at": act.now, "expires_at": end}
            act.connection.execute(insert(api_keys).values(row))
            if limit_units is not None:
                account_rows.insert_budget(act, account.id, new_id, limit_units)
            return {"api_key_id": new_id, "credential_sha256": secret_sha256(" ".join(secret_columns.values()))}

        parameters: Mapping[str, JSONValue] = {
            "account_id": account.id,
            "scopes": sorted(scopes),
            "limit_units": limit_units,
            "expires_at": expires_at,
            "lifetime_seconds": lifetime_seconds,
            "name": name,
        }
        key_id = self.perform(Act("create_key", parameters, account.id, request_id), work)["api_key_id"]
        return self._find_key(key_id), secret if key_id == new_id else None

    def revoke_key(self, key_id: str, *, request_id: str | None = None) -> ApiKey:
        """End a key, named by its id, its prefix or its whole secret, at once; again changes nothing."""
        found = self._find_key(key_id)

        def work(act: ActInProgress) -> Outcome:
            revoked = update(api_keys).where(api_keys.c.id == found.id, api_keys.c.revoked_at.is_(None))
            act.connection.execute(revoked.values(revoked_at=act.now))
            return {"api_key_id": found.id}

        self.perform(Act("revoke_key", {"api_key_id": found.id}, found.account_id, request_id), work)
        return self._find_key(found.id)

    def top_up(
        self, account: Account, units: int, *, note: str | None = None, request_id: str | None = None
    ) -> Account:
        """Raise the account's limit by `units`, as a ledger entry."""
        check_text("a note", note or "", MAX_NOTE_LENGTH)
        self.perform(
            Act("top_up", {"account_id": account.id, "units": units, "note": note}, account.id, request_id),
            lambda act: {"seq": account_rows.post_top_up(act, self.signer, account.id, units, note).seq},
        )
        return self.find_account(account.id)

    def refund(self, account: Account, seq: int, units: int, note: str, *, request_id: str | None = None) -> Account:
        """Give `units` of the charge entry `seq` back, as a ledger entry."""
        check_text("a note", note, MAX_NOTE_LENGTH)
        parameters: Mapping[str, JSONValue] = {"account_id": account.id, "ref_seq": seq, "units": units, "note": note}
        self.perform(
            Act("refund", parameters, account.id, request_id),
            lambda act: {"seq": account_rows.post_refund(act, self.signer, account.id, seq, units, note).seq},
        )
        return self.find_account(account.id)

    def set_price(
        self, model_id: str, modality: Modality, unit_price_micro: int, currency: str, *, request_id: str | None = None
    ) -> Price:
        """Make a new version of the price, in force at once."""
        check_text("a model's id", model_id, MAX_MODEL_ID_LENGTH)
        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "modality": modality,
            "unit_price_micro": unit_price_micro,
            "currency": currency,
        }
        outcome = self.perform(
            Act("set_price", parameters, request_id=request_id),
            lambda act: asdict(_insert_price(act, model_id, modality, unit_price_micro, currency)),
        )
        return Price(**outcome)

    def ensure_prices(self, model_id: str, wanted: Mapping[Modality, int], currency: str) -> None:
        """Insert a version of each wanted price, by modality, that differs from the one in force."""

        def work(act: ActInProgress) -> Outcome:
            if is_postgresql(act.connection):
                # Two replicas cannot both insert a first price. An advisory lock, since locking the table takes
                # rights to change its rows, which a server need not have.
                act.connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _PRICES_LOCK})
            inserted = []
            for modality, unit_price_micro in wanted.items():
                current = reading.find_price(act.connection, model_id, modality)
                if current is None or (current.unit_price_micro, current.currency) != (unit_price_micro, currency):
                    inserted.append(_insert_price(act, model_id, modality, unit_price_micro, currency).id)
            return {"inserted_price_ids": inserted}

        parameters: Mapping[str, JSONValue] = {
            "model_id": model_id,
            "prices": [list(price) for price in wanted.items()],
            "currency": currency,
        }
        self.perform(Act("ensure_prices", parameters), work)

    def sign_entries(self) -> list[list[str | int]]:
        """Sign what was made without a signature; returns account, number and hash of each entry that is signed now."""
        outcome = self.perform(Act(SIGN_ENTRIES, {}), lambda act: {"heads": sign_heads(act.connection, act.signer)})
        return list(outcome["heads"])

    def perform(self, act: Act, work: Work) -> Outcome:
        """Do an act in the name of the actor, once under its request id; raises as `admin_acts.perform`."""

        def published(in_progress: ActInProgress) -> Outcome:
            ensure_published(in_progress.connection, self.signer)
            return work(in_progress)

        named = replace(act, actor=self.actor)
        return perform(self.engine, self.clock, self.signer, named, published, on_replay=self.on_replay)


def _insert_price(act: ActInProgress, model_id: str, modality: Modality, unit_price_micro: int, currency: str) -> Price:
    """Insert a new version of a price, in force from the commit on."""
    if not 0 <= unit_price_micro <= MAX_UNIT_PRICE_MICRO:
        raise InvalidRequest(
            f"a unit price of {unit_price_micro} micro-units is out of range; give 0 to {MAX_UNIT_PRICE_MICRO}"
        )
    _check_currency(currency)
    row = {
        "model_id": model_id,
        "modality": modality,
        "unit_price_micro": unit_price_micro,
        "currency": currency,
        "valid_from": act.now,
    }
    return Price(*act.connection.execute(insert(prices).values(row).returning(*prices.c)).one())


def _check_currency(currency: str) -> None:
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha() or not currency.isupper():
        raise InvalidRequest(f"`{currency}` is no currency code; use three capital letters such as EUR")
