"""A state machine over HTTP: whatever is asked of the running vendor, the bill says it, on both databases.

The real app in process, as `bootstrap` opens it; on PostgreSQL two of them on one database. It checks what has no
meaning below HTTP: receipts (I7), answers that were lost (I8), replays (I9), three views on one truth (I11), what is
kept of an input (I12) and refusals (I14); and again I1 to I6.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.proofs.billing_invariants import Books, check_i8_charged_is_delivered, check_rows_add_up
from support.proofs.billing_model import Told
from support.proofs.billing_sales import FILES, PHRASES, TEXTS, Names, SalesBooks, body_of, key_of
from support.proofs.billing_world import NewDatabase, Shopfront, pick, prove_machine
from support.vendor.serving_shop import images, noise, save
from support.vendor.stored_bytes import check_i12_no_input_stored
from vl2v_contract.identity import Modality
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.sql_ledger import prune_results

MODEL = "hash-64"
IMAGE_NAMES, TEXT_NAMES = (
    st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=4, unique=True).map(tuple)
    for names in (FILES, PHRASES)
)
NAMES = IMAGE_NAMES | TEXT_NAMES
ANY = st.integers(0, 2**16)
FAULTS = st.sampled_from(["price", "maximum", "scope", "secret", "body", "item"])
FIRST_BUDGET = 6


class SalesMachine(RuleBasedStateMachine):
    """Requests of one account's keys, and the acts of the staff."""

    new_database: NewDatabase
    folder: Path

    @initialize()
    def open(self) -> None:
        self.books = SalesBooks(Shopfront(self.new_database, self.folder), FIRST_BUDGET)
        self.shop, self.model = self.books.shop, self.books.model

    def teardown(self) -> None:
        if hasattr(self, "books"):
            self.books.close()

    @rule(names=NAMES, key=ANY, partial=st.booleans(), replica=ANY)
    def buy(self, names: Names, key: int, partial: bool, replica: int) -> None:
        wish = self.books.wish(names, key, partial)
        answer = self.books.ask(names, wish.key_id, replica, allow_partial=partial)
        told = self.model.tell(wish)
        self.books.take(names, told, answer)
        if not told.charged:
            self.books.check_unchanged()

    @rule(names=NAMES, key=ANY, copies=st.integers(2, 4))
    def send_at_once(self, names: Names, key: int, copies: int) -> None:
        """One request several times at the same time: one of them pays, and all are served or all refused."""
        wish = self.books.wish(names, key, False)
        answers = self.books.ask_at_once(names, wish.key_id, copies)
        told = self.model.tell(wish)
        payers = [answer for answer in answers if answer.status_code == 200 and answer.json()["receipt"]]
        assert len(payers) == (1 if told.charged else 0)
        for answer in payers:
            self.books.take(names, told, answer)
        free = told if told.refusals else Told(replayed=frozenset(names))
        for answer in answers:
            if answer not in payers:
                self.books.take(names, free, answer)

    @rule(names=NAMES, key=ANY, replica=ANY)
    def lose_the_answer(self, names: Names, key: int, replica: int) -> None:
        """What it charged is delivered, free, to the next request under the same keys."""
        wish = self.books.wish(names, key, True)
        self.books.ask(names, wish.key_id, replica, allow_partial=True)
        told = self.model.tell(wish)
        self.books.counted_units += len(told.charged)
        if told.charged:
            again = self.books.ask(told.charged, wish.key_id, replica + 1)
            self.books.take(told.charged, Told(replayed=frozenset(told.charged)), again)

    @rule(names=NAMES, size=st.integers(1, 3), replica=ANY)
    def send_again_in_other_batches(self, names: Names, size: int, replica: int) -> None:
        paid = tuple(name for name in reversed(names) if name in self.model.paid)
        for start in range(0, len(paid), size):
            batch = paid[start : start + size]
            answer = self.books.ask(batch, self.books.key_id, replica, price_id=999)
            self.books.take(batch, Told(replayed=frozenset(batch)), answer)
        self.books.check_unchanged()

    @rule(names=NAMES, replica=ANY)
    def send_a_key_for_another_content(self, names: Names, replica: int) -> None:
        paid = [name for name in names if name in self.model.paid]
        if not paid:
            return
        path = body_of(names)[0]
        body = images(*(save(noise(32, 32, 99), "PNG") for _ in paid), keys=[*map(key_of, paid)])
        if path == TEXTS:
            body = {"items": [{"text": "another", "item_key": key_of(name)} for name in paid]}
        [answer] = self.books.send((replica, self.books.key_id, path, body))
        self.books.check_i14_refused(answer, {422})
        assert {item["code"] for item in answer.json()["items"]} == {"item_key_mismatch"}

    @rule(names=NAMES, fault=FAULTS, replica=ANY)
    def send_what_is_refused(self, names: Names, fault: str, replica: int) -> None:
        new = tuple(name for name in names if name not in self.model.paid)
        if not new:
            return
        path, body = body_of(new)
        faults = {"price": {"price_id": 999}, "maximum": {"max_charge_micro": 1}, "body": {"items": 5}}
        body |= faults.get(fault, {})
        if fault == "item":
            body["items"] = [{**item, "item_key": "g" * 64} for item in body["items"]]
        bearer = {"scope": self.books.reader_id, "secret": "vl2v_of-nobody"}.get(fault, self.books.key_id)
        statuses = {"price": {402, 409}, "maximum": {402, 409}, "scope": {403}, "secret": {401}}
        [answer] = self.books.send((replica, bearer, path, body))
        self.books.check_i14_refused(answer, statuses.get(fault, {422}))

    @rule(units=st.integers(1, 6))
    def top_up(self, units: int) -> None:
        self.shop.accounts.top_up(self.books.account, units)
        self.model.book()
        self.model.limit_units += units

    @rule(which=ANY)
    def refund(self, which: int) -> None:
        left = [seq for seq, charge in self.model.charges.items() if charge.units]
        if left:
            seq = pick(left, which)
            self.shop.accounts.refund(self.books.account, seq, 1, "test")
            self.model.book()
            self.model.charges[seq].units -= 1

    @rule(unit_price_micro=st.integers(2, 1000), modality=st.sampled_from(["image", "text"]))
    def move_the_price(self, unit_price_micro: int, modality: Modality) -> None:
        self.shop.accounts.set_price(MODEL, modality, unit_price_micro, "EUR")

    @rule(hours=st.sampled_from([-72, -1, 1, 24, 50]))
    def move_the_clock(self, hours: int) -> None:
        self.shop.clock.move(hours)
        self.model.hours += hours

    @rule()
    def prune(self) -> None:
        assert prune_results(self.shop.engine, self.shop.clock) == self.model.prune()

    @rule(limit_units=st.none() | st.integers(0, 6), hours=st.none() | st.integers(0, 30))
    def add_key(self, limit_units: int | None, hours: int | None) -> None:
        self.books.add_key(limit_units, hours)

    @rule(which=ANY)
    def revoke_key(self, which: int) -> None:
        """Any but the first, by which the invariants are checked."""
        others = list(self.model.keys)[1:]
        if others:
            key_id = pick(others, which)
            self.shop.accounts.revoke_key(key_id)
            self.model.keys[key_id].is_revoked = True

    @rule(restarted=st.booleans())
    def rotate_the_signing_key(self, restarted: bool) -> None:
        """Without a restart the servers take it over within a second, and meanwhile sign with the old one."""
        rotate_and_publish(self.shop.engine, self.shop.secrets_path)
        if restarted:
            self.restart()

    @rule()
    def restart(self) -> None:
        self.shop.restart()
        self.books.counted_units = 0

    @invariant()
    def every_invariant_holds(self) -> None:
        if not hasattr(self, "books"):
            return
        books = self.books
        books.settled = Books.read(self.shop.engine)
        check_rows_add_up(books.settled, books.ever_charged)
        rows = books.check_i7_receipts_are_in_the_statement()
        check_i8_charged_is_delivered(books.settled, map(key_of, books.results))
        books.check_i9_replay_changes_nothing()
        books.check_i11_three_views_agree(rows)
        check_i12_no_input_stored(self.shop.engine, books.log, books.traces)
        assert len(rows) == self.model.seq


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
@pytest.mark.timeout(7200)
def test_any_sequence_of_requests_is_billed_as_it_was_answered(kind: str, request: pytest.FixtureRequest) -> None:
    prove_machine(SalesMachine, "sales machine", request, examples=(4, 30), steps=(15, 30))
