"""Answers to a purchase that lie: the vendor sells honestly, and a transport changes what it says about the sale."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx

from support.adversary.lying_vendor import Body
from vl2v_contract.chain import ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import SigningKey, receipt_message

Change = Callable[[Body, list[SigningKey]], None]


class LyingAnswers(httpx.BaseTransport):
    """Changes the bodies of one path's answers.

    Args:
        honest: the vendor.
        keys: its private signing keys.
        path: whose answers.
        change: edits a body in place.
    """

    def __init__(self, honest: httpx.BaseTransport, keys: list[SigningKey], path: str, change: Change) -> None:
        self._honest = honest
        self._keys = keys
        self._path = path
        self._change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept"] = "application/json"  # what a lie can be told in
        response = self._honest.handle_request(request)
        if request.url.path != self._path or not response.is_success:
            return response
        body = json.loads(response.content)
        self._change(body, self._keys)
        return httpx.Response(200, content=json.dumps(body).encode(), request=request)


def receipt(**changes: object) -> Change:
    """Another receipt, consistent and signed; its amount and usage follow its units and price."""

    def change(body: Body, keys: list[SigningKey]) -> None:
        entry = body["receipt"]["entry"] | changes
        entry["amount_micro"] = entry["units"] * entry["unit_price_micro"]
        body["usage"]["amount_micro"] = entry["amount_micro"]
        sign(body, entry, keys[-1])

    return change


def sign(body: Body, entry: Body, key: SigningKey) -> None:
    hashed = LedgerEntry(**entry).hash()
    body["receipt"] |= {"entry": entry, "entry_hash": hashed, "signature": key.sign(receipt_message(hashed))}


def inflated(body: Body, keys: list[SigningKey]) -> None:
    body["usage"]["billed_units"] += 5
    receipt(units=body["receipt"]["entry"]["units"] + 5)(body, keys)


def other_items(body: Body, keys: list[SigningKey]) -> None:
    items = [ChargedItem("b" * 64, item["result_sha"], 1) for item in body["data"]]
    receipt(items_hash=items_hash(items))(body, keys)


def stranger(body: Body, _keys: list[SigningKey]) -> None:
    key = SigningKey.from_seed(b"s" * 32)
    sign(body, body["receipt"]["entry"] | {"signing_key_id": key.key_id}, key)
    body["receipt"]["key_id"] = key.key_id


def forged(body: Body, _keys: list[SigningKey]) -> None:
    sign(body, body["receipt"]["entry"], SigningKey.from_seed(b"s" * 32))


def missing(body: Body, _keys: list[SigningKey]) -> None:
    body["receipt"] = None


def null_vector(body: Body, _keys: list[SigningKey]) -> None:
    body["data"][0]["embedding"] = None


def other_vector(body: Body, _keys: list[SigningKey]) -> None:
    body["data"][0]["result_sha"] = "0" * 64


def failed_item(body: Body, _keys: list[SigningKey]) -> None:
    """One item that was charged is called failed, so that the client would buy it again."""
    body["data"][0] |= {
        "status": "failed", "embedding": None, "result_sha": None, "seq": None,
        "error": {"code": "encoding_failed", "detail": "sorry"},
    }  # fmt: skip


REFUSED: dict[str, Change] = {
    "price-swapped": receipt(unit_price_micro=900),
    "price-of-another-id": receipt(price_id=99),
    "currency-swapped": receipt(currency="USD"),
    "inflated": inflated,
    "amount-alone": lambda body, _keys: body["usage"].update(amount_micro=1),
    "another-ledger": receipt(ledger_id="other"),
    "another-kind": receipt(kind="topup"),
    "another-model": receipt(model_id="other"),
    "other-weights": receipt(weights_sha="0" * 64),
    "another-modality": receipt(modality="image"),
    "another-request": receipt(request_id="req_other"),
    "another-number": receipt(seq=99),
    "other-items": other_items,
    "receipt-by-a-stranger": stranger,
    "receipt-forged": forged,
    "receipt-missing": missing,
    "vector-missing": null_vector,
    "vector-of-another-hash": other_vector,
    "charged-but-called-failed": failed_item,
    "huge-number": lambda body, _keys: body["receipt"]["entry"].update(amount_micro=2**80),
}
"""Answers that must be refused: the vector is not kept, and the item stays `sent`."""
