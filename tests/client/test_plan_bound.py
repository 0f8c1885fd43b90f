"""The upper bound: it opens no picture, is never too low, says what it is, and the purchase after it is exact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.client.buying_bench import ask, connect, draw_pictures, meet_vendor
from support.client.fake_vendor import FakeVendor
from vl2v_client.buying.context import PurchaseContext, plan_run
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.cli.plan import plan_json
from vl2v_client.core.errors import BudgetExhausted, DataError
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.splits import split, training_files
from vl2v_client.planning import file_contents
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.file_contents import hash_files, read_files
from vl2v_client.planning.plan_estimate import PlanEstimate, estimate_plan
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import Limits, make_plan
from vl2v_client.recipes import plan as recipe
from vl2v_client.recipes.plan import estimate_run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three domains with two classes of five pictures each; the domains hold the same pictures."""
    root = tmp_path / "data"
    for domain in ("art", "photo", "sketch"):
        for name in ("cat", "dog"):
            draw_pictures(root / domain / name, 5)
    return root


def _bound(vendor: FakeVendor, cache: EmbeddingCache, choice: QueryChoice) -> PlanEstimate | None:
    with connect(vendor) as client:
        buying = PurchaseContext(client, cache, approve=lambda _plan: None, notify=lambda _sentence: None)
        return estimate_run(choice, buying, open_dataset(choice.data))


@pytest.mark.parametrize("target", [None, "photo"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_files_are_those_of_the_split(data: Path, target: str | None, seed: int) -> None:
    expected = split(open_dataset(data), target_domain=target, seed=seed).train
    files = training_files(open_dataset(data), target_domain=target, seed=seed)
    assert [Path(path) for paths in files.values() for path in paths] == [sample.path for sample in expected]
    assert list(files) == sorted({sample.domain for sample in expected})


def test_so_are_those_of_a_plain_folder(data: Path) -> None:
    expected = split(open_dataset(data / "art"), target_domain=None).train
    (files,) = training_files(open_dataset(data / "art"), target_domain=None).values()
    assert [Path(path) for path in files] == [sample.path for sample in expected]


def test_few_views_are_planned_exactly(vendor: FakeVendor, cache: EmbeddingCache, data: Path) -> None:
    assert _bound(vendor, cache, QueryChoice(data, views=3)) is None


def test_many_views_are_bounded_without_a_picture_opened_or_a_query_sent(
    vendor: FakeVendor, cache: EmbeddingCache, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "EXACT_VIEWS", 10)
    choice = QueryChoice(data, target_domain="photo", views=3)
    with monkeypatch.context() as patched:
        for name in ("images.load_rgb", "images.image_size", "rendering.render_view"):
            patched.setattr(f"vl2v_client.data.{name}", lambda *_: pytest.fail("a picture was opened"))
        bound = _bound(vendor, cache, choice)
        patched.chdir(data.parent)
        assert _bound(vendor, cache, replace(choice, data=Path(data.name))) == bound
    assert bound is not None
    assert bound.image_files == 16
    assert bound.views == 48
    assert bound.different_files <= 10 < bound.image_files
    assert bound.units == 3 * bound.different_files + 2
    assert bound.amount_micro == 3 * bound.different_files * 100 + 2 * 10
    assert not [line for line in vendor.seen if "embeddings" in line]
    with connect(vendor) as client:
        exact = plan_run(
            choice, PurchaseContext(client, cache, approve=lambda _plan: None, notify=lambda _sentence: None)
        ).plan
    assert exact.units <= bound.units
    assert len(exact.image_keys) == bound.views


def test_planning_starts_without_what_renders_reads_yaml_or_buys() -> None:
    heavy = ("PIL.Image", "yaml", "torch", "vl2v_client.buying.buyer")
    program = f"import sys, vl2v_client.recipes.plan; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_second_bound_reads_no_file_and_a_changed_one_is_read_again(
    cache: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = draw_pictures(tmp_path / "data", 6)
    paths = [str(sample.path) for sample in samples]
    first = hash_files(tmp_path, paths, cache)
    read: list[str] = []
    whole = file_contents._hash_all

    def watched(chunk: list[str]) -> list[str]:
        read.extend(chunk)
        return whole(chunk)

    monkeypatch.setattr(file_contents, "_hash_all", watched)
    assert hash_files(tmp_path, paths, cache) == first
    assert read == []
    shutil.copy(paths[0], paths[1])
    os.utime(paths[1], ns=(1, 1))
    again = hash_files(tmp_path, paths, cache)
    assert read == [paths[1]]
    assert again == first | {paths[1]: first[paths[0]]}


def test_a_bound_and_an_exact_plan_share_what_they_remember(cache: EmbeddingCache, tmp_path: Path) -> None:
    paths = [sample.path for sample in draw_pictures(tmp_path / "data", 3)]
    hashes = hash_files(tmp_path, [str(path) for path in paths], cache)
    exact = read_files(paths, cache)
    assert {str(path): exact[path].file_sha for path in paths} == hashes
    assert {(one.width, one.height) for one in exact.values()} == {(12, 10)}  # a hash alone says nothing of the size
    assert {path for path, *_ in cache.contents.hashes_below(str(tmp_path))} == {str(path) for path in paths}
    assert not cache.contents.hashes_below(f"{tmp_path}/dat")


def test_a_missing_file_is_named(cache: EmbeddingCache, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        hash_files(tmp_path, [str(tmp_path / "gone.png")], cache)


@pytest.fixture
def small_bound(vendor: FakeVendor, cache: EmbeddingCache, tmp_path: Path) -> PlanEstimate:
    """Two texts and eight views of four files: 10 queries for 820 micro-EUR."""
    samples = draw_pictures(tmp_path / "data", 4)
    with connect(vendor) as client:
        teacher = meet_vendor(client, cache)
    texts = [TextQuery("a cat"), TextQuery("a dog")]
    return estimate_plan({tmp_path: [str(one.path) for one in samples]}, 2, texts, teacher, cache)


@pytest.mark.parametrize(
    ("caps", "says"),
    [
        (
            {"max_queries": 9},
            r"at most 10 new .*\(0\.00082 EUR\), but purchase.max_queries allows 9: .*exact plan",
        ),
        ({"max_cost_micro": 819}, r"but purchase.max_cost allows 0\.000819 EUR"),
        ({"remaining_units": 3}, "but the account has 3 left"),
    ],
)
def test_a_cap_that_may_not_hold_is_told(small_bound: PlanEstimate, caps: dict[str, int], says: str) -> None:
    small_bound.check_caps(Limits(max_queries=10, max_cost_micro=820, remaining_units=10))
    with pytest.raises(BudgetExhausted, match=says):
        small_bound.check_caps(Limits(**caps))


def test_nobody_takes_a_bound_for_a_count(small_bound: PlanEstimate) -> None:
    shown = plan_json(small_bound, 7)
    assert (shown["exact"], shown["new_queries"], shown["remaining_units"]) == (False, 10, 7)
    json.dumps(shown)
    facts = small_bound.facts(7)
    assert (facts["to buy"], facts["budget left"]) == ("at most 10", "7")


def test_the_bound_of_different_pictures_is_the_plan(
    vendor: FakeVendor, cache: EmbeddingCache, small_bound: PlanEstimate, tmp_path: Path
) -> None:
    samples = draw_pictures(tmp_path / "data", 4)
    exact = make_plan(ask(samples, views=2), [TextQuery("a cat"), TextQuery("a dog")], small_bound.texts.teacher, cache)
    assert (exact.units, exact.amount_micro) == (small_bound.units, small_bound.amount_micro)


def test_the_command_loads_no_training_library() -> None:
    heavy = {"torch", "timm", "torchvision"}
    asked = f"import sys, vl2v_client.cli.plan, vl2v_client.recipes.plan; print(*sys.modules.keys() & {heavy})"
    assert (
        subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split() == []
    )
