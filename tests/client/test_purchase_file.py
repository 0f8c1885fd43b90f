"""The file by which runs and processes share a purchase: the cache's own bits, whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from support.client.buying_bench import ask, buy, connect, draw_pictures, plan_for
from support.client.fake_vendor import FakeVendor
from vl2v_client.cache.memo import SessionCache
from vl2v_client.cache.purchase_file import PurchaseFile
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import RunError
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.splits import Split
from vl2v_client.planning.choice import RunQueries
from vl2v_client.planning.queries import view_keys
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.purchase_sharing import hand_on

TEXTS = ("a photo of a cat", "a photo of a dog")


@pytest.fixture
def planned(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> PlannedRun:
    """Two views of each of three pictures, and two texts; all but one view are bought."""
    samples = draw_pictures(tmp_path / "data" / "photo", 3)
    queries = tuple(ask(samples, views=2))
    plan = plan_for(vendor, cache, queries, TEXTS)
    parts = Split(tuple(samples), (), (), (), None, ("photo",))
    run = PlannedRun(RunQueries(open_dataset(tmp_path), parts, (), 2, queries, ()), plan)
    with connect(vendor) as client:
        buy(run.cut(plan.image_keys[:-1]).plan, client, cache)
    return run


@pytest.fixture
def shared(planned: PlannedRun, cache: EmbeddingCache, tmp_path: Path) -> PurchaseFile:
    return hand_on(planned, cache, "this run", tmp_path / "purchase.safetensors")


def test_it_holds_the_bits_prices_and_file_hashes_of_the_cache(
    shared: PurchaseFile, planned: PlannedRun, cache: EmbeddingCache
) -> None:
    plan = planned.plan
    keys = [*plan.image_keys, *plan.text_keys]
    held, kept = shared.get_many(keys), cache.get_many(keys)
    assert held.keys() == kept.keys() == {*keys} - {plan.image_keys[-1]}
    assert all(held[key].dtype == np.float16 and (held[key] == kept[key]).all() for key in held)
    assert shared.missing([*keys, "0" * 64]) == [plan.image_keys[-1], "0" * 64]
    for some in (keys, keys[:3], plan.text_keys, [*keys, *keys], []):
        assert shared.paid(some) == cache.records.paid(some)
    assert (shared.teacher, shared.of) == (plan.teacher, "this run")
    names = view_keys(planned.queries.images, SessionCache(shared.files()), size=plan.teacher.image_size)
    assert shared.keys_of_views([*names, bytes(32)]) == [*plan.image_keys, None]
    assert set(shared.files().values()) == {
        content for content in cache.contents.files(shared.files()).values() if content.width
    }
    shared.check()
    assert load_file(shared.path)["vectors"].shape == (len({*keys}), plan.teacher.embedding_dim)  # by the library too


def test_processes_map_it_and_copy_nothing(shared: PurchaseFile) -> None:
    base = shared.vectors
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not shared.vectors.flags.writeable


def test_what_a_run_leaves_out_is_not_handed_on(planned: PlannedRun, cache: EmbeddingCache, tmp_path: Path) -> None:
    some = planned.cut(planned.plan.image_keys[:2])
    shared = hand_on(some, cache, "some", tmp_path / "some.safetensors")
    assert shared.get_many(planned.plan.image_keys).keys() == {*planned.plan.image_keys[:2]}
    assert shared.paid(planned.plan.image_keys)["image"].units == 2


def test_a_picture_that_changes_before_it_is_handed_on_is_named(
    planned: PlannedRun, cache: EmbeddingCache, tmp_path: Path
) -> None:
    path = planned.queries.split.train[1].path
    Image.fromarray(np.zeros((10, 12, 3), dtype=np.uint8)).save(path)
    with pytest.raises(RunError, match=f"{path.name} .*is beyond the one purchase"):
        hand_on(planned, cache, "this run", tmp_path / "purchase.safetensors")
    assert not (tmp_path / "purchase.safetensors").exists()


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _of_another_version(content: bytes) -> bytes:
    return content.replace(b"vl2v purchase 1", b"vl2v purchase 2")


def _foreign(_content: bytes) -> bytes:
    header = json.dumps({"vectors": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0"


def _rows_beyond(content: bytes) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    offset = start + json.loads(content[8:start])["view_rows"]["data_offsets"][0]
    return content[:offset] + (99).to_bytes(8, "little") + content[offset + 8 :]


@pytest.mark.parametrize(
    "harm", [_cut, _of_another_version, _foreign, _rows_beyond, lambda _: b"", lambda _: b"\xff" * 99]
)
def test_a_torn_foreign_or_strange_file_is_refused(shared: PurchaseFile, harm: Callable[[bytes], bytes]) -> None:
    shared.path.write_bytes(harm(shared.path.read_bytes()))
    with pytest.raises(RunError, match=r"purchase\.safetensors cannot be used .*costs nothing again"):
        PurchaseFile(shared.path)


def test_a_changed_bit_is_found_when_the_file_is_checked(shared: PurchaseFile) -> None:
    content = bytearray(shared.path.read_bytes())
    content[-1] ^= 1
    shared.path.write_bytes(content)
    with pytest.raises(RunError, match="does not have its hash"):
        PurchaseFile(shared.path).check()
