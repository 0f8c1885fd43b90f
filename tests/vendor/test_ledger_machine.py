"""A state machine: any sequence of purchases, top-ups, refunds and restarts leaves books that add up.

The model is a dictionary of the items paid and the units refunded. After every step the budget must be what the
model says, and `ledger verify` must find nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger_shop import Shop, item_key, open_shop
from vl2v_vendor.adapters.sql.engine import open_engine
from vl2v_vendor.adapters.sql.scan import open_scan
from vl2v_vendor.domain.errors import BudgetExhausted, InvalidRequest
from vl2v_vendor.domain.ledger import Charge
from vl2v_vendor.service.verification import verify_ledger

NAMES = st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=6)


class LedgerMachine(RuleBasedStateMachine):
    """Purchases against a dictionary model, on SQLite."""

    template: Path

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vl2v-machine-"))
        shutil.copy(self.template, self.folder / "vendor.db")
        self.shop: Shop = open_shop(open_engine(f"sqlite:///{self.folder / 'vendor.db'}"), budget_units=8)
        self.limit_units = 8
        self.paid: dict[str, int] = {}
        self.charged: dict[int, int] = {}

    @property
    def used_units(self) -> int:
        return sum(self.charged.values())

    @rule(names=NAMES, allow_partial=st.booleans())
    def buy(self, names: list[str], allow_partial: bool) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self.paid]
        fitting = new[: self.limit_units - self.used_units]
        any_paid = len(new) < len(set(names))
        try:
            charge = self.shop.charge(self.shop.order(*names, allow_partial=allow_partial))
        except BudgetExhausted:
            assert len(fitting) < len(new)
            assert not allow_partial or not (fitting or any_paid)
            return
        assert isinstance(charge, Charge)
        assert fitting == new or allow_partial
        assert {item.item_key for item in charge.already_paid} == {
            item_key(name) for name in names if name in self.paid
        }
        if charge.posted is None:
            assert not fitting
            return
        assert [item.item_key for item in charge.posted.items] == [item_key(name) for name in fitting]
        seq = charge.posted.entry.seq
        self.paid |= dict.fromkeys(fitting, seq)
        self.charged[seq] = len(fitting)

    @rule(units=st.integers(1, 5))
    def top_up(self, units: int) -> None:
        self.shop.accounts.top_up(self.shop.account, units)
        self.limit_units += units

    @precondition(lambda self: self.charged)
    @rule(data=st.data(), units=st.integers(1, 4))
    def refund(self, data: st.DataObject, units: int) -> None:
        seq = data.draw(st.sampled_from(sorted(self.charged)))
        if units > self.charged[seq]:
            with pytest.raises(InvalidRequest):
                self.shop.accounts.refund(self.shop.account, seq, units, "test")
            return
        self.shop.accounts.refund(self.shop.account, seq, units, "test")
        self.charged[seq] -= units

    @rule(microseconds=st.integers(-10_000_000, 10_000_000))
    def move_the_clock(self, microseconds: int) -> None:
        self.shop.clock.time += microseconds

    @rule()
    def reopen(self) -> None:
        self.shop.engine.dispose()

    @rule(unit_price_micro=st.integers(0, 1000))
    def move_the_price(self, unit_price_micro: int) -> None:
        self.shop.price_id = self.shop.set_price(unit_price_micro)

    @invariant()
    def the_books_add_up(self) -> None:
        if not hasattr(self, "shop"):
            return
        with open_scan(self.shop.engine) as scan:
            report = verify_ledger(scan)
        assert report.problems == []
        assert report.items == len(self.paid)
        budget = self.shop.accounts.find_account("acme").budget
        assert (budget.used_units, budget.limit_units) == (self.used_units, self.limit_units)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.shop.engine.dispose()
            shutil.rmtree(self.folder)


def test_any_sequence_of_acts_leaves_books_that_add_up(migrated_sqlite: Path) -> None:
    class Machine(LedgerMachine):
        template = migrated_sqlite

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
