"""Random honest histories at the real vendor: purchases that go wrong in every way, by clients that die and come back.

The vendor is honest and its books are true; only the network and the clients fail. So an audit may name answers that
were really lost, and nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select, update

from support.client.buying_bench import buy, meet_vendor
from support.vendor.vendor_in_process import InProcessVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorError
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account
from vl2v_vendor.domain.errors import InvalidRequest
from vl2v_vendor.host import SystemClock
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.sql_ledger import prune_results
from vl2v_vendor.ledger_sql.tables import charge_items, results

MODEL = "hash-64"
WORDS = 30
"""Different texts that a party may want: what it has paid for in the end."""


class Killed(BaseException):
    """The client's process ends here."""


@dataclass
class Weather(httpx.BaseTransport):
    """The network, and the moments at which the client dies on it."""

    vendor: InProcessVendor
    dice: random.Random
    is_calm: bool = True

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "limit" in request.url.params:
            limit = self.dice.choice((1, 2, 3, 500))
            request.url = request.url.copy_set_param("limit", limit)
        if self.is_calm or request.method != "POST":
            return self.vendor.transport.handle_request(request)
        fate = self.dice.random()
        if fate < 0.08:
            raise Killed
        if fate < 0.16:
            raise httpx.ConnectError("no way", request=request)
        response = self.vendor.transport.handle_request(request)
        if fate < 0.40:
            raise Killed if fate < 0.30 else httpx.ReadError("cut", request=request)
        return response


class MortalLedger:
    """The client's own ledger, in a process that dies before or after one of its writes; nothing is written after."""

    def __init__(self, ledger: Any, dice: random.Random) -> None:
        self._ledger = ledger
        self._dice = dice
        self._is_dead = False

    def __getattr__(self, name: str) -> Any:
        act: Callable[..., Any] = getattr(self._ledger, name)
        return self._mortal(act) if name in ("reserve", "store", "release") else act

    def _mortal(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*words: Any) -> Any:
            fate = self._dice.random()
            self._is_dead = self._is_dead or fate < 0.05
            if self._is_dead:
                raise Killed
            done = act(*words)
            if fate > 0.95:
                self._is_dead = True
                raise Killed
            return done

        return attempt


@dataclass
class Party:
    """One API key and a cache file, opened anew for every step."""

    secret: str
    path: Path
    weather: Weather

    @contextmanager
    def open(self) -> Iterator[tuple[EmbeddingCache, VendorClient]]:
        with (
            EmbeddingCache(self.path) as cache,
            VendorClient(
                "http://vendor",
                self.secret,
                transport=self.weather,
                sleep=lambda _seconds: None,
                rng=random.Random(0),
            ) as client,
        ):
            yield cache, client

    def buy(self, texts: list[str], *, is_mortal: bool) -> None:
        with self.open() as (cache, client):
            plan = make_plan([], [TextQuery(text) for text in texts], meet_vendor(client, cache), cache)
            if is_mortal:
                cache.purchases = MortalLedger(cache.purchases, self.weather.dice)  # type: ignore[assignment]
            buy(plan, client, cache, allow_partial=True, skip_failed=True, workers=1)

    def audit(self, *, recover: bool = False) -> AuditReport:
        with self.open() as (cache, client):
            return audit_bill(client, cache, recover=recover, settle_seconds=0)

    def paid_items(self) -> int:
        with EmbeddingCache(self.path) as cache:
            return sum(vendor.paid_items for vendor in cache.stats().vendors)


@dataclass
class History:
    """One account's life.

    Attributes:
        happened: what to print when an audit raises a false alarm.
        tally: how often what happened.
    """

    vendor: InProcessVendor
    dice: random.Random
    folder: Path
    name: str
    tally: Counter[str]
    happened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.account: Account = self.vendor.accounts.create_account(self.name, budget_units=self.dice.randrange(5, 40))
        self.parties = [self._new_party(number) for number in range(self.dice.choice((1, 1, 2)))]

    def run(self, steps: int) -> None:
        """Let things happen, then let everybody finish in peace."""
        self.live(steps)
        self._finish()

    def live(self, steps: int) -> None:
        """Let things happen, with audits in between."""
        acts: list[Callable[[Party], None]] = [self._top_up, self._refund, self._change_price, self._expire]
        acts += [self._buy] * 5 + [self._look] * 2 + [self._recover] * 3
        for _ in range(steps):
            act = self.dice.choice(acts)
            self.happened.append(act.__name__)
            act(self.dice.choice(self.parties))

    def rotate_key(self) -> None:
        """The vendor goes on with a new signing key; to be called between two openings of it."""
        rotate_and_publish(self.vendor.engine, self.vendor.settings.secrets_path)

    def move_to(self, vendor: InProcessVendor) -> None:
        """The same account after a restart of the vendor."""
        self.vendor = vendor
        for party in self.parties:
            party.weather.vendor = vendor

    def _new_party(self, number: int) -> Party:
        key_units = self.dice.choice((None, None, WORDS))
        made = self.vendor.accounts.create_key(self.account, scopes=DEFAULT_SCOPES, limit_units=key_units)
        weather = Weather(self.vendor, self.dice)
        return Party(str(made[1]), self.folder / f"{self.name}-{number}.db", weather)

    def _buy(self, party: Party) -> None:
        texts = [f"{party.path.name} {self.dice.randrange(WORDS)}" for _ in range(self.dice.randrange(1, 12))]
        party.weather.is_calm = False
        try:
            party.buy(texts, is_mortal=self.dice.random() < 0.5)
        except Killed:
            self.tally["clients killed"] += 1
        except VendorError:
            self.tally["purchases refused or cut off"] += 1
        party.weather.is_calm = True

    def _look(self, party: Party) -> None:
        self._audit(party)

    def _audit(self, party: Party, *, recover: bool = False) -> None:
        report = party.audit(recover=recover)
        found = {str(kind): count for kind, count in report.findings.counts.items()}
        lost = self._lost_answers(party)
        self.tally["audits"] += 1
        self.tally["lost responses found"] += report.findings.counts.total()
        self.tally["lost responses recovered"] += report.recovered_items
        expected = {"lost_response": lost} if lost else {}
        assert found == expected, f"false alarm in {self.name}: {self.happened}: {report.findings}"

    def _recover(self, party: Party) -> None:
        self._audit(party, recover=True)

    def _top_up(self, _party: Party) -> None:
        self.account = self.vendor.accounts.top_up(self.account, self.dice.randrange(1, 20))

    def _refund(self, _party: Party) -> None:
        with suppress(InvalidRequest, LookupError):
            self.account = self.vendor.accounts.refund(self.account, self.dice.choice(self._charges()), 1, "sorry")

    def _change_price(self, _party: Party) -> None:
        self.vendor.accounts.set_price(MODEL, "text", self.dice.randrange(1, 50), "EUR")

    def _expire(self, _party: Party) -> None:
        with writing(self.vendor.engine).begin() as connection:
            connection.execute(update(results).where(results.c.account_id == self.account.id).values(expires_at=0))
        prune_results(self.vendor.engine, SystemClock())

    def _finish(self) -> None:
        self.vendor.accounts.top_up(self.account, 200)
        for party in self.parties:
            with party.open() as (cache, client):
                everything = [TextQuery(f"{party.path.name} {number}") for number in range(WORDS)]
                plan = make_plan([], everything, meet_vendor(client, cache), cache)
                buy(plan, client, cache, workers=1)
            self._audit(party, recover=True)
            report = party.audit()
            assert report.is_clean, f"not clean in the end: {self.name}: {self.happened}: {report.findings}"
            assert report.matched_items == party.paid_items() == WORDS

    def _lost_answers(self, party: Party) -> int:
        """Items that the vendor's database says were charged, and that this party's cache has not paid for."""
        with self.vendor.engine.connect() as connection:
            query = select(charge_items.c.item_key).where(charge_items.c.account_id == self.account.id)
            charged = [bytes.fromhex(key) for key in connection.execute(query).scalars()]
        with EmbeddingCache(party.path) as cache:
            return sum(item.state != "paid" for item in cache.records.named_items(charged).values())

    def _charges(self) -> list[int]:
        party = self.parties[0]
        with party.open() as (_cache, client):
            rows = [row for page in client.statement_pages() for row in page.entries]
        return [row.entry.seq for row in rows if row.entry.kind == "charge"]
