"""Honest books with something of everything, at the real vendor, and the cache of the client who bought."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from support.adversary.lying_vendor import Lie, LyingVendor, Truth
from support.client.buying_bench import buy, meet_vendor
from support.vendor.vendor_in_process import InProcessVendor, open_vendor, vendor_settings
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.settings import Settings

MODEL = "hash-64"
BATCH = 5


@dataclass(frozen=True)
class Party:
    """One API key and the cache of whoever holds it."""

    secret: str
    cache: Path

    def connect(self, transport: httpx.BaseTransport) -> VendorClient:
        return VendorClient(
            "http://vendor", self.secret, transport=transport, sleep=lambda _seconds: None, rng=random.Random(0)
        )

    def read_truth(self, vendor: InProcessVendor) -> Truth:
        bearer = {"Authorization": f"Bearer {self.secret}"}
        with httpx.Client(transport=vendor.transport, base_url="http://vendor", headers=bearer) as http:
            return Truth.read(http, vendor.signing_keys)

    def buy(self, vendor: InProcessVendor, texts: Sequence[str]) -> None:
        with EmbeddingCache(self.cache) as cache, self.connect(vendor.transport) as client:
            plan = make_plan([], [TextQuery(text) for text in texts], meet_vendor(client, cache), cache)
            buy(plan, client, cache, workers=1)


@dataclass(frozen=True)
class HonestBooks:
    """The vendor with its books written, and our cache: as it was before any audit, and after one.

    Attributes:
        fresh: never audited.
        pinned: audited up to the end.
    """

    vendor: InProcessVendor
    truth: Truth
    fresh: Party
    pinned: Party

    def told(self, lie: Lie) -> LyingVendor:
        return LyingVendor(self.vendor.transport, self.truth, lie)


def write_books(home: Path, migrated_sqlite: Path) -> tuple[Settings, Party]:
    """Let a vendor and two customers of one account make the history that `lies` speaks of."""
    settings = vendor_settings(home / "vendor", migrated_sqlite, max_items=BATCH)
    with open_vendor(settings) as vendor:
        account = vendor.accounts.create_account("acme", budget_units=100)
        secrets = [str(vendor.accounts.create_key(account, scopes=DEFAULT_SCOPES)[1]) for _ in range(2)]
        ours, theirs = (Party(secret, home / f"{name}.db") for secret, name in zip(secrets, "ab", strict=True))
        ours.buy(vendor, texts("first", 3 * BATCH))
        theirs.buy(vendor, texts("theirs", BATCH))
        vendor.accounts.refund(account, 3, 2, "sorry")
        vendor.accounts.top_up(account, 50)
        vendor.accounts.set_price(MODEL, "text", 20, "EUR")
        ours.buy(vendor, texts("dearer", BATCH))
        rotate_and_publish(vendor.engine, settings.secrets_path)
    with open_vendor(settings) as vendor:
        ours.buy(vendor, texts("newly signed", BATCH))
        theirs.buy(vendor, texts("theirs again", BATCH))
    return settings, ours


def pin(party: Party, vendor: InProcessVendor, copy: Path) -> Party:
    """The same party after an honest audit, with a cache of its own."""
    shutil.copy(party.cache, copy)
    pinned = Party(party.secret, copy)
    with EmbeddingCache(copy) as cache, pinned.connect(vendor.transport) as client:
        assert audit_bill(client, cache).is_clean
    return pinned


def texts(name: str, count: int) -> list[str]:
    return [f"{name} {number}" for number in range(count)]
