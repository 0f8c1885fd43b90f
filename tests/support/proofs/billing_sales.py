"""A shop over HTTP whose every answer is held against a model, and the invariants that only its answers can show."""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import fields
from typing import Any

import httpx

from support.proofs.billing_invariants import Books
from support.proofs.billing_model import KeyState, Model, Told, Wish
from support.proofs.billing_world import HOUR_MICRO, Shopfront, pick
from support.vendor.serving_shop import images, noise, save
from support.vendor.stored_bytes import LogCollector, forms_of, traces_of
from vl2v_contract.chain import LedgerEntry
from vl2v_contract.identity import rgb8_sha
from vl2v_contract.records import head_message, receipt_message, recompute_message, verify
from vl2v_vendor.domain.errors import BudgetExhausted, KeyExpired, KeyRevoked

IMAGES, TEXTS, REPLAY = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings/replay"
PICTURES = {name: noise(32, 32, seed) for seed, name in enumerate("abcdefgh")}
FILES = {name: save(picture, "PNG") for name, picture in PICTURES.items()}
PHRASES = {name: f"a photo of a {name * 3} on the table" for name in "stuvwxyz"}
STATUSES = {BudgetExhausted: 402, KeyRevoked: 401, KeyExpired: 401}

Names = tuple[str, ...]
Body = dict[str, Any]
Sent = tuple[int, str, str, Body]
"""Which server is asked, by whom, the path, and the body."""


def key_of(name: str) -> str:
    """The item key, as a client makes it: it gives nothing away of the content."""
    return hmac.new(b"the client's own", name.encode(), "sha256").hexdigest()


def body_of(names: Names, **options: object) -> tuple[str, Body]:
    """The path and body that ask for these."""
    if names[0] in FILES:
        return IMAGES, images(*(FILES[name] for name in names), keys=[*map(key_of, names)], **options)
    items = [{"text": PHRASES[name], "item_key": key_of(name)} for name in names]
    return TEXTS, {"items": items, **options}


def traces_of_input(name: str) -> set[bytes]:
    """What must be found nowhere, once this was sent."""
    if name in PHRASES:
        return set(traces_of(PHRASES[name].encode()))
    pixels = PICTURES[name].tobytes()
    return {*traces_of(FILES[name]), *traces_of(pixels), *forms_of(rgb8_sha(pixels, width=32, height=32))}


class SalesBooks:
    """One account's keys at a shop, what they were answered, and what they should have been.

    Attributes:
        receipts: as first given, by seq.
        results: `result_sha` of every item delivered, by name.
        counted_units: billed in answers since the servers started.
        settled: the rows after the last step.
    """

    def __init__(self, shop: Shopfront, budget_units: int) -> None:
        self.shop = shop
        self.log = LogCollector().__enter__()
        self.account = shop.accounts.create_account("acme", budget_units=budget_units)
        self.model = Model(budget_units, price_id=0, seq=1)
        self.secrets: dict[str, str] = {}
        self.add_key(None, None)
        self.add_key(3, None)
        self.key_id = next(iter(self.secrets))
        reader, secret = shop.accounts.create_key(self.account, scopes=frozenset({"billing"}))
        self.reader_id = reader.id
        self.secrets[reader.id] = str(secret)
        self.receipts: dict[int, Body] = {}
        self.results: dict[str, str] = {}
        self.traces: set[bytes] = set()
        self.counted_units = 0
        self.ever_charged: dict[tuple[str, str], int] = {}
        self.settled = Books.read(shop.engine)

    def close(self) -> None:
        self.log.__exit__()
        self.shop.close()

    def add_key(self, limit_units: int | None, hours: int | None) -> None:
        expires_at = None if hours is None else self.shop.clock.now() + hours * HOUR_MICRO + HOUR_MICRO // 2
        key, secret = self.shop.accounts.create_key(
            self.account, scopes=frozenset({"embed", "billing"}), limit_units=limit_units, expires_at=expires_at
        )
        self.secrets[key.id] = str(secret)
        self.model.keys[key.id] = KeyState(limit_units, None if hours is None else self.model.hours + hours + 0.5)

    # Asking

    def wish(self, names: Names, key: int, partial: bool) -> Wish:
        return Wish(names, pick(list(self.model.keys), key), 0, partial)

    def send(self, *requests: Sent) -> list[httpx.Response]:
        """Post all at once; a key id that is unknown is sent as it is."""

        async def post(replica: int, key_id: str, path: str, body: Body) -> httpx.Response:
            async with self.shop.client(replica, self.secrets.get(key_id, key_id)) as client:
                return await client.post(path, json=body)

        async def told() -> list[httpx.Response]:
            return await asyncio.gather(*(post(*request) for request in requests))

        return self.shop.run(told())

    def ask(self, names: Names, key_id: str, replica: int, **options: object) -> httpx.Response:
        self._trace(names)
        return self.send((replica, key_id, *body_of(names, **options)))[0]

    def ask_at_once(self, names: Names, key_id: str, copies: int) -> list[httpx.Response]:
        self._trace(names)
        return self.send(*((replica, key_id, *body_of(names)) for replica in range(copies)))

    def _trace(self, names: Names) -> None:
        for name in names:
            self.traces |= traces_of_input(name)

    def get(self, path: str, **parameters: int) -> Any:
        """What the last server says to the key that may only read the bill."""

        async def told() -> httpx.Response:
            async with self.shop.client(-1, self.secrets[self.reader_id]) as client:
                return await client.get(path, params=parameters)

        answer = self.shop.run(told())
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.text

    # Being answered

    def take(self, names: Names, told: Told, answer: httpx.Response) -> None:
        """Hold an answer against what it should be."""
        if told.refusals:
            self.check_i14_refused(answer, {STATUSES[reason] for reason in told.refusals})
            return
        assert answer.status_code == 200, answer.text
        found = answer.json()
        for name, item in zip(names, found["data"], strict=True):
            replayed = "replayed" if name in told.replayed and self.model.is_kept(name) else "recomputed"
            expected = "billed" if name in told.charged else "failed" if name in told.left_out else replayed
            assert item["status"] == expected, (name, item)
            self.learn(name, item)
        assert found["usage"]["billed_units"] == len(told.charged)
        assert (found["receipt"] is not None) == bool(told.charged)
        if told.charged:
            assert found["receipt"]["entry"]["seq"] == told.seq
            self.receipts[found["receipt"]["entry"]["seq"]] = found["receipt"]
            self.counted_units += len(told.charged)
        for record in found["paid_by"]:
            assert record["receipt"] == self.receipts.get(record["receipt"]["entry"]["seq"], record["receipt"])

    def learn(self, name: str, item: Body) -> None:
        """A vector is the same whenever it comes, and its entry is the one that paid."""
        if item["status"] == "failed":
            assert item["embedding"] is None
            return
        assert item["embedding"]
        assert item["seq"] == self.model.paid[name].seq
        assert self.results.setdefault(name, item["result_sha"]) == item["result_sha"]
        if item["status"] == "recomputed":
            note = item["recompute"]["note"]
            assert note["recompute_of"] == self.results[name]
            assert verify(self.public_keys()[note["key_id"]], recompute_message(note), item["recompute"]["signature"])

    def check_i14_refused(self, answer: httpx.Response, statuses: set[int]) -> None:
        assert answer.status_code in statuses, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        self.check_unchanged()

    def check_unchanged(self) -> None:
        assert Books.read(self.shop.engine) == self.settled

    # The bill

    def public_keys(self) -> dict[str, str]:
        return {key["key_id"]: key["public_key"] for key in self.get("/v1/billing/keys")["keys"]}

    def check_i7_receipts_are_in_the_statement(self) -> list[Body]:
        """Byte for byte, and signed; returns the statement's rows."""
        rows, after_seq = [], 0
        while True:
            page = self.get("/v1/billing/statement", after_seq=after_seq, limit=7)
            rows += page["entries"]
            if page["next_after_seq"] is None:
                break
            after_seq = page["next_after_seq"]
        keys, head = self.public_keys(), page["signed_head"]["head"]
        assert verify(keys[head["key_id"]], head_message(head), page["signed_head"]["signature"])
        assert (head["seq"], head["entry_hash"]) == (len(rows), rows[-1]["entry_hash"])
        shown = {row["entry"]["seq"]: row for row in rows}
        for seq, receipt in self.receipts.items():
            assert (receipt["entry"], receipt["entry_hash"]) == (shown[seq]["entry"], shown[seq]["entry_hash"])
            entry = LedgerEntry(**{field.name: receipt["entry"][field.name] for field in fields(LedgerEntry)})
            assert entry.hash() == receipt["entry_hash"]
            assert verify(keys[receipt["key_id"]], receipt_message(receipt["entry_hash"]), receipt["signature"])
        for seq in [*self.receipts][:1] + [*self.receipts][-1:]:
            record = self.get(f"/v1/billing/requests/{self.receipts[seq]['entry']['request_id']}")
            assert record == {"receipt": self.receipts[seq], "items": shown[seq]["items"]}
        return rows

    def check_i9_replay_changes_nothing(self) -> None:
        names = tuple(sorted(self.model.paid))
        kept = [name for name in names if self.model.is_kept(name)]
        if not names:
            return
        [answer] = self.send((0, self.key_id, REPLAY, {"item_keys": [*map(key_of, names)]}))
        if kept:
            data = answer.json()["data"]
            for name, item in zip(names, data, strict=True):
                assert item["status"] == ("replayed" if name in kept else "failed")
                self.learn(name, item)
        self.check_unchanged() if kept else self.check_i14_refused(answer, {422})

    def check_i11_three_views_agree(self, rows: list[Body]) -> None:
        """Summary and statement agree to the unit; the counters too, but for what a restart made them forget."""
        signs = {"charge": 1, "refund": -1}
        entries = [row["entry"] for row in rows if row["entry"]["kind"] in signs]
        units = sum(signs[entry["kind"]] * entry["units"] for entry in entries)
        amount_micro = sum(signs[entry["kind"]] * entry["amount_micro"] for entry in entries)
        summary = self.get("/v1/billing/summary")
        assert summary["total"] == {"units": units, "amount_micro": amount_micro}
        assert (summary["used_units"], summary["limit_units"]) == (units, self.model.limit_units)
        assert (summary["head_seq"], summary["head_hash"]) == (len(rows), rows[-1]["entry_hash"])
        for groups in ("by_day", "by_model", "by_endpoint", "by_key"):
            assert sum(group["units"] for group in summary[groups]) == units
            assert sum(group["amount_micro"] for group in summary[groups]) == amount_micro
        metrics = "\n".join(map(self.metrics_of, range(len(self.shop.apps))))
        counted = re.findall(r"^vl2v_billed_units_approximate_total\{.*\} (\S+)$", metrics, re.MULTILINE)
        assert sum(map(float, counted)) == self.counted_units
        assert {*re.findall(r"^ledger_drift_units (\S+)$", metrics, re.MULTILINE)} == {"0.0"}

    def metrics_of(self, replica: int) -> str:
        async def told() -> str:
            async with self.shop.client(replica, "") as client:
                return (await client.get("/metrics")).text

        return self.shop.run(told())
