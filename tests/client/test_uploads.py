"""Raw pixels, framed files and forms: the same purchase, under the same names, whatever the vendor can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_ledger import Body
from support.client.fake_vendor import API_KEY, FakeVendor
from vl2v_client.api.client import Upload, VendorClient, choose_form, is_near
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorError
from vl2v_contract.wire.embeddings import ModelCard
from vl2v_contract.wire.frames import pack_frame, unpack_frame
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR

IMAGES = "/v1/embeddings/images"
KEYS = ["a" * 64, "b" * 64]
ALL = (JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR)


def sent_types(vendor: FakeVendor) -> list[str]:
    """The media types of image requests, filled in as they come."""
    seen: list[str] = []

    def note(request: httpx.Request) -> None:
        if request.url.path == IMAGES:
            seen.append(request.headers["content-type"].partition(";")[0])

    vendor.before = note
    return seen


def open_client(vendor: FakeVendor, upload: Upload) -> VendorClient:
    return VendorClient("http://fake", API_KEY, transport=vendor.transport, sleep=lambda _: None, upload=upload)


@pytest.mark.parametrize(
    ("frames", "upload", "sent"),
    [
        (True, "auto", RGB8_TENSOR),
        (True, "raw", RGB8_TENSOR),
        (True, "png", OCTET_STREAM),
        (False, "auto", MULTIPART),
        (False, "raw", MULTIPART),
    ],
)
def test_every_form_buys_the_same_under_the_same_names(
    cache: EmbeddingCache, tmp_path: Path, frames: bool, upload: Upload, sent: str
) -> None:
    vendor = FakeVendor()
    vendor.speaks_frames = frames
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 5), views=2))
    seen = sent_types(vendor)
    with open_client(vendor, upload) as client:
        report = buy(plan, client, cache)
    assert set(seen) == {sent}
    assert (report.billed_units, report.failed) == (10, [])
    for item in plan.missing:
        assert vendor.paid[item.item_key].content_sha == item.content_sha
    kept = cache.get_many(plan.image_keys)
    bought = np.stack([vendor.paid[item.item_key].vector for item in plan.missing]).astype(np.float16)
    np.testing.assert_array_equal(np.stack([kept[item.cache_key] for item in plan.missing]), bought)


def test_what_was_bought_in_one_form_is_found_again_by_another(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    """An older client sent PNG and its answer was lost; the vendor has learnt frames since."""
    queries = ask(draw_pictures(tmp_path / "data", 4))
    plan = plan_for(vendor, cache, queries)
    seen = sent_types(vendor)

    def lose(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.url.path == IMAGES:
            raise httpx.ReadError("cut", request=request)
        return response

    vendor.after = lose
    with connect(vendor) as client, pytest.raises(VendorError):
        buy(plan, client, cache)
    vendor.after = lambda _request, response: response
    vendor.speaks_frames = True
    with connect(vendor) as client:
        report = buy(plan, client, cache)
        again = client.embed_images(
            [bytes(192)] * 4, [item.item_key for item in plan.missing], plan.teacher, form="rgb8"
        )
    assert (report.billed_units, report.replayed_units, vendor.billed_units) == (0, 4, 4)
    assert {failed.code for failed in again.failed} == {"item_key_mismatch"}
    assert seen[0] == MULTIPART
    assert seen[-1] == RGB8_TENSOR


def test_the_forms_of_a_model_are_asked_for_once(vendor: FakeVendor, client: VendorClient) -> None:
    vendor.speaks_frames = True
    with connect(vendor) as other:
        teacher = other.model()
    assert [client.image_form(teacher) for _ in range(3)] == ["rgb8"] * 3
    assert vendor.seen.count(f"GET /v1/models/{teacher.id}") == 1


@pytest.mark.parametrize("speaks_frames", [False, True])
def test_texts_and_replays_come_in_either_form(vendor: FakeVendor, client: VendorClient, speaks_frames: bool) -> None:
    vendor.speaks_frames = speaks_frames
    bought = client.embed_texts(["a cat", "a dog"], KEYS, client.model())
    again = client.replay([*KEYS, "c" * 64])
    assert [item.status for item in again.items] == ["replayed", "replayed"]
    for first, second in zip(bought.items, again.items, strict=True):
        np.testing.assert_array_equal(first.vector, second.vector)
    assert [failed.code for failed in again.failed] == ["unknown_item"]


# Lies in frames


def reframed(change: Callable[[bytes, bytes], bytes]) -> Callable[[httpx.Request, httpx.Response], httpx.Response]:
    """Answers whose head and vectors are put together in another way."""

    def after(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method != "POST":
            return response
        head, payload = unpack_frame(response.content)
        return httpx.Response(200, content=change(head, bytes(payload)), headers=response.headers)

    return after


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda head, vectors: pack_frame(head, [vectors[32:], vectors[:32]]), "not the one that was billed"),
        (lambda head, vectors: pack_frame(head, [b"\xff" * len(vectors)]), "not finite and of unit length"),
        (lambda head, vectors: pack_frame(head, [vectors[:-2]]), "need 64 bytes, got 62"),
        (lambda head, vectors: pack_frame(head, [vectors, vectors]), "need 64 bytes, got 128"),
        (lambda head, vectors: pack_frame(head.replace(b"float16", b"float32"), [vectors * 2]), "float16 numbers, raw"),
        (lambda head, vectors: pack_frame(head, [vectors])[:40], "ends within its head"),
        (lambda head, _vectors: head, "begins with the letters VL2V"),
    ],
)
def test_a_damaged_or_lying_frame_is_refused_and_its_charge_is_not_forgotten(
    vendor: FakeVendor, client: VendorClient, change: Callable[[bytes, bytes], bytes], says: str
) -> None:
    vendor.speaks_frames = True
    teacher = client.model()
    vendor.after = reframed(change)
    with pytest.raises(VendorError, match=says) as caught:
        client.embed_texts(["a cat", "a dog"], KEYS, teacher)
    assert not caught.value.was_refused
    vendor.after = lambda _request, response: response
    assert [item.status for item in client.replay(KEYS).items] == ["replayed", "replayed"]


def test_a_lie_in_the_head_of_a_frame_is_refused(vendor: FakeVendor, client: VendorClient) -> None:
    def more_units(path: str, body: Body) -> Body:
        if path.startswith("/v1/embeddings"):
            body["usage"]["billed_units"] = 3
        return body

    vendor.speaks_frames, vendor.lie = True, more_units
    with pytest.raises(VendorError, match="2 items were billed, but 3 units"):
        client.embed_texts(["a cat", "a dog"], KEYS, client.model())


# The choice


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
        ("http://vendor:8000", True),
        ("http://10.0.0.7", True),
        ("http://192.168.1.2:8000", True),
        ("https://gpu.internal", True),
        ("https://vendor.example", False),
        ("https://203.0.114.7", False),
        ("https://internal.example", False),
    ],
)
def test_who_is_near(url: str, near: bool) -> None:
    assert is_near(url) is near
    assert choose_form("auto", ALL, url) == ("rgb8" if near else "png")
    assert choose_form("raw", ALL, url) == "rgb8"
    assert choose_form("png", ALL, url) == "png"
    assert choose_form("raw", (JSON, MULTIPART), url) == "png"


def test_a_card_of_an_older_vendor_names_what_it_could_read() -> None:
    fields = ModelCard.model_fields
    assert (fields["image_uploads"].default, fields["answers"].default) == ((JSON, MULTIPART), (JSON,))
