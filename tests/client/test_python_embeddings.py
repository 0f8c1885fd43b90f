"""`vl2v.Client`: pictures from memory and from files are bought once, within what somebody has agreed to."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vl2v
from support.client.buying_bench import ask, buy, draw_pictures, plan_for
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.queries import pixels_sha

OpenClient = Callable[..., vl2v.Client]


@pytest.fixture
def open_client(vendor: FakeVendor, tmp_path: Path) -> Iterator[OpenClient]:
    opened: list[vl2v.Client] = []
    with served(vendor) as url:

        def make(key: str | None = API_KEY, **terms: Any) -> vl2v.Client:
            terms = {"cache": tmp_path / "client.db", "progress": False, **terms}
            opened.append(vl2v.Client(url, key, **terms))
            return opened[-1]

        yield make
        for one in opened:
            one.close()


def _expected(vendor: FakeVendor, path: Path) -> np.ndarray:
    pixels = render_view(load_rgb(path), canonical_view(), vendor.image_size)
    return vendor.vector(pixels_sha(pixels)).astype(np.float16).astype(np.float32)


def test_a_file_a_picture_and_an_array_of_the_same_pixels_are_one_query(
    vendor: FakeVendor, open_client: OpenClient, tmp_path: Path
) -> None:
    first, second = (sample.path for sample in draw_pictures(tmp_path / "data", 2))
    pixels = np.asarray(Image.open(first))
    client = open_client(max_queries=2)
    vectors = client.embed_images([first, str(first), Image.open(first), pixels, np.asfortranarray(pixels), second])
    assert (vectors.shape, vectors.dtype) == ((6, vendor.dimension), np.float32)
    assert (vectors[:5] == _expected(vendor, first)).all()
    assert (vectors[5] == _expected(vendor, second)).all()
    assert vendor.billed_units == 2


def test_what_is_in_the_cache_is_not_bought_again_and_needs_no_approval(
    vendor: FakeVendor, client: VendorClient, open_client: OpenClient, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 3)
    with EmbeddingCache(tmp_path / "client.db") as cache:  # as the command line buys
        buy(plan_for(vendor, cache, ask(samples), ["a cat"]), client, cache)
    mine = open_client()
    pictures = [Image.open(sample.path) for sample in samples]
    assert mine.plan_images(pictures).units == 0
    assert mine.embed_images(pictures).shape == (3, vendor.dimension)
    assert mine.embed_texts(["a cat", "a cat"]).shape == (2, vendor.dimension)
    assert vendor.billed_units == 4


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "I;16"])
def test_a_picture_of_any_mode_has_the_pixels_of_its_file(
    vendor: FakeVendor, open_client: OpenClient, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "one.tiff"
    picture = Image.effect_noise((12, 10), 60)
    (picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert("RGB").convert(mode)).save(path)
    vectors = open_client(max_queries=1).embed_images([path, Image.open(path)])
    assert (vectors[0] == vectors[1]).all()
    assert vendor.billed_units == 1


def test_a_picture_is_turned_as_its_exif_says(vendor: FakeVendor, open_client: OpenClient, tmp_path: Path) -> None:
    path, exif = tmp_path / "one.png", Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((12, 10), 60).convert("RGB").save(path, exif=exif)
    vectors = open_client(max_queries=1).embed_images([path, Image.open(path)])
    assert (vectors == _expected(vendor, path)).all()


def test_nothing_is_spent_that_nobody_agreed_to(vendor: FakeVendor, open_client: OpenClient) -> None:
    client = open_client()
    assert client.plan_texts(["a cat", "a dog", "a cat"]).units == 2
    with pytest.raises(vl2v.NotApproved, match=r"give max_queries=2 or more, or approve=vl2v\.ask") as refusal:
        client.embed_texts(["a cat", "a dog"])
    assert (refusal.value.units, refusal.value.amount_micro, refusal.value.currency) == (2, 20, "EUR")
    seen: list[vl2v.QueryPlan] = []

    def decline(plan: vl2v.QueryPlan) -> bool:
        seen.append(plan)
        return False

    with pytest.raises(vl2v.NotApproved, match="`approve` did not agree"):
        open_client(approve=decline).embed_texts(["a cat"])
    assert [plan.units for plan in seen] == [1]
    assert vendor.billed_units == 0
    open_client(approve=lambda _plan: True).embed_texts(["a cat"])
    assert vendor.billed_units == 1


@pytest.mark.parametrize(("typed", "bought"), [("Y\n", 1), ("\n", 0), ("", 0)])
def test_a_terminal_is_asked_and_at_its_end_nothing_is_bought(
    vendor: FakeVendor, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, typed: str, bought: int
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with nullcontext() if bought else pytest.raises(vl2v.NotApproved):
        open_client(approve=vl2v.ask).embed_texts(["a cat"])
    assert vendor.billed_units == bought


def test_a_key_that_may_not_buy_is_told_before_anybody_is_asked(vendor: FakeVendor, open_client: OpenClient) -> None:
    asked: list[vl2v.QueryPlan] = []
    refusal = vendor.problem(403, "forbidden", "the API key lacks the scope `embed`")
    vendor.before = lambda request: refusal if "/v1/embeddings" in request.url.path else None
    client = open_client(approve=lambda plan: asked.append(plan) is None)
    with pytest.raises(vl2v.NotAuthorized, match="so it may not buy, and nothing was bought"):
        client.embed_texts(["a cat"])
    assert asked == []


def test_a_cap_holds_for_all_calls_together(vendor: FakeVendor, open_client: OpenClient) -> None:
    client = open_client(max_queries=3)
    client.embed_texts(["a cat", "a dog"])
    with pytest.raises(vl2v.BudgetExhausted, match="max_queries allows 3, and 2 queries are bought") as refusal:
        client.embed_texts(["a cow", "a pig"])
    assert "purchase." not in str(refusal.value)
    assert (refusal.value.units, refusal.value.left) == (2, 1)
    assert vendor.billed_units == 2
    with pytest.raises(vl2v.BudgetExhausted):
        open_client(max_cost=0.000009).embed_texts(["a cow"])
    assert open_client(max_cost=Decimal("0.00001")).embed_texts(["a cow"]).shape == (1, vendor.dimension)


def test_the_vendors_budget_is_told_in_fields(tmp_path: Path) -> None:
    with served(FakeVendor(budget=1)) as url, pytest.raises(vl2v.BudgetExhausted) as refusal:
        vl2v.Client(url, API_KEY, cache=tmp_path / "client.db", max_queries=9, progress=False).embed_texts(["a", "b"])
    assert (refusal.value.units, refusal.value.left) == (2, 1)


def test_bill_and_audit_know_pictures_from_memory(vendor: FakeVendor, open_client: OpenClient) -> None:
    client = open_client(max_queries=3)
    client.embed_images([Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")])
    bill, report = client.bill(), client.audit()
    assert (bill.units, bill.left, bill.amount_micro, bill.currency) == (2, 9_998, 200, "EUR")
    assert str(bill) == "2 queries, 0.0002 EUR; 9,998 left"
    assert report.is_clean
    assert report.matched_items == 2


def test_a_picture_that_the_vendor_cannot_read_is_named(vendor: FakeVendor, open_client: OpenClient) -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    vendor.bad_contents.add(pixels_sha(np.asarray(pictures[1])))
    client = open_client(max_queries=3)
    with pytest.raises(vl2v.QueriesFailed, match="image 1: not an image") as refusal:
        client.embed_images(pictures)
    assert [(one.name, one.code) for one in refusal.value.failed] == [("image 1", "undecodable_image")]
    assert client.embed_images(pictures[:1]).shape == (1, vendor.dimension)
    assert vendor.billed_units == 1


def test_a_picture_that_changes_before_it_is_sent_is_not_bought(vendor: FakeVendor, open_client: OpenClient) -> None:
    pixels = np.zeros((9, 9, 3), dtype=np.uint8)

    def change(_plan: vl2v.QueryPlan) -> bool:
        pixels[:] = 255
        return True

    with pytest.raises(vl2v.DataError, match="image 0 has changed since it was planned"):
        open_client(approve=change).embed_images([pixels])
    assert vendor.billed_units == 0


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((3, 9, 9), dtype=np.uint8), r"image 1 is an array of uint8 \[3, 9, 9\]: give uint8 \[H, W, 3\]"),
        (np.zeros((9, 9, 3), dtype=np.float32), r"image 1 is an array of float32"),
        (np.zeros((0, 9, 3), dtype=np.uint8), "image 1 has 9x0 pixels"),
        (7, "image 1 is a int: give a PIL image"),
        (Image.new("F", (9, 9)), "image 1 holds floating-point pixels"),
        ("nowhere.png", "nowhere.png cannot be read"),
    ],
)
def test_what_is_no_image_is_named_before_anything_is_bought(
    vendor: FakeVendor, open_client: OpenClient, image: Any, says: str
) -> None:
    with pytest.raises(vl2v.DataError, match=says):
        open_client(max_queries=9).embed_images([Image.new("RGB", (9, 9)), image])
    assert vendor.billed_units == 0


def test_a_broken_picture_is_named(open_client: OpenClient, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((40, 40), 60).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with Image.open(path) as picture, pytest.raises(vl2v.DataError, match="image 0 is a broken image"):
        open_client(max_queries=9).embed_images([picture])


def test_one_image_or_text_is_no_list_and_no_image_is_an_empty_array(
    vendor: FakeVendor, open_client: OpenClient
) -> None:
    client = open_client()
    for one in ("photo.png", Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), dtype=np.uint8)):
        with pytest.raises(vl2v.UsageError, match="give a list of images, also for one"):
            client.embed_images(one)  # type: ignore[arg-type]
    with pytest.raises(vl2v.UsageError, match="give a list of texts"):
        client.embed_texts("a cat")
    with pytest.raises(vl2v.UsageError, match="text 0 is a int"):
        client.embed_texts([1])  # type: ignore[list-item]
    assert client.embed_images([]).shape == (0, vendor.dimension)


def test_address_key_and_cache_come_from_the_environment(
    vendor: FakeVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(vendor) as url:
        monkeypatch.setenv("VL2V_VENDOR_URL", url)
        monkeypatch.setenv("VL2V_API_KEY", API_KEY)
        monkeypatch.setenv("VL2V_CACHE", str(tmp_path / "mine.db"))
        with vl2v.Client(max_queries=1, progress=False) as client:
            client.embed_texts(["a cat"])
            assert client.cache.path == tmp_path / "mine.db"
    with pytest.raises(vl2v.UsageError, match="max_queries -1"):
        vl2v.Client(max_queries=-1)
