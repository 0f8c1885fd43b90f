"""Whatever single thing a vendor changes in a statement or its keys, the audit of any honest history notices."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.client.buying_bench import buy, connect, plan_for
from support.client.fake_ledger import Body
from support.client.fake_vendor import FakeVendor
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorError
from vl2v_contract.chain import ChargedItem

HISTORIES = 6
UNSIGNED = {"next_after_seq", "created_at", "retired_at"}
"""Of a page the way to the next one, of a key its times: to change them hides nothing."""

SIGNIFICANT = 85
"""Letters of a base64 signature whose every bit counts."""

Place = tuple[str | int, ...]
Archive = Callable[[int], tuple[FakeVendor, EmbeddingCache]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Random honest histories with the caches of those who bought, each written once."""
    written: dict[int, tuple[FakeVendor, EmbeddingCache]] = {}

    def read(seed: int) -> tuple[FakeVendor, EmbeddingCache]:
        if seed not in written:
            written[seed] = write_history(seed, tmp_path_factory.mktemp("history") / "client.db")
        return written[seed]

    yield read
    for _, cache in written.values():
        cache.close()


def write_history(seed: int, path: Path) -> tuple[FakeVendor, EmbeddingCache]:
    dice = random.Random(seed)
    vendor, cache = FakeVendor(max_items=dice.randrange(1, 5)), EmbeddingCache(path)

    def purchase() -> None:
        with connect(vendor) as client:
            texts = [f"text {dice.randrange(40)}" for _ in range(dice.randrange(1, 8))]
            buy(plan_for(vendor, cache, [], texts), client, cache, workers=1)

    def colleague() -> None:
        key = f"{dice.randrange(2**255):064x}"
        vendor.post("charge", 1, [ChargedItem(key, key[::-1], 1)], "image", api_key_id="key_colleague")

    def refund() -> None:
        charges = [row.entry.seq for row in vendor.posted if row.entry.kind == "charge"]
        vendor.refund(charges.pop(), 1)

    def reprice() -> None:
        vendor.prices["text"] = (vendor.prices["text"][0] + 10, dice.randrange(1, 50))

    def top_up() -> None:
        vendor.post("topup", dice.randrange(1, 9))

    acts = [purchase, colleague, refund, reprice, top_up, vendor.rotate_key]
    for act in (purchase, *dice.sample(acts, len(acts)), purchase):
        act()
    return vendor, cache


def leaves(body: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(body, dict | list):
        for key, part in body.items() if isinstance(body, dict) else enumerate(body):
            yield from leaves(part, (*place, key))
    elif place[-1] not in UNSIGNED or "entry" in place:
        yield place


def other(value: object, data: st.DataObject) -> object:
    """Another value of the same type, or the absence of one."""
    if isinstance(value, int):
        changed = st.sampled_from([value + 1, value - 1, 0, 1, 2**53 - 1, None])
    elif isinstance(value, str) and value:
        place = data.draw(st.integers(0, min(len(value), SIGNIFICANT) - 1), label="letter")
        letter = st.sampled_from("0123456789abcdefXYZ")
        changed = st.one_of(letter.map(lambda one: value[:place] + one + value[place + 1 :]), st.none())
    else:
        changed = st.sampled_from(["x", 1])
    return data.draw(changed.filter(lambda new: new != value), label="changed to")


def is_noticed(vendor: FakeVendor, cache: EmbeddingCache, path: str, lie: Callable[[Body], Body]) -> bool:
    vendor.lie = lambda shown, body: lie(json.loads(json.dumps(body))) if shown == path else body
    try:
        with connect(vendor) as client:
            return not audit_bill(client, cache, settle_seconds=0).is_clean
    except VendorError:
        return True
    finally:
        vendor.lie = lambda _path, body: body


@settings(max_examples=250, deadline=None, derandomize=True)
@given(seed=st.integers(0, HISTORIES - 1), what=st.sampled_from(["statement", "statement", "keys"]), data=st.data())
def test_any_changed_value_is_noticed(archive: Archive, seed: int, what: str, data: st.DataObject) -> None:
    vendor, cache = archive(seed)
    truth = vendor.statement() if what == "statement" else {"ledger_id": "fake-ledger", "keys": vendor.public_keys()}
    place = data.draw(st.sampled_from(list(leaves(truth))), label="place")

    def change(body: Body) -> Body:
        spot: Any = body
        for part in place[:-1]:
            spot = spot[part]
        spot[place[-1]] = changed
        return body

    spot: Any = truth
    for part in place:
        spot = spot[part]
    changed = other(spot, data)
    assert is_noticed(vendor, cache, f"/v1/billing/{what}", change)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, HISTORIES - 1), data=st.data())
def test_any_row_or_item_moved_dropped_or_repeated_is_noticed(archive: Archive, seed: int, data: st.DataObject) -> None:
    vendor, cache = archive(seed)
    rows = vendor.statement()["entries"]
    row = data.draw(st.integers(0, len(rows) - 1), label="row")
    within = data.draw(st.booleans(), label="among its items") and bool(rows[row]["items"])
    count = len(rows[row]["items"]) if within else len(rows)
    index = data.draw(st.integers(0, count - 1), label="index")
    act = data.draw(st.sampled_from(["drop", "repeat", "move"] if count > 1 else ["drop", "repeat"]), label="act")
    to = data.draw(st.integers(0, count - 1).filter(lambda place: place != index), label="to") if act == "move" else 0

    def change(body: Body) -> Body:
        spots = body["entries"][row]["items"] if within else body["entries"]
        spot = spots[index] if act == "repeat" else spots.pop(index)
        if act != "drop":
            spots.insert(to, spot)
        return body

    assert is_noticed(vendor, cache, "/v1/billing/statement", change)


def test_unchanged_histories_are_clean(archive: Archive) -> None:
    for seed in range(HISTORIES):
        vendor, cache = archive(seed)
        with connect(vendor) as client:
            report = audit_bill(client, cache)
        assert report.is_clean, report.findings
        assert report.entries == len(vendor.posted) > 6
