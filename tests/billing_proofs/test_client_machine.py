"""A state machine over the real client and the running vendor: I13, and both ledgers equal, whatever happens between.

Purchases with caps, each of which may die before it sends, after the vendor has charged, or before it stores; answers
that are lost; prices, top-ups, rotations, restarts and expiry at the vendor. A client that dies is opened again from
its file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.client.buying_bench import buy, meet_vendor
from support.proofs.billing_invariants import Books, check_rows_add_up
from support.proofs.billing_world import NewDatabase, Shopfront, prove_machine
from support.vendor.vendor_in_process import AppTransport
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import BudgetExhausted, VendorChanged
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import Limits, QueryPlan, make_plan
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.sql_ledger import prune_results

MODEL = "hash-64"
ALL_WORDS = [f"word {number}" for number in range(16)]
WORDS = st.lists(st.sampled_from(ALL_WORDS), min_size=1, max_size=8, unique=True)
DEATHS = st.sampled_from(["none", "before sending", "after the charge", "before storing", "answer lost"])
FIRST_BUDGET = 10


class Killed(BaseException):
    """The client's process is gone; nothing of it catches this."""


class SmallRequests(Shopfront):
    """Takes three items at a time, so that a purchase has several requests."""

    max_items = 3


class MortalTransport(httpx.BaseTransport):
    """Dies, or loses an answer, at the n-th purchase from now."""

    def __init__(self, shop: Shopfront) -> None:
        self._shop = shop
        self.death = "none"
        self.due = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        server = AppTransport(self._shop.apps[self.due % len(self._shop.apps)], self._shop.loop)
        is_due = False
        if request.url.path == "/v1/embeddings/texts":
            self.due -= 1
            is_due = self.due == 0
        if is_due and self.death == "before sending":
            raise Killed
        answer = server.handle_request(request)
        if is_due and self.death == "after the charge":
            raise Killed
        if is_due and self.death == "answer lost":
            raise httpx.ReadError("lost", request=request)
        return answer


class ClientMachine(RuleBasedStateMachine):
    """One client and its cache."""

    new_database: NewDatabase
    folder: Path

    @initialize()
    def open(self) -> None:
        self.shop = SmallRequests(self.new_database, self.folder)
        self.account = self.shop.accounts.create_account("acme", budget_units=FIRST_BUDGET)
        _, self.secret = self.shop.accounts.create_key(self.account, scopes=frozenset({"embed", "billing"}))
        self.transport = MortalTransport(self.shop)
        self.path = self.shop.folder / "client.db"
        self.start()
        self.old_plan: QueryPlan | None = None
        self.ever_charged: dict[tuple[str, str], int] = {}

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.end()
            self.shop.close()

    def start(self) -> None:
        """A process of the client."""
        self.client = VendorClient("http://vendor", self.secret, transport=self.transport, sleep=lambda _seconds: None)
        self.cache = EmbeddingCache(self.path)

    def end(self) -> None:
        self.client.close()
        self.cache.close()

    @rule(words=WORDS, cap=st.none() | st.integers(0, 8), death=DEATHS, at=st.integers(1, 3), workers=st.integers(1, 3))
    def buy(self, words: list[str], cap: int | None, death: str, at: int, workers: int) -> None:
        self.carry_out(self.plan(words), Limits(max_queries=cap), death, at, workers)

    @rule(words=WORDS)
    def plan_now_and_buy_later(self, words: list[str]) -> None:
        self.old_plan = self.plan(words)

    @rule(death=DEATHS)
    def buy_what_was_planned(self, death: str) -> None:
        """The price, or what is in the cache, may have changed."""
        if self.old_plan is not None:
            self.carry_out(self.old_plan, Limits(), death, 1, 2)

    @rule(units=st.integers(1, 8))
    def top_up(self, units: int) -> None:
        self.shop.accounts.top_up(self.account, units)

    @rule(unit_price_micro=st.integers(0, 1000))
    def move_the_price(self, unit_price_micro: int) -> None:
        self.shop.accounts.set_price(MODEL, "text", unit_price_micro, "EUR")

    @rule(hours=st.sampled_from([-24, 1, 50]), pruned=st.booleans())
    def move_the_clock(self, hours: int, pruned: bool) -> None:
        self.shop.clock.move(hours)
        if pruned:
            prune_results(self.shop.engine, self.shop.clock)

    @rule()
    def rotate_the_signing_key(self) -> None:
        rotate_and_publish(self.shop.engine, self.shop.secrets_path)
        self.shop.restart()

    @rule()
    def restart(self) -> None:
        self.shop.restart()

    @rule(words=WORDS)
    def come_to_rest(self, words: list[str]) -> None:
        """Nothing fails any more: what is charged comes free, and once the budget suffices all is paid once."""
        unanswered = {key.hex() for (key,) in self.rows("SELECT item_key FROM intents WHERE state = 'sent'")}
        for _ in range(2):  # the first asks what has become of them, the second sends again what is expired
            wanted = [item.query.text for item in self.plan(ALL_WORDS).missing if item.item_key in unanswered]
            self.carry_out(self.plan(wanted), Limits(max_queries=0), "none", 1, 2)
        assert self.states().get("paid", 0) == self.used_units()
        self.shop.accounts.top_up(self.account, 16)
        self.carry_out(self.plan(words), Limits(), "none", 1, 2)
        assert self.states().get("sent", 0) == 0
        assert self.states().get("paid", 0) == self.used_units()
        assert self.plan(words).missing == ()
        report = audit_bill(self.client, self.cache)
        assert (report.is_clean, report.matched_items) == (True, self.used_units())

    def plan(self, words: list[str]) -> QueryPlan:
        teacher = meet_vendor(self.client, self.cache)
        return make_plan([], [TextQuery(word) for word in words], teacher, self.cache)

    def carry_out(self, plan: QueryPlan, caps: Limits, death: str, at: int, workers: int) -> None:
        self.transport.death, self.transport.due = death, at
        [(earlier,)] = self.rows("SELECT coalesce(max(id), 0) FROM purchases")
        if death == "before storing":
            vars(self.cache.purchases)["store"] = self.die
        try:
            buy(plan, self.client, self.cache, caps=caps, allow_partial=True, workers=workers)
        except (BudgetExhausted, VendorChanged):
            pass
        except Killed:
            self.end()
            self.start()
        finally:
            self.transport.death = "none"
            vars(self.cache.purchases).pop("store", None)
        [(held,)] = self.rows(f"SELECT count(*) FROM intents WHERE state <> 'planned' AND purchase_id > {earlier}")
        assert caps.max_queries is None or held <= caps.max_queries

    def die(self, _delivery: Delivery) -> None:
        raise Killed

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def states(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT state, count(*) FROM intents GROUP BY state"))

    def used_units(self) -> int:
        return self.shop.accounts.find_account("acme").budget.used_units

    @invariant()
    def every_invariant_holds(self) -> None:
        if not hasattr(self, "ever_charged"):
            return
        check_rows_add_up(Books.read(self.shop.engine), self.ever_charged)
        self.check_i13_caps_hold()
        self.check_i13_paid_has_embedding_and_receipt()
        self.check_i13_nothing_is_charged_that_was_not_sent()

    def check_i13_caps_hold(self) -> None:
        """Paid and sent within each purchase's caps, in queries and in money."""
        held = "SELECT purchase_id, count(*), sum(unit_price_micro) FROM intents WHERE state <> 'planned' GROUP BY 1"
        caps = {row[0]: row[1:] for row in self.rows("SELECT id, max_units, max_amount_micro FROM purchases")}
        for purchase_id, units, amount_micro in self.rows(held):
            max_units, max_amount_micro = caps[purchase_id]
            assert units <= max_units
            assert amount_micro <= max_amount_micro

    def check_i13_paid_has_embedding_and_receipt(self) -> None:
        incomplete = (
            "SELECT count(*) FROM intents LEFT JOIN embeddings USING (cache_key)"
            " LEFT JOIN receipts USING (ledger_id, account_id, seq)"
            " WHERE state = 'paid' AND (vector IS NULL OR receipt_json IS NULL)"
        )
        assert self.rows(incomplete) == [(0,)]

    def check_i13_nothing_is_charged_that_was_not_sent(self) -> None:
        """The vendor's bill lies between what is paid here and what is paid or may have been."""
        states = self.states()
        paid, sent = states.get("paid", 0), states.get("sent", 0)
        assert paid <= self.used_units() <= paid + sent


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
@pytest.mark.timeout(7200)
def test_both_ledgers_agree_after_any_sequence_of_deaths(kind: str, request: pytest.FixtureRequest) -> None:
    prove_machine(ClientMachine, "client machine", request, examples=(4, 30), steps=(15, 30))
