"""Frames over HTTP: raw uploads and raw answers are the same sale in fewer bytes."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import numpy as np
import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import images, noise, png, running_vendor, save
from vl2v_contract.vectors import FloatVector, from_base64, to_base64
from vl2v_contract.wire.embeddings import EmbeddingsResponse, RequestOptions
from vl2v_contract.wire.errors import Problem
from vl2v_contract.wire.frames import pack_frame, pack_upload, unpack_answer
from vl2v_contract.wire.headers import MULTIPART, OCTET_STREAM, RGB8_TENSOR
from vl2v_vendor.web import bodies
from vl2v_vendor.web.routes import embeddings, openai
from vl2v_vendor.web.routes.embeddings import accepted

pytestmark = pytest.mark.anyio

IMAGES, TEXTS, REPLAY = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings/replay"
SIZE = 32
PICTURE = noise(SIZE, SIZE)
PIXELS = PICTURE.tobytes()
RAW = {"Accept": OCTET_STREAM}


def upload(images: list[bytes], media_type: str = RGB8_TENSOR, **options: Any) -> dict[str, Any]:
    """A framed request as httpx takes it."""
    return {"content": pack_upload(RequestOptions(**options), images), "headers": {"Content-Type": media_type}}


def framed(response: httpx.Response) -> tuple[EmbeddingsResponse, dict[int, FloatVector]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == OCTET_STREAM
    return unpack_answer(response.content)


def refused(response: httpx.Response, code: str = "invalid_request", status: int = 422) -> str:
    found = Problem.model_validate_json(response.content)
    assert (response.status_code, found.code) == (status, code)
    return found.detail


# Uploads


async def test_pixels_files_forms_and_json_are_the_same_item() -> None:
    async with running_vendor() as vendor:
        key, file = item_key("a"), save(PICTURE, "PNG")
        async with vendor.client() as client:
            told = [
                await client.post(IMAGES, **upload([PIXELS], item_keys=[key])),
                await client.post(IMAGES, **upload([file], OCTET_STREAM, item_keys=[key])),
                await client.post(IMAGES, files=[("images", file)], data={"options": f'{{"item_keys": ["{key}"]}}'}),
                await client.post(IMAGES, json=images(file, keys=[key])),
            ]
        found = [EmbeddingsResponse.model_validate_json(answer.content).data[0] for answer in told]
        assert [item.status for item in found] == ["billed", "replayed", "replayed", "replayed"]
        assert len({item.embedding for item in found}) == 1
        assert vendor.ledger.used_units == 1


async def test_pixels_of_another_size_are_their_own_error() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await client.post(IMAGES, **upload([PIXELS[:-3], PIXELS, b""]))
        found = EmbeddingsResponse.model_validate_json(response.content)
        assert [item.status for item in found.data] == ["failed", "billed", "failed"]
        assert found.data[0].error is not None
        assert found.data[0].error.code == "undecodable_image"
        assert "3,069 bytes" in found.data[0].error.detail
        assert found.usage.billed_units == 1


@pytest.mark.parametrize("media_type", [RGB8_TENSOR, OCTET_STREAM])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "at least 12 bytes"),
        (save(PICTURE, "PNG"), "begins with the letters VL2V"),
        (pack_upload(RequestOptions(), [PIXELS])[:-1], "adds up to 3072 bytes, but 3071 follow"),
        (pack_upload(RequestOptions(), [PIXELS]) + b"\0", "adds up to 3072 bytes, but 3073 follow"),
        (pack_upload(RequestOptions(), [PIXELS])[:20], "ends within its head"),
        (pack_frame(b'{"sizes": [2], "secret input": 1}', [b"ab"]), "Extra inputs"),
        (pack_frame(b"{}", []), "sizes: Field required"),
    ],
)
async def test_a_body_that_contradicts_itself_is_refused_and_nothing_is_billed(
    media_type: str, body: bytes, says: str
) -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            response = await client.post(IMAGES, content=body, headers={"Content-Type": media_type})
        assert says in refused(response)
        assert not vendor.ledger.posted


async def test_counts_are_checked_before_anything_is_decoded() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            assert "at most 8" in refused(await client.post(IMAGES, **upload([b""] * 9)), "too_many_items")
            keys = [item_key("a"), None]
            assert "2 item keys for 1 items" in refused(await client.post(IMAGES, **upload([PIXELS], item_keys=keys)))
            assert refused(await client.post(IMAGES, **upload([PIXELS], model="other")), "unknown_model", 404)
        assert not vendor.ledger.posted


async def test_a_form_that_ends_early_is_refused() -> None:
    async with running_vendor() as vendor:
        whole = httpx.Request("POST", "http://vendor", files=[("images", PIXELS), ("images", PIXELS)])
        body, sent = whole.read(), {"Content-Type": whole.headers["content-type"]}
        async with vendor.client() as client:
            for cut in (3, 20, len(PIXELS), len(body) - 10):
                response = await client.post(IMAGES, content=body[:-cut], headers=sent)
                assert "malformed" in refused(response)
        assert not vendor.ledger.posted


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate, gzip"])
async def test_nothing_is_inflated(coding: str) -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        for path, kind in ((IMAGES, OCTET_STREAM), (TEXTS, "application/json")):
            sent = {"Content-Type": kind, "Content-Encoding": coding}
            response = await client.post(path, content=b"\x1f\x8b", headers=sent)
            assert "Content-Encoding" in refused(response, "unsupported_media_type", 415)


@pytest.mark.parametrize("form", ["json", MULTIPART, OCTET_STREAM])
async def test_no_body_is_parsed_on_the_event_loop(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def seen(parse: Any) -> Any:
        def note(*arguments: Any, **named: Any) -> Any:
            threads.append(threading.current_thread())
            return parse(*arguments, **named)

        return note

    for name in ("unpack_upload", "_form_parts", "_validate"):
        monkeypatch.setattr(bodies, name, seen(getattr(bodies, name)))
    content: dict[str, Any] = {
        "json": {"json": images(png())},
        MULTIPART: {"files": [("images", png())]},
        OCTET_STREAM: upload([png()], OCTET_STREAM),
    }[form]

    async with running_vendor() as vendor, vendor.client() as client:
        assert (await client.post(IMAGES, **content)).status_code == 200
    assert threads
    assert threading.main_thread() not in threads


# Answers


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_raw_vectors_are_those_of_json(dtype: str) -> None:
    async with running_vendor() as vendor:
        body = images(png("red"), b"broken", png("blue"), keys=[item_key("a"), None, item_key("b")], dtype=dtype)
        async with vendor.client() as client:
            head, vectors = framed(await client.post(IMAGES, json=body, headers=RAW))
            told = EmbeddingsResponse.model_validate_json((await client.post(IMAGES, json=body)).content)
        assert [item.status for item in head.data] == ["billed", "failed", "billed"]
        assert head.receipt is not None
        assert [paid.receipt for paid in told.paid_by] == [head.receipt]
        assert list(vectors) == [0, 2]
        for position, vector in vectors.items():
            packed = told.data[position].embedding
            assert isinstance(packed, str)
            np.testing.assert_array_equal(vector, from_base64(packed, dtype, 64))  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "on_the_loop"), [(2**16, True), (10, False)])
async def test_a_large_answer_is_not_built_on_the_event_loop(
    most: int, on_the_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def note(*arguments: Any) -> str:
        threads.append(threading.current_thread())
        return to_base64(*arguments)

    for module in (embeddings, openai):
        monkeypatch.setattr(module, "to_base64", note)
    monkeypatch.setattr(embeddings, "_MAX_NUMBERS_ON_THE_LOOP", most)

    async with running_vendor() as vendor:
        asked = {"model": "hash-64", "input": "a dog", "encoding_format": "base64"}
        async with vendor.client() as client:
            assert (await client.post(TEXTS, json={"items": [{"text": "a dog"}]})).status_code == 200
            assert (await client.post("/v1/embeddings", json=asked)).status_code == 200
    assert [thread is threading.main_thread() for thread in threads] == [on_the_loop] * 2


async def test_every_sale_can_be_answered_raw() -> None:
    async with running_vendor() as vendor:
        key = item_key("a")
        async with vendor.client() as client:
            sold, first = framed(
                await client.post(TEXTS, json={"items": [{"text": "a dog", "item_key": key}]}, headers=RAW)
            )
            replayed, again = framed(await client.post(REPLAY, json={"item_keys": [key]}, headers=RAW))
            assert "fails" not in refused(
                await client.post(REPLAY, json={"item_keys": [item_key("b")]}, headers=RAW), "all_items_failed"
            )
        assert (sold.data[0].tokens, sold.data[0].truncated) == (4, False)
        assert replayed.data[0].status == "replayed"
        assert replayed.paid_by[0].receipt == sold.receipt
        np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize(
    ("encoding", "accept", "form"),
    [
        (None, None, "application/json"),
        (None, "*/*", "application/json"),
        (None, "application/json", "application/json"),
        (None, OCTET_STREAM, OCTET_STREAM),
        (None, f"{OCTET_STREAM}, application/json;q=0.9", OCTET_STREAM),
        (None, f"application/json, {OCTET_STREAM};q=0.5", "application/json"),
        (None, f"{OCTET_STREAM};q=0, */*", "application/json"),
        ("raw", None, OCTET_STREAM),
        ("raw", "application/json", OCTET_STREAM),
        ("base64", OCTET_STREAM, "application/json"),
        ("float", OCTET_STREAM, "application/json"),
    ],
)
async def test_the_parameter_decides_before_the_header(encoding: str | None, accept: str | None, form: str) -> None:
    async with running_vendor() as vendor:
        body: dict[str, Any] = {"items": [{"text": "a dog"}]} | ({} if encoding is None else {"encoding": encoding})
        async with vendor.client() as client:
            response = await client.post(TEXTS, json=body, headers={} if accept is None else {"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, form)


@pytest.mark.parametrize(
    ("accept", "weight"),
    [
        (None, 0.0),
        ("", 0.0),
        ("*/*", 0.0),
        ("application/*", 0.0),
        ("Application/JSON", 1.0),
        (" application/json ; q=0.25 ", 0.25),
        ("text/html, application/json;charset=utf-8;q=0.5", 0.5),
        ("application/json;q=7", 1.0),
        ("application/json;q=-1", 0.0),
        ("application/json;q=much", 0.0),
        (";;,,=", 0.0),
    ],
)
def test_the_weight_of_a_media_type(accept: str | None, weight: float) -> None:
    assert accepted(accept).get("application/json", 0.0) == weight


async def test_answers_say_how_long_parsing_and_encoding_took() -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        for content in (upload([PIXELS]), {"json": images(png())}, {"files": [("images", png())]}):
            timing = (await client.post(IMAGES, **content)).headers["server-timing"]
            assert {"parse", "encode"} <= {part.partition(";")[0].strip() for part in timing.split(",")}


async def test_the_catalogue_names_the_forms() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            card = (await client.get("/v1/models/hash-64")).json()
        assert card["image_uploads"] == ["application/json", MULTIPART, OCTET_STREAM, RGB8_TENSOR]
        assert card["answers"] == ["application/json", OCTET_STREAM]
        assert card["limits"] == {
            "max_items": 8,
            "max_item_bytes": 200_000,
            "max_request_bytes": 1_000_000,
            "max_pixels": 25_000_000,
            "max_text_bytes": 1000,
        }
