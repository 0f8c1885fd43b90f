"""`POST /v1/embeddings` as OpenAI's clients speak it: sold whole or not at all, refused in OpenAI's words."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import PickyEncoder, png, running_vendor
from vl2v_contract.vectors import from_base64
from vl2v_contract.wire.errors import Problem
from vl2v_contract.wire.openai_format import OpenAIProblem, OpenAIResponse
from vl2v_vendor.domain.errors import LedgerUnavailable

pytestmark = pytest.mark.anyio

PATH, MODEL = "/v1/embeddings", "hash-64"
RED = base64.b64encode(png("red")).decode()
BLUE = f"data:image/png;base64,{base64.b64encode(png('blue')).decode()}"

RECORDED = (
    b'{"model":"hash-64","input":["a photo of a dog","a photo of a cat"],"encoding_format":"base64"}',
    {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "OpenAI/Python 3.57.0",
        "x-stainless-lang": "python",
        "x-stainless-retry-count": "0",
        "accept-encoding": "gzip, deflate",
    },
)
"""What `OpenAI(...).embeddings.create(model=..., input=[...])` of openai-python 3.57.0 sends, by default."""


async def ask(client: httpx.AsyncClient, given: object, headers: Any = None, **fields: object) -> httpx.Response:
    return await client.post(PATH, json={"model": MODEL, "input": given, **fields}, headers=headers)


def answer(response: httpx.Response) -> OpenAIResponse:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return OpenAIResponse.model_validate_json(response.content)


def fault(response: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    found = OpenAIProblem.model_validate_json(response.content).error
    assert (found.code, found.param) == (code, param)
    return found.message


async def test_a_recorded_request_of_openais_own_client() -> None:
    async with running_vendor() as vendor:
        body, headers = RECORDED
        async with vendor.client() as client:
            response = await client.post(PATH, content=body, headers=headers)
            found = answer(response)
            numbers = answer(await ask(client, ["a photo of a dog", "a photo of a cat"]))
            one = await client.get(f"/v1/billing/requests/{response.headers['x-request-id']}")
        assert [(item.object, item.index) for item in found.data] == [("embedding", 0), ("embedding", 1)]
        assert (found.object, found.model) == ("list", MODEL)
        assert (found.usage.prompt_tokens, found.usage.total_tokens) == (14, 14)
        for packed, plain in zip(found.data, numbers.data, strict=True):
            assert isinstance(packed.embedding, str)
            vector = from_base64(packed.embedding, "float32", 64)
            np.testing.assert_array_equal(vector, np.asarray(plain.embedding, dtype=np.float32))
        assert (response.headers["x-vl2v-receipt-seq"], response.headers["x-vl2v-billed-units"]) == ("1", "2")
        assert response.headers["x-budget-remaining"] == "98"
        entry = one.json()["receipt"]["entry"]
        assert (entry["seq"], entry["units"], entry["endpoint"], entry["modality"]) == (1, 2, PATH, "text")


async def test_one_text_one_image_and_every_way_to_write_them() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            texts = answer(await ask(client, ["a dog", {"text": "a dog"}]))
            alone = answer(await ask(client, "a dog"))
            assert texts.data[0].embedding == texts.data[1].embedding == alone.data[0].embedding
            blue = BLUE.partition(",")[2]
            pictures = answer(await ask(client, [BLUE, {"image": BLUE}, {"image": blue}, {"image": RED}]))
            assert len({tuple(item.embedding) for item in pictures.data}) == 2
            assert pictures.usage.total_tokens == 0
            assert len(answer(await ask(client, BLUE)).data) == 1
            assert len(answer(await ask(client, "a dog", dimensions=64, user="me")).data) == 1
            assert len(answer(await ask(client, "https://example.org is a text")).data) == 1
        assert {posted.entry.modality for posted in vendor.ledger.posted} == {"image", "text"}


async def test_images_in_the_shapes_of_other_clip_servers() -> None:
    red = f"data:image/png;base64,{RED}"
    shapes = [
        {"type": "image_url", "image_url": {"url": red, "detail": "low"}},
        {"type": "image_url", "image_url": red},
        {"content": [{"type": "image_url", "image_url": {"url": red}}]},
        f"DATA:IMAGE/PNG;BASE64,{RED}",
    ]
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            pictures = answer(await ask(client, [{"image": RED}, *shapes]))
            texts = answer(await ask(client, ["a dog", {"type": "text", "text": "a dog"}]))
        assert len({tuple(item.embedding) for item in pictures.data}) == 1
        assert texts.data[0].embedding == texts.data[1].embedding
        assert [(posted.entry.modality, posted.entry.units) for posted in vendor.ledger.posted] == [
            ("image", 5),
            ("text", 2),
        ]


@pytest.mark.parametrize(
    "given",
    [
        "https://example.org/cat.jpg",
        " HTTP://example.org/cat ",
        ["a dog", "https://example.org/cat.jpg?width=200"],
        "data:text/plain;base64,AAAA",
        [{"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}}],
        [{"type": "image_url", "image_url": "http://example.org/cat"}],
        [{"content": [{"type": "image_url", "image_url": {"url": "file:///cat.png"}}]}],
        [{"type": "image_url", "image_url": {"url": "data:image/png,abc"}}],
    ],
)
async def test_the_url_of_an_image_is_refused_with_the_remedy_whatever_it_stands_as(given: object) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await ask(client, given)
        place = "input[1]" if isinstance(given, list) and len(given) > 1 else "input[0]"
        assert "data:image/png;base64" in fault(response, 400, "invalid_request", place)
        assert not vendor.ledger.posted


@pytest.mark.parametrize("url", ["https://example.org/cat.JPG#eyes", "data:image/png;base64,iVBORw0KGgo="])
async def test_an_image_url_spelled_out_as_a_text_is_not_sold_either(url: str) -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        assert "send the file itself" in fault(await ask(client, [{"text": url}]), 400, "invalid_encoding", "input[0]")
        own = await client.post("/v1/embeddings/texts", json={"items": [{"text": url}]})
        assert own.status_code == 422
        assert "send the file itself" in own.text
        assert not vendor.ledger.posted
        assert len(answer(await ask(client, [{"text": "https://example.org/about"}])).data) == 1
        assert len(answer(await ask(client, [{"text": f"{url} is a text"}])).data) == 1


async def test_two_parts_in_one_element_are_refused() -> None:
    parts = [{"type": "text", "text": "a dog"}, {"type": "image_url", "image_url": {"url": RED}}]
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            assert "one for each vector" in fault(
                await ask(client, [{"content": parts}]), 400, "invalid_request", "input"
            )
        assert not vendor.ledger.posted


@pytest.mark.parametrize("path", ["/embeddings", "/v1/v1/embeddings", "/models", "/v1/v1/models"])
async def test_a_base_url_without_v1_or_with_two_is_named(path: str) -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        response = await client.request("GET" if path.endswith("models") else "POST", path)
    assert response.status_code == 404
    assert "base URL" in Problem.model_validate_json(response.content).detail
    assert OpenAIProblem.model_validate(response.json()).error.message == response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"{", "body", "Invalid JSON"),
        (b"[]", "body", "object"),
        (b'{"input": "a dog"}', "model", "Field required"),
        (b'{"model": "hash-64"}', "input", "texts"),
        (b'{"model": "hash-64", "input": []}', "input", "not empty"),
        (b'{"model": "hash-64", "input": [[1, 2, 3]]}', "input", "token ids are not read"),
        (b'{"model": "hash-64", "input": [1, 2, 3]}', "input", "token ids are not read"),
        (b'{"model": "hash-64", "input": [{"text": "a", "image": "b"}]}', "input", "`input` is a text or a list"),
        (b'{"model": "hash-64", "input": "a", "dimensions": 32}', "dimensions", "have 64 dimensions"),
        (b'{"model": "hash-64", "input": "a", "encoding_format": "int8"}', "encoding_format", "float"),
        (b'{"model": "hash-64", "input": "a", "colour": "secret input"}', "colour", "Extra inputs"),
        (b'{"model": "hash-64", "input": ["a", {"image": "AAAA"}]}', "input", "send two"),
        (b'{"model": "hash-64", "input": [{"image": "HTTPS://127.0.0.1/a.png"}]}', "input[0]", "nothing is fetched"),
        (b'{"model": "hash-64", "input": [{"image": "AAAA"}, {"image": "http://a"}]}', "input[1]", "nothing is"),
        (b'{"model": "hash-64", "input": ["data:image/png,abc"]}', "input[0]", "data:image/png;base64"),
        (b'{"model": "hash-64", "input": ["data:image/png;base64"]}', "input[0]", "data:image/png;base64"),
    ],
)
async def test_a_malformed_request_is_a_400_that_names_the_field(body: bytes, param: str, says: str) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})
        assert says in fault(response, 400, "invalid_request", param)
        assert "secret input" not in response.text
        assert not vendor.ledger.posted


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (["a dog", " ", "a cat"], "empty_item", "input[1]"),
        (["a dog", "word " * 100], "text_too_long", "input[1]"),
        ([{"image": RED}, {"image": "AAAA"}], "unsupported_image_format", "input[1]"),
        ([{"image": "?"}], "invalid_encoding", "input[0]"),
    ],
)
async def test_an_item_that_fails_refuses_the_request_and_nothing_is_billed(
    given: object, code: str, param: str
) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await ask(client, given)
        assert "nothing was billed" in fault(response, 400, code, param)
        assert response.headers["x-should-retry"] == "false"
        assert not vendor.ledger.posted


async def test_an_item_that_the_model_refuses_refuses_the_request_too_but_may_be_sent_again() -> None:
    black = base64.b64encode(png("black")).decode()

    async with running_vendor(encoder=PickyEncoder()) as vendor, vendor.client() as client:
        response = await ask(client, [{"image": RED}, {"image": black}])
        assert "nothing was billed" in fault(response, 400, "encoding_failed", "input[1]")
        assert response.headers["x-should-retry"] == "true"
        assert not vendor.ledger.posted
        assert len(answer(await ask(client, [{"image": RED}])).data) == 1


async def test_an_exhausted_budget_is_final_for_openais_client_too() -> None:
    async with running_vendor(limit_units=1) as vendor:
        async with vendor.client() as client:
            response = await ask(client, ["a dog", "a cat"])
        assert "top-up" in fault(response, 402, "budget_exhausted")
        assert response.json()["error"]["type"] == "insufficient_quota"
        assert response.headers["x-should-retry"] == "false"
        assert not vendor.ledger.posted


async def test_who_asks_and_for_what() -> None:
    async with running_vendor() as vendor:
        async with vendor.client("vl2v_unknown") as client:
            response = await ask(client, "a dog")
            fault(response, 401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        async with vendor.client(vendor.ledger.issue_key(scopes=frozenset({"billing"}))) as client:
            fault(await ask(client, "a dog"), 403, "forbidden")
        async with vendor.client() as client:
            wrong = await client.post(PATH, json={"model": "text-embedding-3-small", "input": "a dog"})
            assert "hash-64" in fault(wrong, 404, "model_not_found", "model")
            fault(await client.post(PATH, content=b"a dog"), 415, "unsupported_media_type")
            assert "at most 8" in fault(await ask(client, ["a dog"] * 9), 400, "too_many_items")
            large = await client.post(PATH, content=json.dumps("x" * 1_000_001), headers=RECORDED[1])
            fault(large, 413, "payload_too_large")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [(LedgerUnavailable("locked", 5), 503, "ledger_unavailable"), (RuntimeError("a secret of ours"), 500, "internal")],
)
async def test_what_is_our_fault_may_be_retried_and_tells_nothing(
    failure: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_vendor() as vendor:

        async def fail(*arguments: object) -> None:
            raise failure

        vendor.ledger.offer = fail  # type: ignore[method-assign, assignment]
        async with vendor.client() as client:
            response = await ask(client, "a dog")
        fault(response, status, code)
        assert response.json()["error"]["type"] == "server_error"
        assert response.headers["x-should-retry"] == "true"
        assert response.headers.get("retry-after") == ("5" if status == 503 else None)
        assert "a secret of ours" not in response.text
        assert ("a secret of ours" in caplog.text) == (status == 500)


async def test_under_an_idempotency_key_a_retry_is_free_and_another_content_is_refused() -> None:
    async with running_vendor() as vendor:
        named = {"Idempotency-Key": "order 7"}
        async with vendor.client() as client:
            first = await ask(client, ["a dog", "a cat"], headers=named)
            again = await ask(client, ["a dog", "a cat"], headers=named)
            assert answer(first) == answer(again)
            assert (again.headers["idempotent-replayed"], again.headers["x-vl2v-billed-units"]) == ("true", "0")
            other = await ask(client, ["a dog", "a cow"], headers=named)
            assert "nothing was billed" in fault(other, 400, "item_key_mismatch", "input[1]")
        assert vendor.ledger.used_units == 2


async def test_when_two_contents_race_for_one_name_what_was_charged_is_named_and_can_be_had() -> None:
    """The other request is charged between this one's look at the ledger and its own charge."""

    async with running_vendor() as vendor:
        named = {"Idempotency-Key": "order 7"}
        async with vendor.client() as client:
            assert len(answer(await ask(client, ["a dog"], headers=named)).data) == 1
            look = vendor.ledger.offer

            async def look_too_early(*arguments: Any) -> Any:
                return replace(await look(*arguments), paid={})

            vendor.ledger.offer = look_too_early  # type: ignore[method-assign, assignment]
            refused = await ask(client, ["a cow", "a cat"], headers=named)
            message = fault(refused, 400, "item_key_mismatch", "input[0]")
            assert "ledger entry 2 charged the others" in message
            vendor.ledger.offer = look  # type: ignore[method-assign]
            both = answer(await ask(client, ["a dog", "a cat"], headers=named))
        assert len(both.data) == 2
        assert vendor.ledger.used_units == 2


async def test_item_keys_of_the_other_paths_are_other_purchases() -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        await client.post("/v1/embeddings/texts", json={"items": [{"text": "a dog", "item_key": item_key("a")}]})
        assert (await ask(client, "a dog")).headers["x-vl2v-billed-units"] == "1"
