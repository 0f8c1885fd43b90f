"""The charges of one account, inside their savepoint: lock, read, decide, write.

The account's lock makes every check race-free, on any number of replicas: whoever holds it sees all that was
committed for the account, and nobody else writes until the group's commit. Orders that wait at the same time share
each statement, so that a busy account costs little more than a quiet one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, bindparam, update
from sqlalchemy.engine.interfaces import DBAPICursor

from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import Budget
from vl2v_vendor.domain.errors import LedgerUnavailable, UnknownKey, VendorError
from vl2v_vendor.domain.ledger import AccountCharges, Charge, ChargeOrder, NewItem, Price
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.driver import Driver
from vl2v_vendor.ledger_sql.signatures import require_kept, require_own, signature_row
from vl2v_vendor.ledger_sql.statements import (
    KEYS,
    LOCK_ACCOUNT,
    PRICE_IN_FORCE,
    PUBLISHED_KEYS,
    array_parameter,
    entry_row,
    in_array,
    lock_budgets,
    pack_vector,
    paid_items,
    to_chain_end,
    to_key,
    to_paid_item,
)
from vl2v_vendor.ledger_sql.tables import api_keys, budgets, charge_items, entry_signatures, ledger, results

_USED_UNITS = bindparam("used_units", type_=BigInteger)
_DEBIT = update(budgets).where(budgets.c.id == bindparam("budget_id"), budgets.c.limit_units >= _USED_UNITS)
_DEBIT_ACCOUNT = _DEBIT.where(budgets.c.last_seq == bindparam("read_last_seq", type_=BigInteger)).values(
    used_units=_USED_UNITS,
    last_seq=bindparam("last_seq", type_=BigInteger),
    head_hash=bindparam("head_hash"),
    last_created_at=bindparam("last_created_at", type_=BigInteger),
)
_DEBIT_KEY = _DEBIT.where(budgets.c.used_units == bindparam("read_used_units", type_=BigInteger)).values(
    used_units=_USED_UNITS
)
_READ_KEYS = {
    backend: KEYS.where(
        in_array(api_keys.c.id, "api_key_ids", backend), api_keys.c.account_id == bindparam("account_id")
    )
    for backend in ("sqlite", "postgresql")
}


@dataclass(eq=False, slots=True, kw_only=True)
class ChargeTransaction:
    """The steps of a charge in an open transaction, in the order of `charge`.

    Attributes:
        signer: Signer of the entries.
        now: Database's clock when the transaction began, microseconds.
        retention_micro: Time that vectors are kept for replay, microseconds.
    """

    driver: Driver
    ledger_id: str
    signer: SecretSigner
    now: int
    retention_micro: int

    def charge(self, orders: Sequence[ChargeOrder]) -> list[Charge | VendorError]:
        """Decide the orders of one account, in their order, and write what was decided.

        A refusal is its order's own outcome. Whatever this raises concerns all of them, and nothing of it remains
        once the savepoint is rolled back.

        Raises:
            LedgerUnavailable: The budget moved under its lock; or the account's last entry is not the vendor's own, or
                lies before what was signed here.
        """
        budget_rows, key_rows, item_rows = self.lock_account(orders)
        prices = self.read_prices(orders)  # under the lock, or one that waited for it would charge an old price
        own, *of_keys = budget_rows
        head = (orders[0].account_id, own[4], own[5], own[8])
        require_kept(self.signer.signed_seq(orders[0].account_id), orders[0].account_id, own[4])
        require_own(self.signer, head, lambda: self.driver.execute(PUBLISHED_KEYS).fetchall())
        charges = AccountCharges(
            to_chain_end(self.ledger_id, orders[0].account_id, own),
            {key_id: Budget(limit_units, used_units) for _, key_id, limit_units, used_units, *_ in of_keys},
            keys={key.id: key for key in map(to_key, key_rows)},
            prices=prices,
            paid={item.item_key: item for item in map(to_paid_item, item_rows)},
            signing_key_id=self.signer.key_id,
            now=self.now,
        )
        outcomes: list[Charge | VendorError] = []
        for order in orders:
            try:
                outcomes.append(charges.charge(order))
            except VendorError as refusal:
                outcomes.append(refusal)
        if charges.decided:
            with self.driver.pipeline():
                debits = self.debit(charges, budget_rows)
                self.append(charges.decided)
            # The rows were read under a lock, so a guard that does not hold means a broken database.
            if any(debit.rowcount != 1 for debit in debits):
                raise LedgerUnavailable("the budget moved under its lock; run `vl2v-vendor ledger verify`")
        return outcomes

    def probe(self) -> None:
        """Write what changes nothing, for readiness: an empty transaction would pass on a full disk.

        PostgreSQL says itself whether it can be written.
        """
        if not self.driver.is_postgresql:
            self.driver.execute("PRAGMA user_version = 0")

    def shorten_lock_timeout(self) -> None:
        """Wait no more than a moment for any further lock in this transaction: somebody waited once already.

        SQLite has one lock for all, which the transaction holds.
        """
        if self.driver.is_postgresql:
            self.driver.execute("SET LOCAL lock_timeout = '50ms'")

    def read_prices(self, orders: Iterable[ChargeOrder]) -> dict[tuple[str, str], Price]:
        """Read the prices in force."""
        prices: dict[tuple[str, str], Price] = {}
        for product in {(order.model_id, order.modality) for order in orders}:
            row = self.driver.execute(PRICE_IN_FORCE, {"model_id": product[0], "modality": product[1]}).fetchone()
            if row is not None:
                prices[product] = Price(*row)
        return prices

    def lock_account(self, orders: Sequence[ChargeOrder]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Lock the account's budget row, then those of the orders' keys, and read what the charges are decided by.

        Returns:
            The rows of the budgets, the account's own first; the keys as they are now, since one may have been revoked
            while the vectors were computed; and the items that somebody paid for since admission.

        Raises:
            UnknownKey: The account is gone.
        """
        run, backend = self.driver.execute, self.driver.backend
        account = {"account_id": orders[0].account_id}
        key_ids = dict.fromkeys(order.api_key_id for order in orders)
        item_keys = dict.fromkeys(item.item_key for order in orders for item in order.items)
        keys = account | {"api_key_ids": array_parameter(key_ids, backend)}
        items = account | {"item_keys": array_parameter(item_keys, backend), "now": self.now}
        with self.driver.pipeline():
            if self.driver.is_postgresql:
                run(LOCK_ACCOUNT, account)
            cursors = run(lock_budgets(backend), keys), run(_READ_KEYS[backend], keys), run(paid_items(backend), items)
        budget_rows, key_rows, item_rows = (cursor.fetchall() for cursor in cursors)
        if not budget_rows:
            raise UnknownKey
        return budget_rows, key_rows, item_rows

    def debit(self, charges: AccountCharges, budget_rows: Sequence[Any]) -> list[DBAPICursor]:
        """Take the units from the account's budget and from the keys'; all or nothing.

        Guarded twice: by the limit, and by the state that was read under the lock and that the entries build on.
        """
        own, *of_keys = budget_rows
        debit = {
            "budget_id": own[0],
            "used_units": charges.end.used_units,
            "read_last_seq": own[4],
            "last_seq": charges.end.seq,
            "head_hash": charges.end.entry_hash,
            "last_created_at": charges.end.created_at,
        }
        debits = [self.driver.execute(_DEBIT_ACCOUNT, debit)]
        for budget_id, key_id, _, read_used_units, *_ in of_keys:
            used_units = charges.key_budgets[key_id].used_units
            if used_units != read_used_units:
                debit = {"budget_id": budget_id, "used_units": used_units, "read_used_units": read_used_units}
                debits.append(self.driver.execute(_DEBIT_KEY, debit))
        return debits

    def append(self, decided: Sequence[tuple[StatementEntry, Sequence[NewItem]]]) -> None:
        """Insert the entries, signed, their items, whose key makes them paid for ever, and the vectors for replay."""
        entries = [(posted.entry, posted.entry_hash) for posted, _ in decided]
        self.driver.insert(ledger, [entry_row(entry, entry_hash) for entry, entry_hash in entries])
        signatures = [signature_row(self.signer, entry, entry_hash) for entry, entry_hash in entries]
        self.driver.insert(entry_signatures, signatures)
        sold = [(posted.entry, index, item) for posted, items in decided for index, item in enumerate(items)]
        item_rows = [
            {
                "account_id": entry.account_id,
                "item_key": item.item_key,
                "seq": entry.seq,
                "idx": index,
                "fingerprint": item.fingerprint,
                "result_sha": item.result_sha,
                "units": item.units,
            }
            for entry, index, item in sold
        ]
        self.driver.insert(charge_items, item_rows)
        result_rows = [
            {
                "account_id": entry.account_id,
                "item_key": item.item_key,
                "vector": pack_vector(item.vector),
                "expires_at": entry.created_at + self.retention_micro,
            }
            for entry, _, item in sold
        ]
        self.driver.insert(results, result_rows)
