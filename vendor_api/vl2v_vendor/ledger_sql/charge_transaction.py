"""The charges of one account, inside their savepoint: lock, read, decide, write.

The account's lock makes every check race-free, on any number of replicas: whoever holds it sees all that was
committed for the account, and nobody else writes until the group's commit. Orders that wait at the same time share
each statement, so that a busy account costs little more than a quiet one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vl2v_contract.chain import ChainEnd
from vl2v_vendor.domain.accounts import ApiKey, Budget
from vl2v_vendor.domain.charging import AccountCharges, DecidedCharge, LockedAccount
from vl2v_vendor.domain.errors import LedgerUnavailable, UnknownKey, VendorError
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, PaidItem, Price
from vl2v_vendor.ledger_sql.driver import Cursor, Driver
from vl2v_vendor.ledger_sql.rows import entry_row, pack_vector, to_chain_end, to_key, to_paid_item, to_price
from vl2v_vendor.ledger_sql.statements import ChargeStatements, array_parameter


@dataclass(frozen=True, slots=True)
class _BudgetRows:
    """What was read of the budgets: the ids of the rows that the debit changes, and the state that it must find."""

    account_row_id: int
    key_row_ids: dict[str, int]
    last_seq: int
    key_used_units: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Locked:
    """An account under its lock, with what its charges are decided by."""

    account: LockedAccount
    rows: _BudgetRows
    keys: dict[str, ApiKey]
    paid: dict[str, PaidItem]


class ChargeTransaction:
    """The steps of a charge in an open transaction, in the order of `charge`.

    Args:
        driver: Driver of the group's transaction.
        statements: Statements, compiled for its database.
        ledger_id: Ledger that every entry names.
        signing_key_id: The key that will sign the receipts.
        now: The database's clock when the transaction began, microseconds.
        retention_micro: Time that vectors are kept for replay, microseconds.
    """

    def __init__(
        self,
        driver: Driver,
        statements: ChargeStatements,
        *,
        ledger_id: str,
        signing_key_id: str,
        now: int,
        retention_micro: int,
    ) -> None:
        self._driver = driver
        self._statements = statements
        self._ledger_id = ledger_id
        self._signing_key_id = signing_key_id
        self._now = now
        self._retention_micro = retention_micro

    def charge(self, orders: Sequence[ChargeOrder]) -> list[Charge | VendorError]:
        """Decide the orders of one account, in their order, and write what was decided.

        A refusal is its order's own outcome. Whatever this raises concerns all of them, and nothing of it remains
        once the savepoint is rolled back.
        """
        locked = self.lock_account(orders)
        prices = self.read_prices(orders)  # under the lock, or one that waited for it would charge an old price
        charges = AccountCharges(
            locked.account,
            keys=locked.keys,
            prices=prices,
            paid=locked.paid,
            signing_key_id=self._signing_key_id,
            now=self._now,
        )
        outcomes = [_decide(charges, order) for order in orders]
        if charges.decided:
            with self._driver.pipeline():
                debits = self.debit(locked)
                self.append_entries(charges.decided)
                self.append_items(charges.decided)
                self.store_results(charges.decided)
            _check_debits(debits)
        return outcomes

    def probe(self) -> None:
        """Write what changes nothing, for readiness: an empty transaction would pass on a full disk."""
        if self._statements.probe is not None:
            self._driver.execute(self._statements.probe)

    def shorten_lock_timeout(self) -> None:
        """Wait no more than a moment for any further lock in this transaction: somebody waited once already."""
        if self._statements.shorten_lock_timeout is not None:
            self._driver.execute(self._statements.shorten_lock_timeout)

    def read_prices(self, orders: Iterable[ChargeOrder]) -> dict[tuple[str, str], Price]:
        """The prices in force."""
        prices: dict[tuple[str, str], Price] = {}
        for product in {(order.model_id, order.modality) for order in orders}:
            parameters = {"model_id": product[0], "modality": product[1]}
            row = self._driver.execute(self._statements.price_in_force, parameters).fetchone()
            if row is not None:
                prices[product] = to_price(row)
        return prices

    def lock_account(self, orders: Sequence[ChargeOrder]) -> _Locked:
        """Lock the account's budget row, then those of the orders' keys, and read what the charges are decided by.

        The keys as they are now: one may have been revoked while the vectors were computed. The items that somebody
        paid for since admission.

        Raises:
            UnknownKey: The account is gone.
        """
        statements, run = self._statements, self._driver.execute
        account = {"account_id": orders[0].account_id}
        keys = account | {"api_key_ids": self._array(order.api_key_id for order in orders)}
        items = account | {"item_keys": self._array(item.item_key for order in orders for item in order.items)}
        with self._driver.pipeline():
            if statements.lock_account is not None:
                run(statements.lock_account, account)
            budgets = run(statements.lock_budgets, keys)
            api_keys = run(statements.read_keys, keys)
            paid = run(statements.paid_items, items | {"now": self._now})
        found = budgets.fetchall()
        if not found:
            raise UnknownKey
        return _Locked(
            *_read_budgets(to_chain_end(self._ledger_id, orders[0].account_id, found[0]), found),
            keys={key.id: key for key in map(to_key, api_keys.fetchall())},
            paid={item.item_key: item for item in map(to_paid_item, paid.fetchall())},
        )

    def debit(self, locked: _Locked) -> list[Cursor]:
        """Take the units from the account's budget and from the keys'; all or nothing.

        Guarded twice: by the limit, and by the state that was read under the lock and that the entries build on.
        """
        account, rows = locked.account, locked.rows
        debits = [
            self._driver.execute(
                self._statements.debit_account,
                {
                    "budget_id": rows.account_row_id,
                    "used_units": account.end.used_units,
                    "read_last_seq": rows.last_seq,
                    "last_seq": account.end.seq,
                    "head_hash": account.end.entry_hash,
                    "last_created_at": account.end.created_at,
                },
            )
        ]
        for key_id, budget in account.key_budgets.items():
            read_used_units = rows.key_used_units[key_id]
            if budget.used_units != read_used_units:
                parameters = {
                    "budget_id": rows.key_row_ids[key_id],
                    "used_units": budget.used_units,
                    "read_used_units": read_used_units,
                }
                debits.append(self._driver.execute(self._statements.debit_key, parameters))
        return debits

    def append_entries(self, decided: Iterable[DecidedCharge]) -> None:
        """Insert the ledger rows."""
        rows = [entry_row(charge.posted.entry, charge.posted.entry_hash) for charge in decided]
        self._statements.insert_entries.run(self._driver, rows)

    def append_items(self, decided: Iterable[DecidedCharge]) -> None:
        """Insert the items; their key is what makes them paid for ever."""
        rows = [
            {
                "account_id": charge.posted.entry.account_id,
                "item_key": item.item_key,
                "seq": charge.posted.entry.seq,
                "idx": index,
                "fingerprint": item.fingerprint,
                "result_sha": item.result_sha,
                "units": item.units,
            }
            for charge in decided
            for index, item in enumerate(charge.items)
        ]
        self._statements.insert_items.run(self._driver, rows)

    def store_results(self, decided: Iterable[DecidedCharge]) -> None:
        """Keep the vectors for replay."""
        rows = [
            {
                "account_id": charge.posted.entry.account_id,
                "item_key": item.item_key,
                "vector": pack_vector(item.vector),
                "expires_at": charge.posted.entry.created_at + self._retention_micro,
            }
            for charge in decided
            for item in charge.items
        ]
        self._statements.insert_results.run(self._driver, rows)

    def _array(self, values: Iterable[str]) -> object:
        return array_parameter(dict.fromkeys(values), self._statements.backend)


def _read_budgets(end: ChainEnd, found: Sequence[Any]) -> tuple[LockedAccount, _BudgetRows]:
    """Split the rows of `lock_budgets`: the account's, then its keys'."""
    own, *of_keys = found
    rows = _BudgetRows(own[0], {row[1]: row[0] for row in of_keys}, end.seq, {row[1]: row[3] for row in of_keys})
    return LockedAccount(end, {row[1]: Budget(row[2], row[3]) for row in of_keys}), rows


def _check_debits(debits: Iterable[Cursor]) -> None:
    """The rows were read under a lock, so a guard that does not hold means a broken database."""
    if any(debit.rowcount != 1 for debit in debits):
        raise LedgerUnavailable("the budget moved under its lock; run `vl2v-vendor ledger verify`")


def _decide(charges: AccountCharges, order: ChargeOrder) -> Charge | VendorError:
    try:
        return charges.charge(order)
    except VendorError as refusal:
        return refusal
