"""The embedding routes: both upload forms, both encodings, headers, statuses, problems."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import LIMITS, images, png, running_vendor
from vl2v_contract.vectors import from_base64
from vl2v_contract.wire.embeddings import EmbeddingsResponse
from vl2v_contract.wire.errors import Problem
from vl2v_vendor.domain.errors import LedgerUnavailable, ModelLoadFailed, ModelUnavailable, Overloaded
from vl2v_vendor.engine.models.hash_encoder import HashEncoder

pytestmark = pytest.mark.anyio

IMAGES, TEXTS, REPLAY = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings/replay"
RED, BROKEN = png("red"), b"broken"


def answer(response: httpx.Response) -> EmbeddingsResponse:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return EmbeddingsResponse.model_validate_json(response.content)


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    """The problem document, checked against the answer's own status and headers."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content)
    assert (found.status, found.code.value) == (status, code)
    assert found.request_id == response.headers["x-request-id"]
    assert response.headers["x-should-retry"] == str(found.retryable).lower()
    return found


async def test_images_as_json() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await client.post(IMAGES, json=images(RED, BROKEN, keys=[item_key("a"), None]))
            found = answer(response)
        assert [item.status for item in found.data] == ["billed", "failed"]
        assert found.data[0].item_key == item_key("a")
        assert found.data[1].error is not None
        assert (found.usage.billed_units, found.usage.amount_micro, found.usage.failed_items) == (1, 100, 1)
        assert found.receipt is not None
        assert found.receipt.entry.hash() == found.receipt.entry_hash
        assert found.receipt.entry.request_id == found.request_id == response.headers["x-request-id"]
        assert (response.headers["x-budget-limit"], response.headers["x-budget-remaining"]) == ("100", "99")
        assert "idempotent-replayed" not in response.headers


async def test_images_as_multipart_are_the_same_items() -> None:
    async with running_vendor() as vendor:
        options = json.dumps({"item_keys": [item_key("a"), None]})
        files = [("images", ("a.png", RED)), ("images", ("b.jpg", BROKEN))]
        async with vendor.client() as client:
            first = answer(await client.post(IMAGES, files=files, data={"options": options}))
            again = await client.post(IMAGES, json=images(RED, keys=[item_key("a")]))
        assert [item.status for item in first.data] == ["billed", "failed"]
        assert answer(again).data[0].status == "replayed"
        assert answer(again).receipt is None
        assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_vectors_as_numbers_and_as_base64_are_the_same(dtype: str) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            body = images(RED, keys=[item_key("a")], dtype=dtype)
            packed = answer(await client.post(IMAGES, json=body)).data[0].embedding
            numbers = answer(await client.post(IMAGES, json={**body, "encoding": "float"})).data[0].embedding
        assert isinstance(packed, str)
        vector = from_base64(packed, dtype, 64)  # type: ignore[arg-type]
        np.testing.assert_array_equal(vector, np.asarray(numbers, dtype=dtype))
        assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-3)


async def test_texts_report_their_tokens() -> None:
    async with running_vendor() as vendor:
        items = [{"text": "a photo of a dog"}, {"text": "word " * 100}]
        async with vendor.client() as client:
            refused = answer(await client.post(TEXTS, json={"items": items}))
            cut = answer(await client.post(TEXTS, json={"items": items, "truncate": True}))
        assert refused.data[0].tokens == 7
        assert refused.data[1].error is not None
        assert refused.data[1].error.code == "text_too_long"
        assert (cut.data[1].tokens, cut.data[1].truncated) == (102, True)
        assert cut.usage.unit_price_micro == 10


async def test_replay_is_free() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            bought = answer(await client.post(IMAGES, json=images(RED, keys=[item_key("a")])))
            replayed = answer(await client.post(REPLAY, json={"item_keys": [item_key("a"), item_key("b")]}))
            problem(await client.post(REPLAY, json={"item_keys": [item_key("b")]}), 422, "all_items_failed")
        assert replayed.data[0].embedding == bought.data[0].embedding
        assert [item.status for item in replayed.data] == ["replayed", "failed"]
        assert (replayed.usage.billed_units, replayed.usage.amount_micro, replayed.receipt) == (0, 0, None)


async def test_a_key_that_may_only_embed_gets_the_receipts_of_what_was_paid_earlier() -> None:
    async with running_vendor() as vendor:
        async with vendor.client(vendor.ledger.issue_key(scopes=frozenset({"embed"}))) as client:
            bought = answer(await client.post(IMAGES, json=images(RED, keys=[item_key("a")])))
            replayed = answer(await client.post(REPLAY, json={"item_keys": [item_key("a")]}))
        assert bought.paid_by == []
        assert [paid.receipt for paid in replayed.paid_by] == [bought.receipt]
        assert [item.item_key for item in replayed.paid_by[0].items] == [item_key("a")]


async def test_the_idempotency_header_makes_a_retry_free() -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        for status in ("billed", "replayed"):
            response = await client.post(IMAGES, json=images(RED), headers={"Idempotency-Key": "order 7"})
            assert answer(response).data[0].status == status


async def test_only_a_request_without_any_good_item_is_refused_and_lists_them_all() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            found = problem(await client.post(IMAGES, json=images(BROKEN, b"")), 422, "all_items_failed")
        assert [(item.index, item.code.value) for item in found.items] == [
            (0, "unsupported_image_format"),
            (1, "empty_item"),
        ]
        assert not found.retryable


async def test_an_exhausted_budget_is_final() -> None:
    async with running_vendor(limit_units=1) as vendor:
        async with vendor.client() as client:
            refused = await client.post(IMAGES, json=images(RED, png("blue")))
            partial = answer(await client.post(IMAGES, json=images(RED, png("blue"), allow_partial=True)))
        found = problem(refused, 402, "budget_exhausted")
        assert (found.budget, found.limit_units, found.remaining_units, found.retryable) == ("account", 1, 1, False)
        assert partial.data[1].error is not None
        assert partial.data[1].error.code == "budget_exhausted"
        assert partial.budget.remaining_units == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "fragment"),
    [
        (IMAGES, b"{", 422, "invalid_request", "JSON"),
        (IMAGES, b'{"items": []}', 422, "invalid_request", "items"),
        (IMAGES, b'{"items": [{"picture": "secret input"}]}', 422, "invalid_request", "items.0.image"),
        (TEXTS, b'{"items": [{"text": 7}], "colour": 1}', 422, "invalid_request", "colour"),
        (TEXTS, b'{"items": [{"text": "a"}], "dtype": "int8"}', 422, "invalid_request", "dtype"),
        (TEXTS, b'{"items": [{"text": "a"}], "model": "other"}', 404, "unknown_model", "hash-64"),
        (TEXTS, b'{"items": [{"text": "a"}], "price_id": 99}', 409, "price_changed", "99"),
        (TEXTS, json.dumps({"items": [{"text": "a"}] * 9}).encode(), 422, "too_many_items", "at most 8"),
        (IMAGES, json.dumps(images(*[RED] * 9)).encode(), 422, "too_many_items", "at most 8"),
        (REPLAY, json.dumps({"item_keys": ["a"] * 9}).encode(), 422, "too_many_items", "at most 8"),
    ],
)
async def test_malformed_requests_name_the_field_and_repeat_no_input(
    path: str, body: bytes, status: int, code: str, fragment: str
) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert fragment in problem(response, status, code).detail
        assert "secret input" not in response.text
        assert not vendor.ledger.posted


async def test_other_media_types_and_form_fields_are_refused() -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        for path in (IMAGES, TEXTS, REPLAY):
            problem(await client.post(path, content=b"x"), 415, "unsupported_media_type")
        files = [("images", ("a.png", RED)), ("pictures", ("b.png", RED))]
        found = problem(await client.post(IMAGES, files=files), 422, "invalid_request")
        assert "pictures" in found.detail
        problem(await client.post(IMAGES, files=[("images", RED)], data={"options": "{"}), 422, "invalid_request")
        twice = [("options", (None, '{"max_charge_micro": 0}')), ("options", (None, "{}")), ("images", RED)]
        assert "two form fields" in problem(await client.post(IMAGES, files=twice), 422, "invalid_request").detail
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        problem(await client.post(IMAGES, content=b"garbage", headers=broken), 422, "invalid_request")
        unbounded = {"Content-Type": "multipart/form-data"}
        problem(await client.post(IMAGES, content=b"garbage", headers=unbounded), 422, "invalid_request")


async def test_a_large_body_is_refused_before_it_is_read_or_when_it_has_come() -> None:
    async with running_vendor() as vendor:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * (LIMITS.max_request_bytes // 10)

        async with vendor.client() as client:
            kind = {"Content-Type": "application/json"}
            declared = await client.post(IMAGES, content=b"x" * (LIMITS.max_request_bytes + 1), headers=kind)
            problem(declared, 413, "payload_too_large")
            problem(await client.post(IMAGES, content=chunks(), headers=kind), 413, "payload_too_large")


async def test_large_items_are_refused_one_by_one() -> None:
    async with running_vendor() as vendor:
        huge = b"\xff\xd8\xff" + b"\0" * LIMITS.max_item_bytes
        body = images(RED, huge)
        body["items"].append({"image": "not base64!"})  # type: ignore[attr-defined]
        async with vendor.client() as client:
            found = answer(await client.post(IMAGES, json=body))
        codes = [item.error.code.value for item in found.data if item.error is not None]
        assert codes == ["image_too_large", "invalid_encoding"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ModelUnavailable("restarting", 5), 503, "model_unavailable"),
        (Overloaded("full"), 503, "overloaded"),
        (LedgerUnavailable("locked"), 503, "ledger_unavailable"),
        (RuntimeError("a secret of ours"), 500, "internal"),
        (ModelLoadFailed("a secret of ours"), 500, "internal"),
    ],
)
async def test_what_is_our_fault_may_be_retried_and_tells_nothing(failure: Exception, status: int, code: str) -> None:
    async with running_vendor() as vendor:

        async def fail(*arguments: object) -> None:
            raise failure

        vendor.ledger.offer = fail  # type: ignore[method-assign, assignment]
        async with vendor.client() as client:
            response = await client.post(IMAGES, json=images(RED))
        found = problem(response, status, code)
        assert found.retryable
        assert "a secret of ours" not in response.text
        assert ("retry-after" in response.headers) == (status == 503)


async def test_the_vendor_of_a_wider_model_says_its_width() -> None:
    async with running_vendor(encoder=HashEncoder(embedding_dim=96)) as vendor, vendor.client() as client:
        assert answer(await client.post(IMAGES, json=images(RED))).embedding_dim == 96
