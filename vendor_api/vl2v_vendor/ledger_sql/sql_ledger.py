"""`domain.ports.Ledger` on SQL: reads in a small thread pool, charges through the one group-commit writer.

Nothing about budgets, heads, keys or prices is remembered between calls, so command line tools and other replicas
may write at any time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import Connection, Engine, delete, func, literal_column, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.identity import Modality
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import ApiKey
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, Offer
from vl2v_vendor.domain.ports import Clock, LedgerHead, SignedEntries
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql import reading
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import checkpoint, database_clock, database_now, identify_files, writing
from vl2v_vendor.ledger_sql.driver import Driver
from vl2v_vendor.ledger_sql.group_writer import DEADLINE_SECONDS, GroupWriter
from vl2v_vendor.ledger_sql.key_publication import publish_keys
from vl2v_vendor.ledger_sql.signatures import require_kept
from vl2v_vendor.ledger_sql.signed_pages import read_signed_entries, read_signed_head
from vl2v_vendor.ledger_sql.tables import results

_P = ParamSpec("_P")
_T = TypeVar("_T")

_READER_THREADS = 4
_AUDIT_THREADS = 2
_AUDIT_DEADLINE_SECONDS = 60.0
_MICRO = 1_000_000
_PRUNED_AT_A_TIME = 1000

_READ_STATE = select(func.current_setting(literal_column("'transaction_read_only'")), database_clock())
"""Whether PostgreSQL takes no writes, and its clock in microseconds."""


def _reads(
    query: Callable[Concatenate[Connection, _P], _T], *, is_audit: bool = False, in_turn: bool = False
) -> "Callable[Concatenate[SqlLedger, _P], Coroutine[Any, Any, _T]]":
    """Make a method of `SqlLedger` from a query on the connection of one snapshot.

    Args:
        query: The query.
        is_audit: Whether it may take long.
        in_turn: Whether the account that is its first argument has one of these at a time.
    """

    @wraps(query)
    async def method(self: "SqlLedger", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        account_id = str(args[0]) if in_turn else None
        return await self._read(lambda connection: query(connection, *args, **kwargs), account_id, is_audit=is_audit)

    return method


class SqlLedger:
    """The ledger of one server process.

    Args:
        engine: Engine from `open_engine`, migrated by `upgrade`. It stays the caller's to dispose of, after `close`.
        signer: Signer whose keys are published at `start`, and each entry names the one in use.
        clock: The time, where the database has no clock of its own (SQLite).
    """

    def __init__(self, engine: Engine, *, signer: SecretSigner, clock: Clock, retention_seconds: int) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._retention_micro = retention_seconds * _MICRO
        self._writer = GroupWriter(engine, self._begin_charging)
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="ledger-reader")
        # Statements, sums and receipts may take long: an account has one at a time, so that others find a thread here.
        self._auditors = ThreadPoolExecutor(_AUDIT_THREADS, thread_name_prefix="ledger-auditor")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ledger_id: str | None = None
        self._files: list[tuple[int, int]] = []

    async def start(self) -> None:
        """Publish the signing keys and start the writer.

        Raises:
            LedgerUnavailable: The database cannot be reached.
            WrongSecrets: The signing keys belong to another database.
        """
        self._ledger_id = await asyncio.to_thread(self._open)
        self._writer.start()

    async def close(self) -> None:
        """Write what is queued and end the threads."""
        await asyncio.to_thread(self._writer.stop)
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._auditors.shutdown)

    @property
    def ledger_id(self) -> str:
        """The vendor's name for ever; known once started.

        Raises:
            LedgerUnavailable: The ledger has not been started.
        """
        if self._ledger_id is None:
            raise LedgerUnavailable("the ledger has not been started")
        return self._ledger_id

    drift_units = _reads(reading.read_drift_units, is_audit=True)
    entries = _reads(reading.read_entries, is_audit=True, in_turn=True)
    find_item = _reads(reading.read_item_seq)
    find_key = _reads(reading.read_key_by_secret)
    list_entries = _reads(reading.read_listing)
    newest_time = _reads(reading.read_newest_time)
    price = _reads(reading.read_price)
    published_keys = _reads(reading.read_published_keys)
    seq_at = _reads(reading.read_seq_at)
    totals = _reads(reading.read_totals, is_audit=True, in_turn=True)

    async def find_entries(self, account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
        """Read the entries of these numbers, for receipts."""
        return await self._read(
            lambda connection: reading.read_listed_entries(connection, self._signer, account_id, seqs),
            account_id,
            is_audit=True,
        )

    async def signed_entries(self, account_id: str, *, after_seq: int, limit: int) -> SignedEntries:
        """Read entries with their signatures, and up to where they are the vendor's own, in one snapshot."""
        return await self._read(
            lambda connection: read_signed_entries(connection, self._signer, account_id, after_seq, limit),
            account_id,
            is_audit=True,
        )

    async def find_request(self, account_id: str, request_id: str) -> StatementEntry | None:
        """Read the entry that a request made, for its receipt."""
        return await self._read(
            lambda connection: reading.read_request(connection, self._signer, account_id, request_id)
        )

    async def head(self, account_id: str) -> LedgerHead:
        """Read the end of the account's chain, to be signed."""
        signed_seq = self._signer.signed_seq(account_id)  # before a sale that is not in the snapshot
        head = await self._read(lambda connection: read_signed_head(connection, self._signer, account_id))
        require_kept(signed_seq, account_id, head.seq)
        return head

    async def offer(self, caller: ApiKey, model_id: str, modality: Modality, item_keys: Sequence[str]) -> Offer:
        """Read what a request for these items is admitted by, in one snapshot."""
        return await self._read(
            lambda connection: Offer(
                price=reading.read_price(connection, model_id, modality),
                paid=reading.read_paid(connection, caller.account_id, item_keys, self._clock),
                budgets=reading.read_budgets(connection, caller.account_id, caller.id),
            )
        )

    async def charge(self, order: ChargeOrder) -> Charge:
        """Claim, debit, entry and results in one transaction; returns after the commit. See `ChargeTransaction`."""
        return await self._writer.charge(order)

    async def ping(self) -> None:
        """Check that the ledger can be written, in the files that were opened.

        Raises:
            LedgerUnavailable: It cannot, or SQLite's file or its write-ahead log was moved away or replaced.
        """
        await self._writer.probe()
        if identify_files(self._engine) != self._files:
            file = self._engine.url.database
            raise LedgerUnavailable(f"{file}, or its log, is not the file that this server writes; stop it, and verify")

    def _open(self) -> str:
        with reading.unavailable("read or written"), writing(self._engine).begin() as connection:
            publish_keys(connection, self._signer)
            ledger_id = reading.read_ledger_id(connection)
            self._files = identify_files(self._engine)
        checkpoint(self._engine)  # or, without its log, this would be a new ledger, of another name
        return ledger_id

    def _begin_charging(self, driver: Driver) -> ChargeTransaction:
        """Begin the steps of a charge in a transaction; refuse a read-only database at once."""
        now = self._clock.now()
        if driver.is_postgresql:
            read_only, now = driver.execute(_READ_STATE).fetchall()[0]
            if read_only == "on":
                raise LedgerUnavailable("the database is read-only")
        return ChargeTransaction(
            driver=driver,
            ledger_id=self.ledger_id,
            signer=self._signer,
            now=now,
            retention_micro=self._retention_micro,
        )

    async def _read(
        self, query: Callable[[Connection], _T], account_id: str | None = None, *, is_audit: bool = False
    ) -> _T:
        loop, pool = asyncio.get_running_loop(), self._auditors if is_audit else self._readers
        turn = nullcontext() if account_id is None else self._turns.setdefault(account_id, asyncio.Lock())
        try:
            async with asyncio.timeout(_AUDIT_DEADLINE_SECONDS if is_audit else DEADLINE_SECONDS), turn:
                return await loop.run_in_executor(pool, self._run, query)
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time; try again") from error

    def _run(self, query: Callable[[Connection], _T]) -> _T:
        with reading.snapshot(self._engine, doing="read or written") as connection:
            return query(connection)


def prune_results(engine: Engine, clock: Clock) -> int:
    """Delete vectors that are past their retention, in short transactions so that charges go on between them.

    What was paid stays paid. Returns the number of vectors.

    Raises:
        LedgerUnavailable: The database cannot be written; what was deleted before stays deleted.
    """
    key = (results.c.account_id, results.c.item_key)
    pruned, count = 0, _PRUNED_AT_A_TIME
    try:
        while count == _PRUNED_AT_A_TIME:
            with writing(engine).begin() as connection:
                now = database_now(connection, clock)
                expired = select(*key).where(results.c.expires_at <= now).limit(_PRUNED_AT_A_TIME)
                count = connection.execute(delete(results).where(tuple_(*key).in_(expired))).rowcount
            pruned += count
    except SQLAlchemyError as error:
        raise LedgerUnavailable(
            f"the ledger database cannot be written ({type(error).__name__}); {pruned} vectors were pruned, try again"
        ) from error
    return pruned
