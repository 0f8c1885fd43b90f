"""Group commit: one thread and one connection write everything that waits, in one transaction, with one fsync.

There is no timer. While a group commits the next one gathers, so the group grows with the load and a lone order
waits for nobody. Each account has a savepoint of its own: what goes wrong with one leaves its neighbours alone.

Whoever is refused at the deadline is not charged afterwards. The thread claims a group's orders just before it sends
`COMMIT`, and a caller gives up only an order that is not claimed; if one was given up, the group is rolled back and
written again without it. A caller whose order is claimed waits `COMMIT_SECONDS` longer for what becomes of it. On
PostgreSQL the server itself rolls the transaction back if `COMMIT` takes that long to arrive. What remains is a
`COMMIT` that arrived in time and takes longer, or whose confirmation is lost: such an order may be charged although
its caller was refused, and the account's statement has it under the request id of the refusal.

There is no `statement_timeout`, since it would also end a `COMMIT`'s wait for a synchronous standby, and report a
charge as safe that is not.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.domain.ledger import Charge, ChargeOrder
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import with_limits, writing
from vl2v_vendor.ledger_sql.driver import Driver
from vl2v_vendor.ledger_sql.waiters import Claims, Outcome, Waiter, resolve

MAX_GROUP_ITEMS = 1024
"""A group takes no further order beyond this many items, so that nobody waits long behind a large one."""

DEADLINE_SECONDS = 1.2
"""After this a caller is refused with LedgerUnavailable, whatever the database does: the refusal is to be with the
client within 2 s, on a machine that is busy with other things too."""

COMMIT_SECONDS = 0.5
"""How much longer a caller waits whose order is being committed, and how long `COMMIT` may take to arrive."""

_GIVEN_UP = "the ledger did not answer in time and nothing was billed; try again"
_UNCONFIRMED = "the ledger did not answer in time; send the same items again, none is billed twice"
_CANNOT_WRITE = "the ledger cannot be written now; send the same items again later, none is billed twice"
_NOT_TAKEN = "the ledger could not take this request; nothing was billed, try again"

BeginCharging = Callable[[Driver], ChargeTransaction]

_log = logging.getLogger(__name__)


class GroupWriter:
    """The one writer of a server process.

    Args:
        engine: Engine from which the thread takes a connection of its own.
        begin_charging: Function that makes the charge steps for a transaction that has just begun.
    """

    def __init__(self, engine: Engine, begin_charging: BeginCharging) -> None:
        self._engine = with_limits(writing(engine), idle_in_transaction_session_timeout=str(int(COMMIT_SECONDS * 1000)))
        self._driver = engine.dialect.loaded_dbapi
        self._begin_charging = begin_charging
        self._queue: SimpleQueue[Waiter | None] = SimpleQueue()
        self._claims = Claims()
        self._connection: Connection | None = None
        self._must_reconnect = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread; it connects when the first order arrives."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, then end the thread. Blocks."""
        self._stopped.set()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    async def charge(self, order: ChargeOrder) -> Charge:
        """Have the order written; returns after the commit.

        Cancelling the caller takes the order back if the thread has not begun with it, and changes nothing otherwise.

        Raises:
            LedgerUnavailable: Not written and never will be; or not known to be, if its commit takes longer than
                `COMMIT_SECONDS` or the connection is lost in it. The same items may be sent again.
            VendorError: Whatever the charge refuses.
        """
        charge = await self._submit(order)
        assert charge is not None, "only a probe has no outcome"
        return charge

    async def probe(self) -> None:
        """Check that a transaction can be begun and committed.

        Raises:
            LedgerUnavailable: That cannot be done.
        """
        await self._submit(None)

    async def _submit(self, order: ChargeOrder | None) -> Charge | None:
        if self._stopped.is_set():
            raise LedgerUnavailable("the server is stopping; nothing was billed")
        loop = asyncio.get_running_loop()
        waiter = Waiter(order, loop, loop.create_future())
        self._queue.put(waiter)
        try:
            await asyncio.wait((waiter.future,), timeout=DEADLINE_SECONDS)
            if not waiter.future.done() and not self._claims.give_up(waiter):
                await asyncio.wait((waiter.future,), timeout=COMMIT_SECONDS)
            if waiter.future.done():
                return waiter.future.result()
        finally:
            waiter.future.cancel()
        raise LedgerUnavailable(_GIVEN_UP if waiter.is_given_up else _UNCONFIRMED)

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._take_group()
            if group:
                self._settle(group)
        self._disconnect()

    def _take_group(self) -> tuple[list[Waiter], bool]:
        """Wait for an order, then take what else is there; False once the writer is to stop."""
        waiter = self._queue.get()
        group: list[Waiter] = []
        items = 0
        while waiter is not None:
            if not waiter.future.cancelled():
                group.append(waiter)
                items += len(waiter.order.items) if waiter.order else 0
            if items >= MAX_GROUP_ITEMS:
                return group, True
            try:
                waiter = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _settle(self, group: list[Waiter]) -> None:
        # Two replicas that lock their groups' accounts in one order cannot deadlock.
        group.sort(key=lambda waiter: waiter.account_id)
        try:
            outcomes = self._commit(group)
            while outcomes is None:
                group = [waiter for waiter in group if not waiter.is_given_up]
                outcomes = self._commit(group) if group else []
        except Exception as error:
            _log.warning("the ledger could not be written: %s", error)
            self._disconnect()
            self._refuse(group)
        else:
            resolve(group, outcomes)
            if self._must_reconnect:
                self._disconnect()

    def _commit(self, group: Sequence[Waiter]) -> list[Outcome] | None:
        """Write the group in one transaction, account by account; None if it was rolled back for who gave up."""
        connection = self._connect()
        with connection.begin() as whole:
            driver = Driver(connection)
            transaction = self._begin_charging(driver)
            outcomes: list[Outcome] = []
            for _, waiters in groupby(group, key=lambda waiter: waiter.account_id):
                orders = [waiter.order for waiter in waiters]
                named = [order for order in orders if order is not None]
                if len(named) < len(orders):
                    transaction.probe()
                outcomes += [None] * (len(orders) - len(named))
                outcomes += self._charge(driver, transaction, named)
            if not self._claims.claim(group, outcomes):
                whole.rollback()
                return None
            return outcomes

    def _charge(
        self, driver: Driver, transaction: ChargeTransaction, orders: list[ChargeOrder]
    ) -> Sequence[Charge | Exception]:
        """Charge the orders of one account inside a savepoint.

        A lock that somebody else holds concerns them all, and is waited for once in a group. Whatever else goes wrong
        may be one order's own fault, so each is tried again alone.
        """
        if not orders:
            return []
        driver.execute("SAVEPOINT charge")
        try:
            outcomes = transaction.charge(orders)
        except Exception as error:
            self._must_reconnect = driver.disable_prepared_statements()
            driver.execute("ROLLBACK TO SAVEPOINT charge")
            failure = error
        else:
            driver.execute("RELEASE SAVEPOINT charge")
            return outcomes
        driver.execute("RELEASE SAVEPOINT charge")
        if isinstance(failure, self._driver.OperationalError):
            transaction.shorten_lock_timeout()
            return [self._explain(order, failure) for order in orders]
        if len(orders) == 1:
            return [self._explain(order, failure) for order in orders]
        return [outcome for order in orders for outcome in self._charge(driver, transaction, [order])]

    def _explain(self, order: ChargeOrder, failure: Exception) -> Exception:
        """Build the caller's error, each an exception of its own: a shared one would mix up their tracebacks."""
        if isinstance(failure, VendorError):
            return failure
        # In this thread nobody knows which request is meant, so the lines say it themselves.
        about = {"request_id": order.request_id, "api_key_id": order.api_key_id, "account_id": order.account_id}
        if isinstance(failure, self._driver.Error):
            _log.warning("request %s could not be charged: %s", order.request_id, failure, extra={"fields": about})
            return LedgerUnavailable(_NOT_TAKEN)
        _log.error("request %s could not be charged", order.request_id, exc_info=failure, extra={"fields": about})
        return failure

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        """Forget the connection, whatever state it is in; the next group opens another."""
        self._must_reconnect = False
        if self._connection is None:
            return
        with suppress(SQLAlchemyError):
            self._connection.invalidate()
        with suppress(SQLAlchemyError):
            self._connection.close()
        self._connection = None

    def _refuse(self, group: list[Waiter]) -> None:
        """Fail the group, and all who queued behind it: they would only wait as long again."""
        stop = False
        with suppress(Empty):
            while True:
                waiter = self._queue.get_nowait()
                if waiter is None:
                    stop = True
                else:
                    group.append(waiter)
        if stop:
            self._queue.put(None)
        resolve(group, [LedgerUnavailable(_CANNOT_WRITE) for _ in group])
