"""Deciding the charges of one account while nobody else can write it: pure rules, no storage.

The adapter locks the account, reads what is needed, has each order decided here, and writes all that was decided. An
order that is refused changes nothing for those behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vl2v_contract.chain import ChainEnd, ChargedItem, EntryOrigin, LedgerEntry
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budget, Budgets
from vl2v_vendor.domain.admission import admit
from vl2v_vendor.domain.errors import InvalidRequest, PriceChanged, UnknownKey
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem, PaidItem, Price


@dataclass(slots=True)
class LockedAccount:
    """The end of an account's chain and the budgets of its keys, by API key id, under the account's lock."""

    end: ChainEnd
    key_budgets: dict[str, Budget]

    def budgets(self, api_key_id: str) -> Budgets:
        """Return the account's budget, and the key's own if it has one."""
        return Budgets(Budget(self.end.limit_units, self.end.used_units), self.key_budgets.get(api_key_id))


@dataclass(frozen=True, slots=True)
class DecidedCharge:
    """A decided charge, to be written: its entry, and the items with their vectors."""

    posted: StatementEntry
    items: tuple[NewItem, ...]


class AccountCharges:
    """Decides one order after the other, each upon what the one before left.

    Attributes:
        account: State that the decisions so far leave.
        decided: Charges to be written, in the order of the chain.

    Args:
        account: Account under its lock.
        keys: API keys of the orders, as they are now, by id.
        prices: Prices in force now, by model id and modality.
        paid: Those of the orders' items that the account has paid for, by item key.
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
        signing_key_id: str,
        now: int,
    ) -> None:
        self.account = account
        self.decided: list[DecidedCharge] = []
        self._keys = keys
        self._prices = prices
        self._paid = paid
        self._sold: dict[str, tuple[NewItem, ChargeOrder, int]] = {}
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
        budgets = self.account.budgets(order.api_key_id)
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
        self.decided.append(DecidedCharge(posted, admitted))
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
        currency = self.account.end.currency
        if price.currency != currency:
            raise InvalidRequest(
                f"{order.model_id} is sold in {price.currency} and this account is kept in {currency}; "
                f"ask the vendor for an account in {price.currency}"
            )
        return price

    def _compose_entry(self, order: ChargeOrder, price: Price, admitted: tuple[NewItem, ...]) -> StatementEntry:
        """Compose the entry that extends the account's chain, with its hash."""
        charged = tuple(ChargedItem(item.item_key, item.result_sha, item.units) for item in admitted)
        origin = EntryOrigin(order.request_id, self._now, self._signing_key_id)
        entry = LedgerEntry.charge(self.account.end, origin, order, charged, price.unit_price_micro)
        return StatementEntry(entry, entry.hash(), charged)

    def _advance(self, order: ChargeOrder, posted: StatementEntry, admitted: tuple[NewItem, ...]) -> Budgets:
        """Move the account on: budgets, chain, and the items that the orders behind will find paid."""
        account, entry = self.account, posted.entry
        account.end = entry.end(posted.entry_hash)
        key_budget = account.key_budgets.get(order.api_key_id)
        if key_budget is not None:
            key_budget = replace(key_budget, used_units=key_budget.used_units + entry.units)
            account.key_budgets[order.api_key_id] = key_budget
        for item in admitted:
            self._sold[item.item_key] = (item, order, entry.seq)
        return account.budgets(order.api_key_id)


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
