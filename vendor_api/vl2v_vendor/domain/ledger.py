"""What goes into the ledger and what comes out of it, and the rules of charges, top-ups and refunds.

An item is absent, then posted, for ever. A failure leaves it absent. There are no holds: the units are known before
the work, and the charge is one transaction after it. The rules are pure: the adapter locks the account, reads what is
needed, has each order decided here, and writes what was decided; an order that is refused changes nothing for the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.chain import ChainEnd, ChargedItem, ChargeTerms, EntryOrigin, LedgerEntry
from vl2v_contract.identity import MAX_INTEGER, Modality
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import ApiKey, Budget, Budgets
from vl2v_vendor.domain.errors import BudgetExhausted, InvalidRequest, PriceChanged, UnknownKey

Vector = NDArray[np.float32]
"""`[D]` unit-norm float32 embedding, as computed and as kept for replay."""


MAX_UNIT_PRICE_MICRO = 10**12
"""A million in the currency; a request of thousands of items then still costs less than 2**53."""


@dataclass(frozen=True, slots=True)
class Price:
    """An immutable version of the price of one modality of one model, per unit."""

    id: int
    model_id: str
    modality: Modality
    unit_price_micro: int
    currency: str
    valid_from: int


@dataclass(frozen=True, slots=True)
class PaidItem:
    """An item that was charged once. `vector` is None when it is past its retention."""

    item_key: str
    seq: int
    fingerprint: str
    result_sha: str
    model_id: str
    weights_sha: str
    precision: str
    preprocessing_id: str
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a request is admitted by, as of one moment: the price in force, what is paid, and what may be spent.

    Attributes:
        paid: Those of the request's items that the account has paid for, by item key.
        budgets: Hint; only the charge itself decides.
    """

    price: Price
    paid: dict[str, PaidItem]
    budgets: Budgets


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with its freshly computed vector, checked finite and of unit norm, ready to be charged."""

    units: ClassVar[int] = 1

    item_key: str
    fingerprint: str
    result_sha: str
    vector: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeOrder(ChargeTerms):
    """One request's wish to charge its new items in one transaction, at the price that it was admitted at."""

    account_id: str
    request_id: str
    items: tuple[NewItem, ...]
    allow_partial: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """What became of a charge order.

    Attributes:
        posted: Entry; None when every item was paid by another request meanwhile.
        already_paid: Items that a concurrent request paid first; they are replayed, not charged.
        refused: Keys of the items beyond the longest prefix that the budgets admit (`allow_partial` only).
        budgets: Budgets after the charge.
    """

    posted: StatementEntry | None
    already_paid: tuple[PaidItem, ...]
    refused: tuple[str, ...]
    budgets: Budgets


def admit(wanted_units: int, budgets: Budgets, *, allow_partial: bool, delivers_free: bool = False) -> int:
    """Return how many of the wanted units both budgets admit.

    Before the work this is a hint that refuses early; inside the charge's transaction it decides.

    Args:
        wanted_units: Units of the new items.
        budgets: Budgets of the account and the key.
        allow_partial: Admit the longest prefix that fits, instead of all or nothing.
        delivers_free: Whether the answer also delivers items that are already paid, so that the prefix may be empty.

    Raises:
        BudgetExhausted: The units do not fit; names the budget that holds less.
    """
    name, budget = budgets.tighter
    fitting = min(wanted_units, max(0, budget.remaining_units))
    if fitting == wanted_units or (allow_partial and (fitting or delivers_free)):
        return fitting
    raise BudgetExhausted(
        budget=name, limit_units=budget.limit_units, remaining_units=budget.remaining_units, wanted_units=wanted_units
    )


@dataclass(eq=False, slots=True)
class AccountCharges:
    """Decides one order after the other, each upon what the one before left.

    Attributes:
        end: End of the account's chain, under its lock, as the decisions so far leave it.
        key_budgets: Budgets of its keys that have one of their own, by API key id; likewise.
        keys: API keys of the orders, as they are now, by id.
        prices: Prices in force now, by model id and modality.
        paid: Those of the orders' items that the account has paid for, by item key.
        signing_key_id: Key that will sign the receipts.
        now: Time of the database's clock, microseconds.
        decided: Entries to be written, in the order of the chain, each with its new items.
    """

    end: ChainEnd
    key_budgets: dict[str, Budget]
    keys: Mapping[str, ApiKey]
    prices: Mapping[tuple[str, str], Price]
    paid: Mapping[str, PaidItem]
    signing_key_id: str
    now: int
    decided: list[tuple[StatementEntry, tuple[NewItem, ...]]] = field(default_factory=list)
    _sold: dict[str, tuple[NewItem, ChargeOrder, int]] = field(default_factory=dict)

    def charge(self, order: ChargeOrder) -> Charge:
        """Charge the order's unpaid items, or refuse.

        Raises:
            BudgetExhausted: Nothing fits (or not everything, without `allow_partial`).
            PriceChanged: The price moved since admission.
            InvalidRequest: The price is in another currency than the account.
            UnknownKey, KeyRevoked, KeyExpired, Forbidden: The key was ended, or expired, since admission.
        """
        if order.api_key_id not in self.keys:
            raise UnknownKey
        self.keys[order.api_key_id].require("embed", now=self.now)
        price = self.prices.get((order.model_id, order.modality))
        if price is None or price.id != order.price_id:
            raise PriceChanged(
                f"price {order.price_id} of {order.model_id} is no longer in force; read `/v1/models` and send again"
            )
        if price.currency != self.end.currency:
            raise InvalidRequest(
                f"{order.model_id} is sold in {price.currency} and this account is kept in "
                f"{self.end.currency}; ask the vendor for an account in {price.currency}"
            )
        known = {item.item_key: found for item in order.items if (found := self._find(item.item_key)) is not None}
        paid = tuple(known.values())
        budgets = self._budgets(order.api_key_id)
        unpaid: dict[str, NewItem] = {}
        for item in order.items:
            if item.item_key not in known:
                unpaid.setdefault(item.item_key, item)
        wanted = tuple(unpaid.values())
        units = admit(len(wanted), budgets, allow_partial=order.allow_partial, delivers_free=bool(paid))
        admitted, refused = wanted[:units], tuple(item.item_key for item in wanted[units:])
        if not admitted:
            return Charge(None, paid, refused, budgets)
        charged = tuple(ChargedItem(item.item_key, item.result_sha, item.units) for item in admitted)
        origin = EntryOrigin(order.request_id, self.now, self.signing_key_id)
        entry = LedgerEntry.charge(self.end, origin, order, charged, price.unit_price_micro)
        posted = StatementEntry(entry, entry.hash(), charged)
        self.decided.append((posted, admitted))
        return Charge(posted, paid, refused, self._advance(order, posted, admitted))

    def _find(self, item_key: str) -> PaidItem | None:
        """Return the item, if it was paid for before, or by an order before this one."""
        if item_key not in self._sold:
            return self.paid.get(item_key)
        item, order, seq = self._sold[item_key]
        return PaidItem(
            item_key=item_key,
            seq=seq,
            fingerprint=item.fingerprint,
            result_sha=item.result_sha,
            model_id=order.model_id,
            weights_sha=order.weights_sha,
            precision=order.precision,
            preprocessing_id=order.preprocessing_id,
            vector=item.vector,
        )

    def _advance(self, order: ChargeOrder, posted: StatementEntry, admitted: tuple[NewItem, ...]) -> Budgets:
        """Move the account on: budgets, chain, and the items that the orders behind will find paid."""
        entry = posted.entry
        self.end = entry.end(posted.entry_hash)
        key_budget = self.key_budgets.get(order.api_key_id)
        if key_budget is not None:
            key_budget = replace(key_budget, used_units=key_budget.used_units + entry.units)
            self.key_budgets[order.api_key_id] = key_budget
        for item in admitted:
            self._sold[item.item_key] = (item, order, entry.seq)
        return self._budgets(order.api_key_id)

    def _budgets(self, api_key_id: str) -> Budgets:
        return Budgets(Budget(self.end.limit_units, self.end.used_units), self.key_budgets.get(api_key_id))


def decide_top_up(end: ChainEnd, origin: EntryOrigin, units: int, note: str | None) -> LedgerEntry:
    """Decide a top-up, which raises the account's limit by `units`.

    Raises:
        InvalidRequest: The number of units is not positive, or the limit would leave 53 bits.
    """
    if units <= 0 or end.limit_units + units > MAX_INTEGER:
        raise InvalidRequest(
            f"a top-up of {units} units is out of range; give a positive number, with a new limit below 2**53"
        )
    return LedgerEntry.top_up(end, origin, units, note)


def decide_refund(
    end: ChainEnd, origin: EntryOrigin, charge: LedgerEntry, refunded_units: int, units: int, note: str
) -> LedgerEntry:
    """Decide a refund, which gives `units` of a charge back; earlier ones gave `refunded_units` of it.

    Raises:
        InvalidRequest: The number of units is not positive, or more than the charge has left.
    """
    left_units = charge.units - refunded_units
    if not 0 < units <= left_units:
        raise InvalidRequest(
            f"{units} units cannot be refunded of entry {charge.seq}: {left_units} of its {charge.units} are left"
        )
    return LedgerEntry.refund(end, origin, charge, units, note)
