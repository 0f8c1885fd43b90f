"""The charges of one account, inside their savepoint: lock, read, decide, write.

The account's lock makes every check race-free, on any number of replicas: whoever holds it sees all that was
committed for the account, and nobody else writes until the group's commit. Orders that wait at the same time share
each statement, so that a busy account costs little more than a quiet one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vl2v_vendor.adapters.sql.rows import entry_row, pack_vector, to_key, to_paid_item, to_price
from vl2v_vendor.adapters.sql.statements import ChargeStatements, Cursor, listed
from vl2v_vendor.domain.accounts import ApiKey, Budget
from vl2v_vendor.domain.charging import AccountCharges, LockedAccount, Posting
from vl2v_vendor.domain.errors import LedgerUnavailable, UnknownKey, VendorError
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, PaidItem, Price


@dataclass(frozen=True, slots=True)
class _BudgetRows:
    """What was read of the budgets: the ids of the rows that the debit changes, and the state that it must find."""

    account_id: int
    key_ids: dict[str, int]
    last_seq: int
    key_used_units: dict[str, int]


class ChargeTransaction:
    """The steps of a charge on the driver's cursor of an open transaction, in the order of `charge`.

    Args:
        cursor: of the group's transaction.
        statements: compiled for its database.
        ledger_id: goes into every entry.
        signing_key_id: the key that will sign the receipts.
        now: the database's clock when the transaction began, microseconds.
        retention_micro: how long vectors are kept for replay.
    """

    def __init__(
        self,
        cursor: Cursor,
        statements: ChargeStatements,
        *,
        ledger_id: str,
        signing_key_id: str,
        now: int,
        retention_micro: int,
    ) -> None:
        self._cursor = cursor
        self._statements = statements
        self._ledger_id = ledger_id
        self._signing_key_id = signing_key_id
        self._now = now
        self._retention_micro = retention_micro
        self._prices: dict[tuple[str, str], Price] = {}

    def charge(self, orders: Sequence[ChargeOrder]) -> list[Charge | VendorError]:
        """Decide the orders of one account, in their order, and write what was decided.

        A refusal is its order's own outcome. Whatever this raises concerns all of them, and nothing of it remains
        once the savepoint is rolled back.
        """
        account, rows = self.lock_account(orders)
        charges = AccountCharges(
            account,
            keys=self.read_keys(orders),
            prices=self.read_prices(orders),
            paid=self.find_paid(orders),
            ledger_id=self._ledger_id,
            signing_key_id=self._signing_key_id,
            now=self._now,
        )
        outcomes = [_decide(charges, order) for order in orders]
        if charges.postings:
            self.debit(account, rows)
            self.append_entries(charges.postings)
            self.append_items(charges.postings)
            self.store_results(charges.postings)
        return outcomes

    def probe(self) -> None:
        """Write what changes nothing, for readiness: an empty transaction would pass on a full disk."""
        if self._statements.probe is not None:
            self._cursor.execute(self._statements.probe)

    def lose_patience(self) -> None:
        """Wait no more than a moment for any further lock in this transaction: somebody waited once already."""
        if self._statements.lose_patience is not None:
            self._cursor.execute(self._statements.lose_patience)

    def lock_account(self, orders: Sequence[ChargeOrder]) -> tuple[LockedAccount, _BudgetRows]:
        """Lock the account's budget row, then those of the orders' keys."""
        account_id = orders[0].account_id
        found = self._rows(
            self._statements.lock_budgets,
            {"account_id": account_id, "api_key_ids": self._listed(order.api_key_id for order in orders)},
        )
        if not found:
            raise UnknownKey
        own, *of_keys = found
        budget_id, _, limit_units, used_units, last_seq, head_hash, last_created_at, currency = own
        account = LockedAccount(
            account_id=account_id,
            currency=currency,
            budget=Budget(limit_units, used_units),
            key_budgets={row[1]: Budget(row[2], row[3]) for row in of_keys},
            last_seq=last_seq,
            head_hash=head_hash,
            last_created_at=last_created_at,
        )
        rows = _BudgetRows(
            budget_id, {row[1]: row[0] for row in of_keys}, last_seq, {row[1]: row[3] for row in of_keys}
        )
        return account, rows

    def read_keys(self, orders: Sequence[ChargeOrder]) -> dict[str, ApiKey]:
        """The orders' keys as they are now: one may have been revoked while the vectors were computed."""
        parameters = {
            "account_id": orders[0].account_id,
            "api_key_ids": self._listed(order.api_key_id for order in orders),
        }
        keys = map(to_key, self._rows(self._statements.read_keys, parameters))
        return {key.id: key for key in keys}

    def read_prices(self, orders: Iterable[ChargeOrder]) -> dict[tuple[str, str], Price]:
        """The prices in force, each read once in a transaction."""
        for product in {(order.model_id, order.modality) for order in orders} - self._prices.keys():
            parameters = {"model_id": product[0], "modality": product[1]}
            self._cursor.execute(self._statements.price_in_force, parameters)
            row = self._cursor.fetchone()
            if row is not None:
                self._prices[product] = to_price(row)
        return self._prices

    def find_paid(self, orders: Sequence[ChargeOrder]) -> dict[str, PaidItem]:
        """Items that somebody paid for since admission."""
        parameters = {
            "account_id": orders[0].account_id,
            "item_keys": self._listed(item.item_key for order in orders for item in order.items),
            "now": self._now,
        }
        paid = map(to_paid_item, self._rows(self._statements.paid_items, parameters))
        return {item.item_key: item for item in paid}

    def debit(self, account: LockedAccount, rows: _BudgetRows) -> None:
        """Take the units from the account's budget and from the keys'; all or nothing.

        Guarded twice: by the limit, and by the state that was read under the lock and that the entries build on.
        """
        self._change_one(
            self._statements.debit_account,
            {
                "budget_id": rows.account_id,
                "used_units": account.budget.used_units,
                "read_last_seq": rows.last_seq,
                "last_seq": account.last_seq,
                "head_hash": account.head_hash,
                "last_created_at": account.last_created_at,
            },
        )
        for key_id, budget in account.key_budgets.items():
            read_used_units = rows.key_used_units[key_id]
            if budget.used_units != read_used_units:
                self._change_one(
                    self._statements.debit_key,
                    {
                        "budget_id": rows.key_ids[key_id],
                        "used_units": budget.used_units,
                        "read_used_units": read_used_units,
                    },
                )

    def append_entries(self, postings: Iterable[Posting]) -> None:
        """Insert the ledger rows."""
        rows = [entry_row(posting.posted.entry, posting.posted.entry_hash) for posting in postings]
        self._statements.insert_entries.run(self._cursor, rows)

    def append_items(self, postings: Iterable[Posting]) -> None:
        """Insert the items; their key is what makes them paid for ever."""
        rows = [
            {
                "account_id": posting.posted.entry.account_id,
                "item_key": item.item_key,
                "seq": posting.posted.entry.seq,
                "idx": index,
                "fingerprint": item.fingerprint,
                "result_sha": item.result_sha,
                "units": item.units,
            }
            for posting in postings
            for index, item in enumerate(posting.items)
        ]
        self._statements.insert_items.run(self._cursor, rows)

    def store_results(self, postings: Iterable[Posting]) -> None:
        """Keep the vectors for replay."""
        rows = [
            {
                "account_id": posting.posted.entry.account_id,
                "item_key": item.item_key,
                "vector": pack_vector(item.vector),
                "expires_at": posting.posted.entry.created_at + self._retention_micro,
            }
            for posting in postings
            for item in posting.items
        ]
        self._statements.insert_results.run(self._cursor, rows)

    def _listed(self, values: Iterable[str]) -> object:
        return listed(dict.fromkeys(values), self._statements.backend)

    def _rows(self, statement: str, parameters: dict[str, object]) -> Sequence[Any]:
        self._cursor.execute(statement, parameters)
        return self._cursor.fetchall()

    def _change_one(self, statement: str, parameters: dict[str, int | str]) -> None:
        """The row was read under a lock, so a guard that does not hold means a broken database."""
        self._cursor.execute(statement, parameters)
        if self._cursor.rowcount != 1:
            raise LedgerUnavailable("the budget moved under its lock; run `vl2v-vendor ledger verify`")


def _decide(charges: AccountCharges, order: ChargeOrder) -> Charge | VendorError:
    try:
        return charges.charge(order)
    except VendorError as refusal:
        return refusal
