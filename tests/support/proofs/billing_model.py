"""What a ledger should do, on plain dictionaries: one account, its keys, its price, and hours for time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import permutations

from support.ledger.ledger_shop import item_key
from support.proofs.billing_world import RETENTION_HOURS
from vl2v_vendor.domain.errors import BudgetExhausted, KeyExpired, KeyRevoked, PriceChanged
from vl2v_vendor.domain.ledger import Charge


@dataclass(frozen=True)
class Wish:
    """An order, by the names of its items."""

    names: tuple[str, ...]
    key_id: str
    price_id: int
    partial: bool = False


@dataclass(frozen=True)
class Told:
    """What an order should be told: refused for one of these reasons, or served."""

    refusals: tuple[type[Exception], ...] = ()
    seq: int | None = None
    charged: tuple[str, ...] = ()
    replayed: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    def fits(self, outcome: Charge | BaseException) -> bool:
        """Whether the ledger said just this."""
        if not isinstance(outcome, Charge):
            return type(outcome) in self.refusals
        posted = outcome.posted
        said = (
            posted.entry.seq if posted else None,
            [item.item_key for item in posted.items] if posted else [],
            {item.item_key for item in outcome.already_paid},
            list(outcome.refused),
        )
        charged, left_out = map(item_key, self.charged), map(item_key, self.left_out)
        return not self.refusals and said == (self.seq, [*charged], {*map(item_key, self.replayed)}, [*left_out])


@dataclass
class KeyState:
    limit_units: int | None
    expires_hours: float | None
    is_revoked: bool = False


@dataclass
class Paid:
    seq: int
    kept_until_hours: int
    is_pruned: bool = False


@dataclass
class ChargedEntry:
    """A charge: its key, and the units that were not refunded."""

    key_id: str
    units: int


@dataclass
class Model:
    """Attributes:
    charges: by seq.
    seq: the last one of any kind.
    booked_hours: the time of the last entry, which never goes back.
    """

    limit_units: int
    price_id: int
    seq: int
    keys: dict[str, KeyState] = field(default_factory=dict)
    paid: dict[str, Paid] = field(default_factory=dict)
    charges: dict[int, ChargedEntry] = field(default_factory=dict)
    hours: int = 0
    booked_hours: int = 0

    def used_units(self, key_id: str | None = None) -> int:
        return sum(charge.units for charge in self.charges.values() if key_id in (None, charge.key_id))

    def is_kept(self, name: str) -> bool:
        """Whether the item's vector can still be replayed."""
        paid = self.paid[name]
        return not paid.is_pruned and self.hours < paid.kept_until_hours

    def book(self) -> int:
        """The number of a new entry."""
        self.booked_hours = max(self.booked_hours, self.hours)
        self.seq += 1
        return self.seq

    def prune(self) -> int:
        """Forget what is past its retention; returns how much that was."""
        gone = [paid for name, paid in self.paid.items() if not paid.is_pruned and not self.is_kept(name)]
        for paid in gone:
            paid.is_pruned = True
        return len(gone)

    def tell(self, wish: Wish) -> Told:
        """Serve a wish."""
        key = self.keys[wish.key_id]
        reasons = {
            KeyRevoked: key.is_revoked,
            KeyExpired: key.expires_hours is not None and key.expires_hours <= self.hours,
            PriceChanged: wish.price_id != self.price_id,
        }
        refusals = tuple(kind for kind, holds in reasons.items() if holds)
        if refusals:
            return Told(refusals)
        replayed = frozenset(name for name in wish.names if name in self.paid)
        wanted = tuple(name for name in dict.fromkeys(wish.names) if name not in self.paid)
        room = self.limit_units - self.used_units()
        if key.limit_units is not None:
            room = min(room, key.limit_units - self.used_units(wish.key_id))
        charged = wanted[:room]
        if charged != wanted and not (wish.partial and (charged or replayed)):
            return Told((BudgetExhausted,))
        if not charged:
            return Told(replayed=replayed, left_out=wanted)
        seq = self.book()
        self.charges[seq] = ChargedEntry(wish.key_id, len(charged))
        self.paid |= {name: Paid(seq, self.booked_hours + RETENTION_HOURS) for name in charged}
        return Told((), seq, charged, replayed, wanted[len(charged) :])


def explained(model: Model, wishes: Sequence[Wish], outcomes: Sequence[Charge | BaseException]) -> Model | None:
    """The model after the wishes were served in some order that explains every outcome; None if there is none."""
    for order in permutations(range(len(wishes))):
        after = deepcopy(model)
        if all(after.tell(wishes[index]).fits(outcomes[index]) for index in order):
            return after
    return None
