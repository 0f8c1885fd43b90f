"""What other software bought comes into the cache: by its recordings, checked, free, and never as something else."""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.client_shell import Result, invoke
from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill, verify_holdings
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.importing import ImportReport, import_purchases
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import DataError, NotAuthorized, VendorChanged, VendorError
from vl2v_client.core.values import Sample
from vl2v_client.data.sent_files import sent_content
from vl2v_contract.vectors import to_base64

Recording = dict[str, Any]
TEXTS = ["a photo of a cat", "a photo of a dog"]


def bought(vendor: FakeVendor, contents: Sequence[str | bytes], *, encoding: str = "float") -> Recording:
    """Buy as other software does, under item keys that no cache of ours makes, and record it in OpenAI's format."""
    keys = [secrets.token_hex(32) for _ in contents]
    with connect(vendor) as client:
        teacher = client.model()
        if isinstance(contents[0], str):
            client.embed_texts([str(text) for text in contents], keys, teacher)
        else:
            client.embed_images([file for file in contents if isinstance(file, bytes)], keys, teacher)
    vectors = [vendor.paid[key].vector for key in keys]
    given = [one if isinstance(one, str) else {"image": base64.b64encode(one).decode()} for one in contents]
    data = [
        {"index": index, "embedding": vector.tolist() if encoding == "float" else to_base64(vector, "float32")}
        for index, vector in enumerate(vectors)
    ]
    return {"request": {"model": vendor.model_id, "input": given}, "response": {"data": data}}


def write(path: Path, *recordings: Recording) -> Path:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in recordings))
    return path


def bring_in(vendor: FakeVendor, cache: EmbeddingCache, *paths: Path) -> ImportReport:
    with connect(vendor) as client:
        return import_purchases(paths, PurchaseContext(client, cache, lambda _plan: None, lambda _sentence: None))


def audit(vendor: FakeVendor, cache: EmbeddingCache) -> AuditReport:
    with connect(vendor) as client:
        return audit_bill(client, cache, settle_seconds=0)


def png(size: tuple[int, int], colour: str = "red", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_texts_are_cached_and_the_bill_is_clean(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path, encoding: str
) -> None:
    file = write(tmp_path / "bought.jsonl", bought(vendor, TEXTS, encoding=encoding))
    assert audit(vendor, cache).exit_code == 3
    report = bring_in(vendor, cache, file)
    assert (report.items, report.amount_micro, report.known, report.failed) == (2, 20, 0, [])
    assert plan_for(vendor, cache, [], TEXTS).missing == ()
    assert (audit(vendor, cache).exit_code, vendor.billed_units) == (0, 2)
    assert audit(vendor, cache).matched_items == 2
    assert verify_holdings(cache).is_clean
    again = bring_in(vendor, cache, file)
    assert (again.items, again.known, vendor.billed_units) == (0, 2, 2)


def test_an_image_at_the_input_size_is_what_a_plan_asks_about(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    """The fake vendor's input is 8 x 8 pixels."""
    path = tmp_path / "cat.png"
    path.write_bytes(png((8, 8)))
    tall = png((8, 10))
    recording = bought(vendor, [path.read_bytes(), tall])
    recording["request"]["input"][0] = {"file": "cat.png"}
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording))
    assert (report.items, report.unasked, report.failed) == (2, 1, [])
    assert plan_for(vendor, cache, ask([Sample(path, "photo", 0)])).missing == ()
    assert (audit(vendor, cache).exit_code, vendor.billed_units) == (0, 2)


def test_a_content_that_was_not_bought_is_not_taken_for_it(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    recording = bought(vendor, TEXTS)
    recording["request"]["input"][1] = "a photo of a house"
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording))
    assert (report.items, [one.name for one in report.failed]) == (1, [f"{tmp_path}/bought.jsonl line 1 input 1"])
    assert "another content" in report.failed[0].detail
    assert len(plan_for(vendor, cache, [], [*TEXTS, "a photo of a house"]).missing) == 2
    found = audit(vendor, cache)
    assert dict(found.findings.counts) == {}, "an import of a part is no request of ours"
    assert (found.other_software.units, found.exit_code) == (1, 3)


def test_a_key_of_other_software_stays_another_key_when_some_of_it_was_brought_in(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor.api_key_id = "key_notebook"
    recording, _ = bought(vendor, TEXTS), bought(vendor, ["a photo of a cow"])
    vendor.api_key_id = "key_client"
    assert bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording)).items == 2
    report = audit(vendor, cache)
    assert (report.exit_code, report.matched_items) == (0, 2)
    assert {key: one.units for key, one in report.other_keys.items()} == {"key_notebook": 1}


def test_vectors_that_no_charge_has_are_named(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    recording = bought(vendor, TEXTS)
    recording["response"]["data"][0]["embedding"][0] += 0.01
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording))
    assert (report.items, len(report.failed)) == (1, 1)
    assert "rounded" in report.failed[0].detail


def test_what_was_bought_twice_is_kept_twice_and_used_once(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    with connect(vendor) as client:
        buy(plan_for(vendor, cache, [], TEXTS[:1]), client, cache)
    once, again = bought(vendor, TEXTS), bought(vendor, TEXTS[::-1])
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", once, again))
    assert (report.items, report.twice, report.failed) == (4, 3, [])
    found = audit(vendor, cache)
    assert (found.exit_code, found.matched_items, vendor.billed_units) == (0, 5, 5)
    assert verify_holdings(cache).is_clean
    only_one = FakeVendor()
    with EmbeddingCache(tmp_path / "other.db") as other:  # one of two requests was recorded: the charges are alike
        kept = bought(only_one, TEXTS)
        bought(only_one, TEXTS)
        assert bring_in(only_one, other, write(tmp_path / "one.jsonl", kept)).items == 4
        assert audit(only_one, other).exit_code == 0


def test_a_file_that_is_no_image_is_not_sent_anywhere(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("a secret of mine")
    recording = bought(vendor, [png((8, 8))])
    recording["request"]["input"] = [{"file": "diary.txt"}]
    sent: list[bytes] = []

    def watch(request: httpx.Request) -> None:
        sent.append(request.read())

    vendor.before = watch
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording))
    assert (report.items, len(report.failed)) == (0, 1)
    assert "is not an image" in report.failed[0].detail
    assert not [body for body in sent if b"secret" in body]


def test_two_files_of_one_picture_each_find_their_own_charge(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    """Their vectors, and so the hashes by which charges are found, are equal; their contents are not."""
    vendor.vector = lambda _content: FakeVendor.vector(vendor, "one picture")  # type: ignore[method-assign]
    first, second = bought(vendor, [png((8, 10))]), bought(vendor, [png((8, 10), mode="RGBA")])
    report = bring_in(vendor, cache, write(tmp_path / "bought.jsonl", first, second))
    assert (report.items, report.failed) == (2, [])
    assert audit(vendor, cache).exit_code == 0


def test_a_purchase_that_was_planned_and_refused_is_no_obstacle(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    recording = bought(vendor, TEXTS)
    with connect(vendor) as client:
        vendor.before = lambda request: vendor.problem(422, "too_many_items") if request.method == "POST" else None
        with pytest.raises(VendorError):
            buy(plan_for(vendor, cache, [], TEXTS), client, cache)
        vendor.before = lambda _request: None
    assert bring_in(vendor, cache, write(tmp_path / "bought.jsonl", recording)).twice == 0
    assert plan_for(vendor, cache, [], TEXTS).missing == ()


def test_a_vendor_that_would_charge_again_is_refused(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    file = write(tmp_path / "bought.jsonl", bought(vendor, TEXTS))
    vendor.paid.clear()
    with pytest.raises(VendorError, match="should be free came with a charge"):
        bring_in(vendor, cache, file)
    assert cache.stats().embeddings == 0


def test_the_key_must_read_the_bill_and_be_of_the_account_of_the_books(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path
) -> None:
    file = write(tmp_path / "bought.jsonl", bought(vendor, TEXTS))

    def refuse(request: httpx.Request) -> httpx.Response | None:
        return vendor.problem(403, "forbidden") if request.url.path.endswith("/summary") else None

    vendor.before = refuse
    with pytest.raises(NotAuthorized, match="scopes embed and billing"):
        bring_in(vendor, cache, file)
    vendor.before = lambda _request: None
    bring_in(vendor, cache, file)
    vendor.lie = lambda path, body: body | {"account_id": "acct_other"} if path.endswith("/summary") else body
    with pytest.raises(VendorChanged, match="keeps the books of account"):
        bring_in(vendor, cache, file)


def test_every_way_to_keep_a_recording(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    pair, listed, plain = (bought(vendor, [text]) for text in ("one", "two", "three"))
    (folder / "a.request.json").write_text(json.dumps({"items": [{"text": "one", "item_key": None}]}))
    (folder / "a.response.json").write_text(json.dumps(pair["response"]))
    (folder / "b.json").write_text(json.dumps([listed]))
    write(folder / "c.jsonl", {"input": "three", "response": plain["response"]})
    (folder / "notes.txt").write_text("none of ours")
    assert bring_in(vendor, cache, folder).items == 3
    assert audit(vendor, cache).exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 cannot be read"),
        ('{"request": {"input": "a"}}', "`response` is missing"),
        ('{"request": {}, "response": {"data": []}}', "`input` is missing"),
        ('{"input": [1], "response": {"data": []}}', "its input is none"),
        ('{"input": ["a", {"image": "AAAA"}], "response": {"data": []}}', "texts and images"),
        ('{"input": [{"image": "?"}], "response": {"data": []}}', "not base64"),
        ('{"input": [{"file": "none.png"}], "response": {"data": []}}', "none.png cannot be read"),
        ('{"input": "a", "response": {"data": []}}', "1 inputs were sent, and 0 results came"),
        ('{"input": "a", "response": {"data": [{"index": 0, "embedding": [[1]]}]}}', "not a list of finite numbers"),
        ('{"input": "a", "response": {"data": [{"index": 0, "embedding": "?"}]}}', "cannot be read"),
    ],
)
def test_a_recording_that_is_none_is_named(
    vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "bought.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=says):
        bring_in(vendor, cache, file)


def test_paths_that_hold_no_recording(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.jsonl", "cannot be read"), (tmp_path, "holds no recording")):
        with pytest.raises(DataError, match=says):
            bring_in(vendor, cache, path)


@pytest.mark.parametrize(
    ("file", "preprocessing_id", "is_view"),
    [
        (png((8, 8)), "anything", True),
        (png((12, 12)), "safe-1/shortest-bicubic-8/mean/std/0", True),
        (png((12, 10)), "safe-1/squash-bicubic-8/mean/std/0", True),
        (png((12, 12), mode="L"), "safe-1/shortest-bicubic-8/mean/std/0", True),
        (png((12, 10)), "safe-1/shortest-bicubic-8/mean/std/0", False),
        (png((12, 12)), "safe-1/shortest-bilinear-8/mean/std/0", False),
        (png((12, 12)), "safe-1/shortest-bicubic-9/mean/std/0", False),
        (png((12, 12)), "safe-1-draft/shortest-bicubic-8/mean/std/0", False),
        (png((12, 12)), "reference-1/shortest-bicubic-8/mean/std/0", False),
        (png((12, 12), mode="RGBA"), "safe-1/shortest-bicubic-8/mean/std/0", False),
        (png((12, 12)), "fake-v1", False),
    ],
)
def test_which_files_stand_for_the_whole_image(file: bytes, preprocessing_id: str, is_view: bool) -> None:
    assert sent_content(file, Path("cat.png"), 8, preprocessing_id)[1] is is_view


def run(vendor: FakeVendor, tmp_path: Path, *words: str | Path) -> Result:
    with served(vendor) as url:
        environment = {"VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY, "VL2V_CACHE": str(tmp_path / "client.db")}
        return invoke(["cache", "import", *map(str, words)], environment)


def test_the_command_says_what_came_and_what_did_not(vendor: FakeVendor, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "data", 1)
    good = write(tmp_path / "good.jsonl", bought(vendor, TEXTS), bought(vendor, TEXTS[:1]))
    shown = run(vendor, tmp_path, good)
    assert shown.exit_code == 0, shown.output
    assert "imported 3 queries that had cost 0.00003 EUR; 1 were bought twice" in shown.stdout
    other = bought(vendor, ["a photo of a cow"])
    other["request"]["input"] = ["a photo of a bull"]
    shown = run(vendor, tmp_path, good, write(tmp_path / "bad.jsonl", other), "--json")
    assert shown.exit_code == 3
    assert json.loads(shown.stdout)["known"] == 3
    assert "bad.jsonl line 1 input 0: the charge is for another content" in shown.stderr
    assert run(vendor, tmp_path).exit_code == 2
