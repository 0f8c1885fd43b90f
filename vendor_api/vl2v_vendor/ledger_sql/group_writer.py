"""Group commit: one thread and one connection write everything that waits, in one transaction, with one fsync.

There is no timer. While a group commits the next one gathers, so the group grows with the load and a lone order
waits for nobody. Each account has a savepoint of its own: what goes wrong with one leaves its neighbours alone.

Whoever is refused at the deadline is not charged afterwards. The thread claims a group's orders just before it sends
`COMMIT`, and a caller gives up only an order that is not claimed; if one was given up, the group is rolled back and
written again without it. A caller whose order is claimed waits `COMMIT_SECONDS` longer for what becomes of it. On
PostgreSQL the server itself rolls the transaction back if `COMMIT` takes that long to arrive. What remains is a
`COMMIT` that arrived in time and takes longer, or whose confirmation is lost: such an order may be charged although
its caller was refused, and the account's statement has it under the request id of the refusal.

A session that the database ends before the claim, in a restart or because this process stood still for too long, has
changed nothing: its group is written once more, in a session of its own.

There is no `statement_timeout`, since it would also end a `COMMIT`'s wait for a synchronous standby, and report a
charge as safe that is not.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from queue import Empty, SimpleQueue

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.domain.ledger import Charge, ChargeOrder
from vl2v_vendor.ledger_sql.charge_transaction import ChargeTransaction
from vl2v_vendor.ledger_sql.database import with_limits, writing
from vl2v_vendor.ledger_sql.driver import Driver

MAX_GROUP_ITEMS = 1024
"""A group takes no further order beyond this many items, so that nobody waits long behind a large one."""

DEADLINE_SECONDS = 1.2
"""After this a caller is refused with LedgerUnavailable, whatever the database does: the refusal is to be with the
client within 2 s, on a machine that is busy with other things too."""

COMMIT_SECONDS = 0.5
"""How much longer a caller waits whose order is being committed, and how long `COMMIT` may take to arrive."""

_GIVEN_UP = "the ledger did not answer in time and nothing was billed; try again"
_UNCONFIRMED = "the ledger did not answer in time; send the same items again, none is billed twice"

Outcome = Charge | Exception | None
"""What became of an order: a charge, or why there is none; None for a probe."""


@dataclass(slots=True, eq=False)
class Waiter:
    """An order, or None for a mere probe of the database, and the future of the caller who waits for it.

    Attributes:
        is_claimed: `COMMIT` is about to be sent, or was.
        is_given_up: The caller was refused, and the order must not be committed any more.
    """

    order: ChargeOrder | None
    future: asyncio.Future[Charge | None] = field(repr=False)
    is_claimed: bool = False
    is_given_up: bool = False


_log = logging.getLogger(__name__)


class GroupWriter:
    """The one writer of a server process."""

    def __init__(self, engine: Engine, begin_charging: Callable[[Driver], ChargeTransaction]) -> None:
        self._engine = with_limits(writing(engine), idle_in_transaction_session_timeout=str(int(COMMIT_SECONDS * 1000)))
        self._driver = engine.dialect.loaded_dbapi
        self._begin_charging = begin_charging
        self._queue: SimpleQueue[Waiter | None] = SimpleQueue()
        self._claims = threading.Lock()
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
        """Check that a transaction can be begun and committed; raises LedgerUnavailable if not."""
        await self._submit(None)

    async def _submit(self, order: ChargeOrder | None) -> Charge | None:
        if self._stopped.is_set():
            raise LedgerUnavailable("the server is stopping; nothing was billed")
        loop = asyncio.get_running_loop()
        waiter = Waiter(order, loop.create_future())
        self._queue.put(waiter)
        deadline = loop.call_later(DEADLINE_SECONDS, self._end_wait, waiter)
        try:
            return await waiter.future
        finally:
            deadline.cancel()

    def _end_wait(self, waiter: Waiter) -> None:
        """Refuse who has waited long enough; an order whose commit has begun gets a little longer."""
        if self._give_up(waiter):
            _deliver([(waiter.future, LedgerUnavailable(_GIVEN_UP))])
        else:
            late = [(waiter.future, LedgerUnavailable(_UNCONFIRMED))]
            waiter.future.get_loop().call_later(COMMIT_SECONDS, _deliver, late)

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
        # Two replicas that lock their groups' accounts in one order cannot deadlock. Probes come first.
        group.sort(key=lambda waiter: waiter.order.account_id if waiter.order else "")
        outcomes = None
        has_reconnected = False
        while outcomes is None:
            group = [waiter for waiter in group if not waiter.is_given_up]
            try:
                outcomes = self._commit(group) if group else []
            except Exception as error:
                has_lost_session = self._connection is not None and self._connection.invalidated
                is_claimed = any(waiter.is_claimed for waiter in group)
                self._disconnect()
                if is_claimed or has_reconnected or not has_lost_session:
                    _log.warning("the ledger could not be written: %s", error)
                    self._refuse(group)
                    return
                has_reconnected = True
        _resolve(group, outcomes)
        if self._must_reconnect:
            self._disconnect()

    def _commit(self, group: Sequence[Waiter]) -> list[Outcome] | None:
        """Write the group in one transaction, account by account; None if it was rolled back for who gave up."""
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin() as whole:
            driver = Driver(self._connection)
            transaction = self._begin_charging(driver)
            orders = [waiter.order for waiter in group if waiter.order is not None]
            outcomes: list[Outcome] = [None] * (len(group) - len(orders))
            if outcomes:
                transaction.probe()
            for _, of_account in groupby(orders, key=lambda order: order.account_id):
                outcomes += self._charge(driver, transaction, list(of_account))
            if not self._claim(group, outcomes):
                whole.rollback()
                return None
            return outcomes

    def _give_up(self, waiter: Waiter) -> bool:
        """Take an order back for good, unless it is claimed; returns whether it was taken back."""
        with self._claims:
            waiter.is_given_up = not waiter.is_claimed
        return waiter.is_given_up

    def _claim(self, group: Sequence[Waiter], outcomes: Sequence[Outcome]) -> bool:
        """Claim the group for its commit, unless a caller gave up an order that was charged; returns whether it did."""
        with self._claims:
            for waiter, outcome in zip(group, outcomes, strict=True):
                if waiter.is_given_up and isinstance(outcome, Charge) and outcome.posted is not None:
                    return False
            for waiter in group:
                waiter.is_claimed = True
        return True

    def _charge(
        self, driver: Driver, transaction: ChargeTransaction, orders: list[ChargeOrder]
    ) -> Sequence[Charge | Exception]:
        """Charge the orders of one account inside a savepoint.

        A lock that somebody else holds concerns them all, and is waited for once in a group. Whatever else goes wrong
        may be one order's own fault, so each is tried again alone.
        """
        outcomes: Sequence[Charge | Exception] = ()
        failure: Exception | None = None
        driver.execute("SAVEPOINT charge")
        try:
            outcomes = transaction.charge(orders)
        except Exception as error:
            self._must_reconnect = driver.disable_prepared_statements()
            driver.execute("ROLLBACK TO SAVEPOINT charge")
            failure = error
        driver.execute("RELEASE SAVEPOINT charge")
        if failure is None:
            return outcomes
        is_locked = isinstance(failure, self._driver.OperationalError)
        if is_locked:
            transaction.shorten_lock_timeout()
        if is_locked or len(orders) == 1:
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
            return LedgerUnavailable("the ledger could not take this request; nothing was billed, try again")
        _log.error("request %s could not be charged", order.request_id, exc_info=failure, extra={"fields": about})
        return failure

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
        queued: list[Waiter | None] = []
        with suppress(Empty):
            while True:
                queued.append(self._queue.get_nowait())
        if None in queued:
            self._queue.put(None)
        group += [waiter for waiter in queued if waiter is not None]
        why = "the ledger cannot be written now; send the same items again later, none is billed twice"
        _resolve(group, [LedgerUnavailable(why) for _ in group])


def _resolve(group: Sequence[Waiter], outcomes: Sequence[Outcome]) -> None:
    """Hand each waiter its outcome in its own loop, with one wake-up per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Charge | None], Outcome]]] = {}
    for waiter, outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(waiter.future.get_loop(), []).append((waiter.future, outcome))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            loop.call_soon_threadsafe(_deliver, settled)


def _deliver(settled: Sequence[tuple[asyncio.Future[Charge | None], Outcome]]) -> None:
    for future, outcome in settled:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
