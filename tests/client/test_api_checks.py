"""Nothing that the vendor says is taken on trust: each lie in an answer is refused under a name of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from support.client.fake_ledger import Body
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import VendorChanged, VendorError
from vl2v_contract.chain import ChargedItem, items_hash
from vl2v_contract.vectors import result_sha, to_base64

KEYS = ("a" * 64, "b" * 64)


def buy_texts(
    client: VendorClient, texts: tuple[str, ...] = ("a cat", "a dog"), keys: tuple[str, ...] = KEYS
) -> Delivery:
    return client.embed_texts(texts, keys, client.model())


def altered(**changes: object) -> Callable[[FakeVendor, Body], None]:
    return lambda _vendor, body: body["data"][0].update(changes)


def other_vector(vendor: FakeVendor, body: Body) -> None:
    body["data"][0]["embedding"] = to_base64(vendor.vector("other"), "float16")


def vector_of_length_two(vendor: FakeVendor, body: Body) -> None:
    vector = 2 * vendor.vector("other")
    body["data"][0].update(embedding=to_base64(vector, "float16"), result_sha=result_sha(vector))


def not_a_number(vendor: FakeVendor, body: Body) -> None:
    vector = np.full(vendor.dimension, np.nan, dtype=np.float32)
    body["data"][0].update(embedding=to_base64(vector, "float16"), result_sha=result_sha(vector))


def another_width(vendor: FakeVendor, body: Body) -> None:
    body["embedding_dim"] = vendor.dimension + 1


def swapped(_vendor: FakeVendor, body: Body) -> None:
    body["data"].reverse()


def one_item_short(_vendor: FakeVendor, body: Body) -> None:
    body["data"].pop()


def no_receipt(_vendor: FakeVendor, body: Body) -> None:
    body["receipt"] = None


def more_units(_vendor: FakeVendor, body: Body) -> None:
    body["usage"]["billed_units"] = 3


def forged_signature(_vendor: FakeVendor, body: Body) -> None:
    body["receipt"]["signature"] = "AAAA"


def edited_entry(_vendor: FakeVendor, body: Body) -> None:
    body["receipt"]["entry"]["units"] = 1


def boundless_entry(_vendor: FakeVendor, body: Body) -> None:
    body["receipt"]["entry"]["amount_micro"] = 2**60


def reposted(**changes: object) -> Callable[[FakeVendor, Body], None]:
    """A receipt that the vendor has signed, for something else than was agreed to."""

    def lie(vendor: FakeVendor, body: Body) -> None:
        posted = vendor.posted.pop()
        over = {"items_hash": posted.entry.items_hash, "units": 2, **changes}
        again = vendor.post("charge", over.pop("units"), posted.items, "text", **over)  # type: ignore[arg-type]
        body["receipt"] = vendor.receipt(again)

    return lie


OTHER_ITEMS = (ChargedItem("c" * 64, "d" * 64, 1), ChargedItem("e" * 64, "f" * 64, 1))


@pytest.mark.parametrize(
    ("lie", "kind", "says"),
    [
        (other_vector, VendorError, "not the one that was billed"),
        (vector_of_length_two, VendorError, "unit length"),
        (not_a_number, VendorError, "finite"),
        (another_width, VendorError, "not 16 float16"),
        (swapped, VendorError, "in order"),
        (one_item_short, VendorError, "one result per item"),
        (altered(item_key="f" * 64), VendorError, "another item key"),
        (altered(embedding="!!"), VendorError, "damaged"),
        (altered(result_sha=None), VendorError, "no result hash"),
        (altered(seq=2**70), VendorError, "no ledger entry"),
        (boundless_entry, VendorError, "a number that cannot be"),
        (altered(status="replayed"), VendorError, "billed, but 2 units"),
        (altered(status="failed"), VendorError, "without saying why"),
        (no_receipt, VendorError, "without a receipt"),
        (more_units, VendorError, "3 units"),
        (forged_signature, VendorChanged, "not signed by a trusted key"),
        (edited_entry, VendorError, "hash is not that of its entry"),
        (reposted(items_hash=items_hash(OTHER_ITEMS)), VendorError, "covers other items"),
        (reposted(units=3), VendorError, "cost 3 units"),
        (reposted(amount_micro=10**6), VendorError, "not its units times its price"),
        (reposted(unit_price_micro=900, amount_micro=1800), VendorChanged, "unit price is 900, not 10"),
        (reposted(price_id=7), VendorChanged, "price id is 7, not 2"),
        (reposted(weights_sha="6" * 64), VendorChanged, "weights"),
        (reposted(ledger_id="another"), VendorChanged, "not signed by a trusted key of vendor fake-ledger"),
        (reposted(request_id="req_other"), VendorError, "another request"),
    ],
)
def test_an_answer_that_fails_a_check_is_named(
    vendor: FakeVendor,
    client: VendorClient,
    lie: Callable[[FakeVendor, Body], None],
    kind: type[VendorError],
    says: str,
) -> None:
    def lying(path: str, body: Body) -> Body:
        if path.endswith("/texts"):
            lie(vendor, body)
        return body

    vendor.lie = lying
    with pytest.raises(kind, match=says):
        buy_texts(client)


def unpaid(_vendor: FakeVendor, body: Body) -> None:
    body["paid_by"] = []


def paid_without_items(_vendor: FakeVendor, body: Body) -> None:
    body["paid_by"][0]["items"] = []


def paid_by_another_entry(vendor: FakeVendor, body: Body) -> None:
    posted = vendor.post("charge", 2, OTHER_ITEMS, "text")
    body["paid_by"] = [{"receipt": vendor.receipt(posted), "items": [asdict(item) for item in OTHER_ITEMS]}]


def paid_and_forged(_vendor: FakeVendor, body: Body) -> None:
    body["paid_by"][0]["receipt"]["signature"] = "AAAA"


def paid_twice(_vendor: FakeVendor, body: Body) -> None:
    body["paid_by"] *= 2


@pytest.mark.parametrize(
    ("lie", "kind", "says"),
    [
        (unpaid, VendorError, "no receipt shows that entry 2 paid"),
        (paid_without_items, VendorError, "covers other items"),
        (paid_by_another_entry, VendorError, "no receipt shows that entry 2 paid"),
        (paid_and_forged, VendorChanged, "not signed by a trusted key"),
        (paid_twice, VendorError, "two receipts for entry 2"),
    ],
)
def test_a_free_item_needs_an_entry_that_paid_for_it(
    vendor: FakeVendor,
    client: VendorClient,
    lie: Callable[[FakeVendor, Body], None],
    kind: type[VendorError],
    says: str,
) -> None:
    buy_texts(client)

    def lying(path: str, body: Body) -> Body:
        if path.endswith("/texts"):
            lie(vendor, body)
        return body

    vendor.lie = lying
    with pytest.raises(kind, match=says):
        buy_texts(client)


def test_a_free_item_comes_with_its_receipt_and_the_bill_is_not_asked(vendor: FakeVendor, client: VendorClient) -> None:
    bought = buy_texts(client)
    more = client.embed_texts(("a bird", "a cat", "a dog"), ("c" * 64, *KEYS), client.model())
    again = client.replay(KEYS)
    assert again.receipts == bought.receipts
    assert {receipt.entry.seq for receipt in more.receipts} == {2, 3}
    assert not [request for request in vendor.seen if "/statement" in request or "/requests/" in request]


def test_a_receipt_by_a_successor_key_is_trusted_through_the_first(vendor: FakeVendor, client: VendorClient) -> None:
    buy_texts(client)
    vendor.rotate_key()
    assert buy_texts(client, ("a bird",), ("c" * 64,)).billed is not None


def test_half_precision_vectors_arrive_as_they_are_hashed(vendor: FakeVendor, client: VendorClient) -> None:
    delivery = buy_texts(client)
    for item in delivery.items:
        assert item.vector.dtype == np.float16
        assert result_sha(item.vector) == item.result_sha
