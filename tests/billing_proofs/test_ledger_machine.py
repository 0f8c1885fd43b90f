"""A state machine at the ledger's own interface: after any sequence of acts the books add up, on both databases.

Purchases, retries, other groupings, concurrent duplicates on one or two replicas, top-ups, refunds, prices, keys,
rotations, restarts, expiry and a clock that goes back, held against a model of dictionaries. After every step each
invariant that has a meaning here is checked; the others are in `test_sales_machine` and `test_client_machine`.
"""

from __future__ import annotations

import asyncio
import random
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.ledger.ledger_shop import MODEL, item_key, make_order, new_item, problems_of, vector_of
from support.proofs.billing_invariants import (
    Books,
    check_i8_charged_is_delivered,
    check_i10_append_only,
    check_i11_totals_agree,
    check_rows_add_up,
)
from support.proofs.billing_model import KeyState, Model, Wish, explained
from support.proofs.billing_world import HOUR_MICRO, NewDatabase, World, pick, prove_machine
from vl2v_contract.records import StatementEntry
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, NewItem
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.sql_ledger import prune_results

NAMES = st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=5).map(tuple)
ANY = st.integers(0, 2**16)  # which of those there are: the choice must not depend on a race's outcome
HOURS = st.sampled_from([-72, -1, 1, 24, 50])
FIRST_BUDGET = 10


class LedgerMachine(RuleBasedStateMachine):
    """Any acts, against a model."""

    new_database: NewDatabase
    folder: Path

    @initialize()
    def open(self) -> None:
        self.world = World(self.new_database, self.folder)
        self.requests = count(1)
        self.account = self.world.accounts.create_account("acme", budget_units=FIRST_BUDGET)
        self.model = Model(FIRST_BUDGET, self.world.set_price(100), seq=1)
        self.old_price_ids: list[int] = []
        self.posted: list[StatementEntry] = []
        self.ever_charged: dict[tuple[str, str], int] = {}
        self.add_key(None, None)
        self.add_key(3, None)
        self.settled = Books.read(self.world.engine)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    # Acts

    @rule(names=NAMES, key=ANY, partial=st.booleans())
    def buy(self, names: tuple[str, ...], key: int, partial: bool) -> None:
        self.serve([self.wish(names, key, partial)])

    @rule(groups=st.lists(st.tuples(NAMES, ANY, st.booleans()), min_size=2, max_size=4), doubled=st.booleans())
    def buy_at_once(self, groups: list[tuple[tuple[str, ...], int, bool]], doubled: bool) -> None:
        """Overlapping orders at the same time, on every replica; `doubled`: one order sent several times."""
        wishes = [self.wish(*(groups[0] if doubled else group)) for group in groups]
        self.serve(wishes)

    @rule(dice=st.randoms(use_true_random=False), size=st.integers(1, 4), key=ANY)
    def buy_again_in_other_batches(self, dice: random.Random, size: int, key: int) -> None:
        names = sorted(self.model.paid)
        dice.shuffle(names)
        for start in range(0, len(names), size):
            self.serve([self.wish(tuple(names[start : start + size]), key, False)])

    @rule(name=ANY, key=ANY)
    def buy_a_key_for_another_content(self, name: int, key: int) -> None:
        if not self.model.paid:
            return
        wish = self.wish((pick(sorted(self.model.paid), name),), key, False)
        order = self.order(wish, new_item(wish.names[0], fingerprint="f" * 64))
        [outcome] = self.charge([order])
        assert self.model.tell(wish).fits(outcome)
        if isinstance(outcome, Charge):
            assert [item.fingerprint for item in outcome.already_paid] == [new_item(wish.names[0]).fingerprint]

    @rule(names=NAMES, which=ANY)
    def buy_at_an_old_price(self, names: tuple[str, ...], which: int) -> None:
        if self.old_price_ids:
            key_id = next(iter(self.model.keys))
            self.serve([Wish(names, key_id, pick(self.old_price_ids, which), True)])

    @rule(units=st.integers(1, 6))
    def top_up(self, units: int) -> None:
        self.world.accounts.top_up(self.account, units)
        self.model.book()
        self.model.limit_units += units

    @rule(which=ANY, units=st.integers(1, 4), too_many=st.booleans())
    def refund(self, which: int, units: int, too_many: bool) -> None:
        left = {seq: charge.units for seq, charge in self.model.charges.items() if charge.units}
        if not left:
            return
        seq = pick(sorted(left), which)
        if too_many:
            with pytest.raises(InvalidRequest):
                self.world.accounts.refund(self.account, seq, left[seq] + units, "test")
            self.check_i14_refusals_change_nothing()
            return
        units = min(units, left[seq])
        self.world.accounts.refund(self.account, seq, units, "test")
        self.model.book()
        self.model.charges[seq].units -= units

    @rule(unit_price_micro=st.integers(0, 1000))
    def move_the_price(self, unit_price_micro: int) -> None:
        self.old_price_ids.append(self.model.price_id)
        self.model.price_id = self.world.set_price(unit_price_micro)

    @rule(hours=HOURS)
    def move_the_clock(self, hours: int) -> None:
        self.world.clock.move(hours)
        self.model.hours += hours

    @rule()
    def prune(self) -> None:
        assert prune_results(self.world.engine, self.world.clock) == self.model.prune()

    @rule(limit_units=st.none() | st.integers(0, 6), hours=st.none() | st.integers(0, 30))
    def add_key(self, limit_units: int | None, hours: int | None) -> None:
        expires_at = None if hours is None else self.world.clock.now() + hours * HOUR_MICRO + HOUR_MICRO // 2
        key, _ = self.world.accounts.create_key(
            self.account, scopes=DEFAULT_SCOPES, limit_units=limit_units, expires_at=expires_at
        )
        expires_hours = None if hours is None else self.model.hours + hours + 0.5
        self.model.keys[key.id] = KeyState(limit_units, expires_hours)

    @rule(which=ANY)
    def revoke_key(self, which: int) -> None:
        key_id = pick(list(self.model.keys), which)
        self.world.accounts.revoke_key(key_id)
        self.model.keys[key_id].is_revoked = True

    @rule(restarted=st.booleans())
    def rotate_the_signing_key(self, restarted: bool) -> None:
        key = rotate_and_publish(self.world.engine, self.world.secrets_path)
        if restarted:
            self.world.restart()
        else:
            assert self.world.watch.check()
        assert self.world.signer.key_id == key.key_id

    @rule()
    def restart(self) -> None:
        self.world.restart()

    # What the acts are made of

    def wish(self, names: tuple[str, ...], key: int, partial: bool) -> Wish:
        return Wish(names, pick(list(self.model.keys), key), self.model.price_id, partial)

    def order(self, wish: Wish, *items: NewItem) -> ChargeOrder:
        chosen = tuple(items or map(new_item, wish.names))
        return make_order(
            self.account.id, wish.key_id, f"req_{next(self.requests):024x}",
            price_id=wish.price_id, items=chosen, allow_partial=wish.partial,
        )  # fmt: skip

    def charge(self, orders: list[ChargeOrder]) -> list[Charge | BaseException]:
        """All at once, dealt out to the replicas."""
        ledgers = self.world.ledgers

        async def told() -> list[Charge | BaseException]:
            tries = (ledgers[index % len(ledgers)].charge(order) for index, order in enumerate(orders))
            return await asyncio.gather(*tries, return_exceptions=True)

        return self.world.run(told())

    def serve(self, wishes: list[Wish]) -> None:
        outcomes = self.charge([self.order(wish) for wish in wishes])
        after = explained(self.model, wishes, outcomes)
        assert after is not None, outcomes
        if after == self.model:
            self.check_i14_refusals_change_nothing()
        self.model = after
        self.posted += [outcome.posted for outcome in outcomes if isinstance(outcome, Charge) and outcome.posted]

    # Invariants

    @invariant()
    def every_invariant_holds(self) -> None:
        if not hasattr(self, "settled"):
            return
        self.settled = books = Books.read(self.world.engine)
        check_rows_add_up(books, self.ever_charged)
        check_i8_charged_is_delivered(books, map(item_key, self.model.paid))
        check_i10_append_only(self.world.engine, books)
        totals = self.world.run(self.world.ledgers[-1].totals(self.account.id))
        check_i11_totals_agree(books, {self.account.id: totals})
        self.check_i7_posted_is_in_the_statement()
        self.check_i9_replay_changes_nothing()
        self.check_the_model()
        assert problems_of(self.world.engine) == []

    def check_i7_posted_is_in_the_statement(self) -> None:
        entries = self.world.run(self.world.ledgers[-1].entries(self.account.id, after_seq=0, limit=1000))
        shown = {posted.entry.seq: posted for posted in entries}
        for posted in self.posted:
            assert shown[posted.entry.seq] == posted
            assert self.world.signer.sign_receipt(posted.entry, posted.entry_hash)

    def check_i9_replay_changes_nothing(self) -> None:
        """Whoever asks for all that is paid gets it, as far as it is kept, and no number moves."""
        names = sorted(self.model.paid)
        caller = self.world.accounts.keys(self.account.id)[0]
        found = self.world.run(self.world.ledgers[-1].offer(caller, MODEL, "image", [*map(item_key, names)])).paid
        assert {key: item.seq for key, item in found.items()} == {
            item_key(name): self.model.paid[name].seq for name in names
        }
        for name in names:
            vector = found[item_key(name)].vector
            assert (vector is not None) == self.model.is_kept(name)
            assert vector is None or np.array_equal(vector, vector_of(name))
        if names:
            wish = Wish(tuple(names), next(iter(self.model.keys)), self.model.price_id)
            [outcome] = self.charge([self.order(wish)])
            assert self.model.tell(wish).fits(outcome)
        self.check_i14_refusals_change_nothing()

    def check_i14_refusals_change_nothing(self) -> None:
        assert Books.read(self.world.engine) == self.settled

    def check_the_model(self) -> None:
        """The budgets are the model's: I1 and I2 against what was really asked for."""
        told = {row.api_key_id: (row.used_units, row.limit_units) for row in self.settled.budgets}
        assert told.pop(None) == (self.model.used_units(), self.model.limit_units)
        assert told == {
            key_id: (self.model.used_units(key_id), key.limit_units)
            for key_id, key in self.model.keys.items()
            if key.limit_units is not None
        }
        keys = self.world.run(self.world.ledgers[-1].published_keys())
        assert [key.key_id for key in keys] == [key.key_id for key in self.world.signer.published_keys]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
@pytest.mark.timeout(7200)
def test_any_sequence_of_acts_leaves_books_that_add_up(kind: str, request: pytest.FixtureRequest) -> None:
    prove_machine(LedgerMachine, "ledger machine", request, examples=(10, 60), steps=(15, 40))
