"""Deciding the charges of one account while nobody else can write it: pure rules, no storage.

The adapter locks the account, reads what is needed, has each order decided here, and writes all that was decided. An
order that is refused changes nothing for those behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vl2v_contract.chain import ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budget, Budgets
from vl2v_vendor.domain.admission import admit
from vl2v_vendor.domain.errors import InvalidRequest, PriceChanged, UnknownKey
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem, PaidItem, Price


@dataclass(slots=True)
class LockedAccount:
    """An account's budgets and the end of its chain, under its lock; `key_budgets` by API key id."""

    account_id: str
    currency: str
    budget: Budget
    key_budgets: dict[str, Budget]
    last_seq: int
    head_hash: str
    last_created_at: int


@dataclass(frozen=True, slots=True)
class Posting:
    """A decided charge, to be written: its entry, and the items with their vectors."""

    posted: StatementEntry
    items: tuple[NewItem, ...]


class AccountCharges:
    """Decides one order after the other, each upon what the one before left.

    Attributes:
        account: State that the decisions so far leave.
        postings: Decided charges to be written, in the order of the chain.

    Args:
        account: Account under its lock.
        keys: API keys of the orders, as they are now, by id.
        prices: Prices in force now, by model id and modality.
        paid: Those of the orders' items that the account has paid for, by item key.
        ledger_id: Ledger that every entry names.
        signing_key_id: Key that will sign the receipts.
        now: Time of the database's clock, microseconds.
    """

    def __init__(
        self,
        account: LockedAccount,
        *,
        keys: Mapping[str, ApiKey],
        prices: Mapping[tuple[str, str], Price],
        paid: Mapping[str, PaidItem],
        ledger_id: str,
        signing_key_id: str,
        now: int,
    ) -> None:
        self.account = account
        self.postings: list[Posting] = []
        self._keys = keys
        self._prices = prices
        self._paid = paid
        self._sold: dict[str, tuple[NewItem, ChargeOrder, int]] = {}
        self._ledger_id = ledger_id
        self._signing_key_id = signing_key_id
        self._now = now

    def charge(self, order: ChargeOrder) -> Charge:
        """Charge the order's unpaid items, or refuse.

        Raises:
            BudgetExhausted: Nothing fits (or not everything, without `allow_partial`).
            PriceChanged: The price moved since admission.
            AuthenticationError, Forbidden: The key was revoked, or expired, since admission.
        """
        if order.api_key_id not in self._keys:
            raise UnknownKey
        self._keys[order.api_key_id].require("embed", now=self._now)
        price = self._confirm_price(order)
        known = {item.item_key: found for item in order.items if (found := self._find(item.item_key)) is not None}
        paid = tuple(known.values())
        budgets = Budgets(self.account.budget, self.account.key_budgets.get(order.api_key_id))
        unpaid: dict[str, NewItem] = {}
        for item in order.items:
            if item.item_key not in known:
                unpaid.setdefault(item.item_key, item)
        wanted = tuple(unpaid.values())
        units = admit(len(wanted), budgets, allow_partial=order.allow_partial, delivers_free=bool(paid))
        admitted, refused = wanted[:units], tuple(item.item_key for item in wanted[units:])
        if not admitted:
            return Charge(None, paid, refused, budgets)
        posted = self._compose_entry(order, price, admitted)
        self.postings.append(Posting(posted, admitted))
        return Charge(posted, paid, refused, self._advance(order, posted, admitted))

    def _find(self, item_key: str) -> PaidItem | None:
        """Return the item, if it was paid for before, or by an order before this one."""
        sold = self._sold.get(item_key)
        return self._paid.get(item_key) if sold is None else _as_paid(*sold)

    def _confirm_price(self, order: ChargeOrder) -> Price:
        """Return the price in force, if it is still the one that the order was admitted at."""
        price = self._prices.get((order.model_id, order.modality))
        if price is None or price.id != order.price_id:
            raise PriceChanged(
                f"price {order.price_id} of {order.model_id} is no longer in force; read `/v1/models` and send again"
            )
        if price.currency != self.account.currency:
            raise InvalidRequest(
                f"{order.model_id} is sold in {price.currency} and this account is kept in {self.account.currency}; "
                f"ask the vendor for an account in {price.currency}"
            )
        return price

    def _compose_entry(self, order: ChargeOrder, price: Price, admitted: tuple[NewItem, ...]) -> StatementEntry:
        """Compose the entry that extends the account's chain, with its hash."""
        account = self.account
        charged = tuple(ChargedItem(item.item_key, item.result_sha, item.units) for item in admitted)
        units = sum(item.units for item in admitted)
        entry = LedgerEntry(
            ledger_id=self._ledger_id,
            account_id=account.account_id,
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
            used_units=account.budget.used_units + units,
            limit_units=account.budget.limit_units,
            created_at=max(self._now, account.last_created_at),
            signing_key_id=self._signing_key_id,
            prev_hash=account.head_hash,
        )
        return StatementEntry(entry, entry.hash(), charged)

    def _advance(self, order: ChargeOrder, posted: StatementEntry, admitted: tuple[NewItem, ...]) -> Budgets:
        """Move the account on: budgets, chain, and the items that the orders behind will find paid."""
        account, entry = self.account, posted.entry
        account.budget = Budget(entry.limit_units, entry.used_units)
        account.last_seq = entry.seq
        account.head_hash = posted.entry_hash
        account.last_created_at = entry.created_at
        key_budget = account.key_budgets.get(order.api_key_id)
        if key_budget is not None:
            key_budget = replace(key_budget, used_units=key_budget.used_units + entry.units)
            account.key_budgets[order.api_key_id] = key_budget
        for item in admitted:
            self._sold[item.item_key] = (item, order, entry.seq)
        return Budgets(account.budget, key_budget)


def _as_paid(item: NewItem, order: ChargeOrder, seq: int) -> PaidItem:
    return PaidItem(
        item_key=item.item_key,
        seq=seq,
        fingerprint=item.fingerprint,
        result_sha=item.result_sha,
        model_id=order.model_id,
        weights_sha=order.weights_sha,
        precision=order.precision,
        preprocessing_id=order.preprocessing_id,
        vector=item.vector,
    )
