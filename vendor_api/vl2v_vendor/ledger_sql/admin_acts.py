"""The log of the staff's acts, which also makes them idempotent: an act under a known id is not done again."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from vl2v_contract.identity import JSONValue, canonical_json
from vl2v_vendor.domain.accounts import MAX_REQUEST_ID_LENGTH, Account, AdminAct, check_text
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable
from vl2v_vendor.domain.ports import Clock
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.database import database_now, is_postgresql, writing
from vl2v_vendor.ledger_sql.signatures import SIGN_ENTRIES, are_acts_unsigned, sign_act, sign_heads
from vl2v_vendor.ledger_sql.tables import admin_log

_LOG_LOCK = 0x766C3277  # beside the locks of the migrations and of the signing keys
_MAX_ACTOR_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Act:
    """What is asked for. `parameters` identify the act when it is tried again, and are logged: no secrets."""

    name: str
    parameters: Mapping[str, JSONValue]
    account_id: str | None = None
    request_id: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class ActInProgress:
    """The transaction that does an act, with its request id, the database's time in microseconds, and who signs it."""

    connection: Connection
    request_id: str
    now: int
    signer: SecretSigner


Outcome = Mapping[str, Any]
Work = Callable[[ActInProgress], Outcome]
"""Does an act; returns what is logged as its outcome."""


def perform(
    engine: Engine,
    clock: Clock,
    signer: SecretSigner,
    act: Act,
    work: Work,
    *,
    on_replay: Callable[[], None] | None = None,
) -> Outcome:
    """Do, log and sign an act in one transaction, unless its request id was done before; then return that outcome.

    Raises:
        InvalidRequest: The request id belongs to another act, or cannot be stored.
        LedgerUnavailable: The database cannot be written.
    """
    request_id = act.request_id or make_request_id()
    check_text("a request id", request_id, MAX_REQUEST_ID_LENGTH)
    try:
        parameters = canonical_json(act.parameters).decode("utf-8")
    except ValueError as error:
        raise InvalidRequest(f"a parameter of {act.name} is out of range: {error}") from error
    try:
        with writing(engine).begin() as connection:
            if is_postgresql(connection):  # of two tries at once the second waits for the first
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 0))"), {"id": request_id})
            earlier = _earlier_outcome(connection, request_id, act.name, parameters)
            if earlier is not None:
                if on_replay is not None:
                    on_replay()
                return earlier
            in_progress = ActInProgress(connection, request_id, database_now(connection, clock), signer)
            begin_signing(in_progress)
            outcome = work(in_progress)
            log_act(in_progress, act, outcome)
            return outcome
    except IntegrityError as error:
        raise InvalidRequest(f"the act clashes with an earlier one: {error.orig}") from error
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger database cannot be written ({type(error).__name__}); try again") from error


def read_acts(
    connection: Connection, *, after_id: int = 0, limit: int, account: Account | None = None
) -> list[AdminAct]:
    """Return logged acts `after_id + 1 ...` in order, at most `limit`; of one account, if given."""
    query = select(*(admin_log.c[field.name] for field in fields(AdminAct))).where(admin_log.c.id > after_id)
    if account is not None:
        query = query.where(admin_log.c.account_id == account.id)
    return [
        AdminAct(**{**row._mapping, "parameters": json.loads(row.parameters), "outcome": json.loads(row.outcome)})
        for row in connection.execute(query.order_by(admin_log.c.id).limit(limit))
    ]


def make_request_id() -> str:
    """Make a random id for an act that nobody will try again under its id."""
    return f"adm_{secrets.token_hex(12)}"


def _earlier_outcome(connection: Connection, request_id: str, act: str, parameters: str) -> Outcome | None:
    row = connection.execute(select(admin_log).where(admin_log.c.request_id == request_id)).one_or_none()
    if row is None:
        return None
    if (row.act, row.parameters) != (act, parameters):
        raise InvalidRequest(
            f"request id {request_id} (over HTTP: this `Idempotency-Key`) was used for another act ({row.act}); "
            "give each act one of its own"
        )
    return dict(json.loads(row.outcome))


def log_act(in_progress: ActInProgress, act: Act, outcome: Outcome) -> None:
    """Insert an act that was done into the log, and its signature."""
    connection = in_progress.connection
    if is_postgresql(connection):
        # Acts are committed in the order of their ids, so that whoever pages through the log misses none.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOG_LOCK})
    row = {
        "request_id": in_progress.request_id,
        "parameters": canonical_json(act.parameters).decode("utf-8"),
        "created_at": in_progress.now,
        "act": act.name,
        "account_id": outcome.get("account_id", act.account_id),
        "actor": act.actor and act.actor[:_MAX_ACTOR_LENGTH],
        "outcome": canonical_json(dict(outcome)).decode("utf-8"),
    }
    act_id = connection.execute(insert(admin_log).values(row).returning(admin_log.c.id)).scalar_one()
    sign_act(connection, in_progress.signer, act_id)


def begin_signing(in_progress: ActInProgress) -> None:
    """Sign the ledger of an older version as it is, once: a log without a signature gets an act that names the heads.

    Raises:
        LedgerUnavailable: Signatures were deleted.
    """
    if are_acts_unsigned(in_progress.connection):
        begun = replace(in_progress, request_id=make_request_id())
        log_act(begun, Act(SIGN_ENTRIES, {}), {"heads": sign_heads(begun.connection, begun.signer)})
