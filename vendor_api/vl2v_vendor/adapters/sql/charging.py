"""One order's charge, inside its savepoint: lock, check, admit, debit, append.

The account's lock makes every check race-free, on any number of replicas: whoever holds it sees all that was
committed for the account, and nobody else writes until the group's commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vl2v_contract.chain import ChargedItem, LedgerEntry, items_hash
from vl2v_vendor.adapters.sql.rows import entry_row, pack_vector, to_key, to_paid_item, to_price
from vl2v_vendor.adapters.sql.statements import ChargeStatements, Cursor, key_list
from vl2v_vendor.domain.accounts import Budget, Budgets
from vl2v_vendor.domain.admission import admit, unpaid_items
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable, PriceChanged, UnknownKey
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem, PaidItem, PostedEntry, Price


@dataclass(frozen=True, slots=True)
class LockedAccount:
    """The account's budget row, and the key's if it has one, as they are under the lock."""

    budget_id: int
    budgets: Budgets
    key_budget_id: int | None
    last_seq: int
    head_hash: str
    last_created_at: int
    currency: str


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
        self._prices: dict[tuple[str, str], Price | None] = {}
        self._held: tuple[tuple[str, str], LockedAccount] | None = None

    def charge(self, order: ChargeOrder) -> Charge:
        """Charge the order's unpaid items, or refuse and leave nothing behind once the savepoint is rolled back.

        Raises:
            BudgetExhausted: nothing fits (or not everything, without `allow_partial`).
            PriceChanged: the price moved since admission.
            AuthenticationError, Forbidden: the key was revoked, or expired, since admission.
        """
        account = self._take_held(order)
        if account is None:
            account = self.lock_account(order)
            self.check_key(order)
        created_at = max(self._now, account.last_created_at)
        price = self.confirm_price(order, account.currency)
        paid = self.find_paid(order)
        wanted = unpaid_items(order.items, {item.item_key for item in paid})
        admitted = admit(wanted, account.budgets, allow_partial=order.allow_partial, any_paid=bool(paid))
        refused = tuple(item.item_key for item in wanted[len(admitted) :])
        if not admitted:
            return Charge(None, paid, refused, account.budgets)
        posted = self.compose_entry(order, account, price, admitted, created_at)
        after = self.debit(account, posted)
        self.append_entry(posted)
        self.append_items(order, posted, admitted)
        self.store_results(order, admitted, created_at)
        self._hold(order, account, posted, after)
        return Charge(posted, paid, refused, after)

    def lock_account(self, order: ChargeOrder) -> LockedAccount:
        """Lock the account's budget row, then the key's."""
        self._cursor.execute(
            self._statements.lock_budgets, {"account_id": order.account_id, "api_key_id": order.api_key_id}
        )
        rows = self._cursor.fetchall()
        if not rows:
            raise UnknownKey
        budget_id, limit_units, used_units, last_seq, head_hash, last_created_at, currency = rows[0]
        key_row = rows[1] if len(rows) > 1 else None
        return LockedAccount(
            budget_id=budget_id,
            budgets=Budgets(
                account=Budget(limit_units, used_units),
                key=None if key_row is None else Budget(key_row[1], key_row[2]),
            ),
            key_budget_id=None if key_row is None else key_row[0],
            last_seq=last_seq,
            head_hash=head_hash,
            last_created_at=last_created_at,
            currency=currency,
        )

    def check_key(self, order: ChargeOrder) -> None:
        """The key may have been revoked while the vectors were computed."""
        self._cursor.execute(
            self._statements.read_key, {"account_id": order.account_id, "api_key_id": order.api_key_id}
        )
        row = self._cursor.fetchone()
        if row is None:
            raise UnknownKey
        to_key(row).require("embed", now=self._now)

    def confirm_price(self, order: ChargeOrder, currency: str) -> Price:
        """The price in force, if it is still the one that the order was admitted at."""
        price = self.read_price(order)
        if price is None or price.id != order.price_id:
            raise PriceChanged(
                f"price {order.price_id} of {order.model_id} is no longer in force; read `/v1/models` and send again"
            )
        if price.currency != currency:
            raise InvalidRequest(
                f"{order.model_id} is sold in {price.currency} and this account is kept in {currency}; "
                f"ask the vendor for an account in {price.currency}"
            )
        return price

    def read_price(self, order: ChargeOrder) -> Price | None:
        """The price in force, read once in a transaction."""
        product = (order.model_id, order.modality)
        if product not in self._prices:
            parameters = {"model_id": order.model_id, "modality": order.modality}
            self._cursor.execute(self._statements.price_in_force, parameters)
            row = self._cursor.fetchone()
            self._prices[product] = None if row is None else to_price(row)
        return self._prices[product]

    def find_paid(self, order: ChargeOrder) -> tuple[PaidItem, ...]:
        """Items that somebody paid for since admission."""
        parameters = {
            "account_id": order.account_id,
            "item_keys": key_list([item.item_key for item in order.items], self._statements.backend),
            "now": self._now,
        }
        self._cursor.execute(self._statements.paid_items, parameters)
        return tuple(to_paid_item(row) for row in self._cursor.fetchall())

    def compose_entry(
        self, order: ChargeOrder, account: LockedAccount, price: Price, admitted: tuple[NewItem, ...], created_at: int
    ) -> PostedEntry:
        """The entry that extends the account's chain, with its hash; nothing is written."""
        charged = tuple(ChargedItem(item.item_key, item.result_sha, item.units) for item in admitted)
        units = sum(item.units for item in admitted)
        entry = LedgerEntry(
            ledger_id=self._ledger_id,
            account_id=order.account_id,
            seq=account.last_seq + 1,
            kind="charge",
            request_id=order.request_id,
            api_key_id=order.api_key_id,
            endpoint=order.endpoint,
            modality=order.modality,
            model_id=order.model_id,
            weights_sha=order.weights_sha,
            precision=order.precision,
            preprocessing_id=order.preprocessing_id,
            units=units,
            price_id=price.id,
            unit_price_micro=price.unit_price_micro,
            amount_micro=units * price.unit_price_micro,
            currency=price.currency,
            items_hash=items_hash(charged),
            ref_seq=None,
            note=None,
            used_units=account.budgets.account.used_units + units,
            limit_units=account.budgets.account.limit_units,
            created_at=created_at,
            signing_key_id=self._signing_key_id,
            prev_hash=account.head_hash,
        )
        return PostedEntry(entry, entry.hash(), charged)

    def debit(self, account: LockedAccount, posted: PostedEntry) -> Budgets:
        """Take the units from the account's budget and from the key's; both or neither."""
        entry = posted.entry
        self._change_one(
            self._statements.debit_account,
            {
                "budget_id": account.budget_id,
                "units": entry.units,
                "last_seq": account.last_seq,
                "seq": entry.seq,
                "entry_hash": posted.entry_hash,
                "entry_created_at": entry.created_at,
            },
        )
        after = replace(account.budgets, account=Budget(entry.limit_units, entry.used_units))
        if account.key_budget_id is None or after.key is None:
            return after
        self._change_one(self._statements.debit_key, {"budget_id": account.key_budget_id, "units": entry.units})
        return replace(after, key=replace(after.key, used_units=after.key.used_units + entry.units))

    def append_entry(self, posted: PostedEntry) -> None:
        """Insert the ledger row."""
        self._cursor.execute(self._statements.insert_entry, entry_row(posted.entry, posted.entry_hash))

    def append_items(self, order: ChargeOrder, posted: PostedEntry, admitted: tuple[NewItem, ...]) -> None:
        """Insert the items; their key is what makes them paid for ever."""
        rows = [
            {
                "account_id": order.account_id,
                "item_key": item.item_key,
                "seq": posted.entry.seq,
                "idx": index,
                "fingerprint": item.fingerprint,
                "result_sha": item.result_sha,
                "units": item.units,
            }
            for index, item in enumerate(admitted)
        ]
        self._cursor.executemany(self._statements.insert_item, rows)

    def store_results(self, order: ChargeOrder, admitted: tuple[NewItem, ...], created_at: int) -> None:
        """Keep the vectors for replay."""
        rows = [
            {
                "account_id": order.account_id,
                "item_key": item.item_key,
                "vector": pack_vector(item.vector),
                "expires_at": created_at + self._retention_micro,
            }
            for item in admitted
        ]
        self._cursor.executemany(self._statements.insert_result, rows)

    def _take_held(self, order: ChargeOrder) -> LockedAccount | None:
        """The account as the order before left it, if that was of the same key: it is still locked.

        It is let go of here and held again only after a success, so that what a rollback undoes is read anew.
        """
        held, self._held = self._held, None
        if held is None or held[0] != (order.account_id, order.api_key_id):
            return None
        return held[1]

    def _hold(self, order: ChargeOrder, account: LockedAccount, posted: PostedEntry, after: Budgets) -> None:
        left = replace(
            account,
            budgets=after,
            last_seq=posted.entry.seq,
            head_hash=posted.entry_hash,
            last_created_at=posted.entry.created_at,
        )
        self._held = ((order.account_id, order.api_key_id), left)

    def _change_one(self, statement: str, parameters: dict[str, int | str]) -> None:
        """The row was read under a lock, so a guard that does not hold means a broken database."""
        self._cursor.execute(statement, parameters)
        if self._cursor.rowcount != 1:
            raise LedgerUnavailable("the budget moved under its lock; run `vl2v-vendor ledger verify`")
