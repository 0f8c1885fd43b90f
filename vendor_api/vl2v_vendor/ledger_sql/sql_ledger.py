"""`domain.ports.Ledger` on SQL: reads in a small thread pool, charges through the one group-commit writer.

Nothing about budgets, heads, keys or prices is remembered between calls, so command line tools and other replicas
may write at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.identity import Modality
from vl2v_contract.records import PublicKey, StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budgets
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, Offer, PaidItem, Price
from vl2v_vendor.domain.ports import AccountTotals, Clock, LedgerHead, Signer
from vl2v_vendor.ledger_sql import reading
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import database_now, writing
from vl2v_vendor.ledger_sql.driver import Driver
from vl2v_vendor.ledger_sql.group_writer import DEADLINE_SECONDS, GroupWriter
from vl2v_vendor.ledger_sql.key_publication import publish_keys
from vl2v_vendor.ledger_sql.reading import read_drift_units, read_ledger_id
from vl2v_vendor.ledger_sql.statements import ChargeStatements

_T = TypeVar("_T")

_READER_THREADS = 4
_AUDIT_THREADS = 2
_AUDIT_DEADLINE_SECONDS = 60.0
_MICRO = 1_000_000
_READ_OR_WRITTEN = "read or written"


class SqlLedger:
    """The ledger of one server process.

    Args:
        engine: Engine from `open_engine`, migrated by `upgrade`. It stays the caller's to dispose of, after `close`.
        signer: Signer whose keys are published at `start`, and each entry names the one in use.
        clock: The time, where the database has no clock of its own (SQLite).
        retention_seconds: Time that vectors are kept for free replay.
    """

    def __init__(self, engine: Engine, *, signer: Signer, clock: Clock, retention_seconds: int) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._retention_micro = retention_seconds * _MICRO
        self._statements = ChargeStatements.compile(engine.dialect)
        self._writer = GroupWriter(engine, self._begin_charging)
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="ledger-reader")
        # Statements take long: they wait for each other, and never keep a sale waiting.
        self._auditors = ThreadPoolExecutor(_AUDIT_THREADS, thread_name_prefix="ledger-auditor")
        self._ledger_id: str | None = None

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

    async def find_key(self, secret_sha256: str) -> ApiKey | None:
        """Return the API key whose secret has this SHA-256 (hex), revoked or expired ones too."""
        return await self._read(lambda connection: reading.read_key_by_secret(connection, secret_sha256))

    async def offer(self, caller: ApiKey, model_id: str, modality: Modality, item_keys: Sequence[str]) -> Offer:
        """Read what a request for these items is admitted by, in one snapshot."""
        return await self._read(
            lambda connection: Offer(
                price=reading.read_price(connection, model_id, modality),
                paid=reading.read_paid(connection, caller.account_id, item_keys, database_now(connection, self._clock)),
                budgets=reading.read_budgets(connection, caller.account_id, caller.id),
            )
        )

    async def find_paid(self, account_id: str, item_keys: Sequence[str]) -> dict[str, PaidItem]:
        """Return those of the keys that were charged before, by key."""
        return await self._read(
            lambda connection: reading.read_paid(
                connection, account_id, item_keys, database_now(connection, self._clock)
            )
        )

    async def budgets(self, account_id: str, api_key_id: str) -> Budgets:
        """Return the account's and the key's budgets now; an admission hint, not a promise."""
        return await self._read(lambda connection: reading.read_budgets(connection, account_id, api_key_id))

    async def price(self, model_id: str, modality: Modality) -> Price:
        """Return the price in force now; raises UnknownModel if there is none."""
        return await self._read(lambda connection: reading.read_price(connection, model_id, modality))

    async def charge(self, order: ChargeOrder) -> Charge:
        """Claim, debit, entry and results in one transaction; returns after the commit. See `ChargeTransaction`."""
        return await self._writer.charge(order)

    async def head(self, account_id: str) -> LedgerHead:
        """Return the end of the account's chain."""
        return await self._read(lambda connection: reading.read_head(connection, account_id))

    async def entries(self, account_id: str, *, after_seq: int, limit: int) -> list[StatementEntry]:
        """Return entries `after_seq + 1 ...` in order, at most `limit`, with their items."""
        return await self._audit(lambda connection: reading.read_entries(connection, account_id, after_seq, limit))

    async def find_entries(self, account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
        """Return the entries of these numbers in order, with their items."""
        return await self._audit(lambda connection: reading.read_listed_entries(connection, account_id, seqs))

    async def find_request(self, account_id: str, request_id: str) -> StatementEntry | None:
        """Return the entry that a request made."""
        return await self._read(lambda connection: reading.read_request(connection, account_id, request_id))

    async def totals(self, account_id: str) -> AccountTotals:
        """Return totals over the account's ledger rows."""
        return await self._audit(lambda connection: reading.read_totals(connection, account_id))

    async def drift_units(self) -> int:
        """Units used in the budgets, less those of charged items that were not refunded; see `read_drift_units`."""
        return await self._audit(read_drift_units)

    async def published_keys(self) -> list[PublicKey]:
        """Return public signing keys, oldest first."""
        return await self._read(reading.read_published_keys)

    async def ping(self) -> None:
        """Check that the ledger can be written; raises LedgerUnavailable if it cannot."""
        await self._writer.probe()

    def _open(self) -> str:
        try:
            with writing(self._engine).begin() as connection:
                publish_keys(connection, self._signer)
                return read_ledger_id(connection)
        except SQLAlchemyError as error:
            raise LedgerUnavailable(
                f"the ledger database cannot be {_READ_OR_WRITTEN} ({type(error).__name__}); try again"
            ) from error

    def _begin_charging(self, driver: Driver) -> ChargeTransaction:
        """Begin the steps of a charge in a transaction; refuse a read-only database at once."""
        now = self._clock.now()
        if self._statements.read_state is not None:
            read_only, now = driver.execute(self._statements.read_state).fetchone()
            if read_only == "on":
                raise LedgerUnavailable("the database is read-only")
        return ChargeTransaction(
            driver,
            self._statements,
            ledger_id=self.ledger_id,
            signing_key_id=self._signer.key_id,
            now=now,
            retention_micro=self._retention_micro,
        )

    async def _audit(self, query: Callable[[Connection], _T]) -> _T:
        return await self._read(query, _AUDIT_DEADLINE_SECONDS, self._auditors)

    async def _read(
        self,
        query: Callable[[Connection], _T],
        seconds: float = DEADLINE_SECONDS,
        pool: ThreadPoolExecutor | None = None,
    ) -> _T:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(pool or self._readers, self._run, query)
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time; try again") from error

    def _run(self, query: Callable[[Connection], _T]) -> _T:
        with reading.snapshot(self._engine, doing=_READ_OR_WRITTEN) as connection:
            return query(connection)
