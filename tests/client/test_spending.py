"""Spending a number of queries: exactly counted, first views first, in one round or two, the same at every call."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from buying_bench import draw_domains
from fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, NotAuthorized, RunError, UsageError
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.selection import PROBABILITY_SELECTORS, SELECTORS
from vl2v_client.planning.spending import Spending
from vl2v_client.recipes.purchase import Buying, PlannedRun, buy_planned, plan_run
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.recipes.run_folder import claim_run_folder
from vl2v_client.recipes.spending import choose_queries, first_round

TRAIN, VIEWS, TEXTS = 32, 3, 2
"""Two source domains of two classes of ten pictures less the hold-out of a fifth; three views; two class prompts."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_domains(tmp_path / "data", 10)


@pytest.fixture
def buying(client: VendorClient, cache: EmbeddingCache) -> Buying:
    return Buying(client, cache, approve=lambda _plan: None, notify=lambda _sentence: None)


@pytest.fixture
def planned(data: Path, buying: Buying) -> PlannedRun:
    return plan_run(QueryChoice(data, target_domain="sketch", views=VIEWS), buying)


def features() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(TRAIN, 6)).astype(np.float32)


def unused() -> NDArray[np.float32]:
    raise AssertionError("a random choice looks at no feature")


def choose(spending: Spending, planned: PlannedRun, buying: Buying) -> QueryPlan:
    return choose_queries(spending, planned, buying, seed=0, features=features).planned.plan


def views_of(plan: QueryPlan) -> list[int]:
    """Which view of its image each missing image query is, in the order of buying."""
    images = [item.query for item in plan.missing if isinstance(item.query, ImageQuery)]
    return [0 if not query.view.to_json() else 1 for query in images]


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", [2, 3, 12, 40, 98, 500])
def test_the_bill_is_the_budget(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying, name: str, budget: int
) -> None:
    spending = Spending(name, budget)
    chosen = choose_queries(spending, planned, buying, seed=0, features=features)
    first = chosen.first_purchase.billed_units if chosen.first_purchase else 0
    second = buy_planned(chosen.planned.plan, buying).billed_units
    assert first + second == vendor.billed_units == min(budget, TEXTS + TRAIN * VIEWS)
    assert len(chosen.planned.plan.used_image_keys) == vendor.billed_units - TEXTS
    again = choose(spending, plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying), buying)
    assert again.missing == ()
    assert again.chosen == chosen.planned.plan.chosen
    assert again.cached == vendor.billed_units


def test_texts_come_first_then_first_views_then_others(planned: PlannedRun, buying: Buying) -> None:
    plan = choose(Spending("random", TEXTS + TRAIN + 5), planned, buying)
    assert [item.modality for item in plan.missing[:TEXTS]] == ["text"] * TEXTS
    assert views_of(plan) == [0] * TRAIN + [1] * 5
    assert (plan.units, plan.image_files, plan.cached) == (TEXTS + TRAIN + 5, TRAIN, 0)
    few = choose(Spending("k-center", TEXTS + 7), planned, buying)
    assert views_of(few) == [0] * 7
    assert few.image_files == 7
    assert few.amount_micro == 7 * 100 + TEXTS * 10


def test_a_random_choice_of_more_begins_with_that_of_fewer_and_looks_at_no_feature(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying
) -> None:
    few = choose_queries(Spending("random", 10), planned, buying, seed=0, features=unused).planned.plan
    buy_planned(few, buying)
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    more = choose_queries(Spending("random", 25), fresh, buying, seed=0, features=unused).planned.plan
    assert few.chosen is not None
    assert more.chosen is not None
    assert few.chosen < more.chosen
    assert (more.units, more.cached) == (15, 10)
    strata = [(query.sample.domain, query.sample.class_index) for query in _images(few)]
    assert {strata.count(stratum) for stratum in set(strata)} == {2}


def _images(plan: QueryPlan) -> list[ImageQuery]:
    return [item.query for item in plan.missing if isinstance(item.query, ImageQuery)]


def test_what_the_cache_holds_beside_the_choice_is_not_used(planned: PlannedRun, buying: Buying) -> None:
    buy_planned(planned.plan, buying)
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    plan = choose(Spending("random", 10), fresh, buying)
    assert (plan.units, plan.cached, len(plan.used_image_keys)) == (0, 10, 8)


def test_copies_of_an_image_cost_one_query(data: Path, buying: Buying, vendor: FakeVendor) -> None:
    for name in ("cat", "dog"):
        first = data / "art" / name / "0.png"
        for index in range(1, 10):
            (data / "art" / name / f"{index}.png").write_bytes(first.read_bytes())
    planned = plan_run(QueryChoice(data, target_domain="sketch", views=1), buying)
    distinct = len(set(planned.plan.image_keys))
    for name in SELECTORS:
        plan = choose(Spending(name, TEXTS + distinct - 3), planned, buying)
        assert len(plan.used_image_keys) == distinct - 3
        assert len(choose(Spending(name, 500), planned, buying).used_image_keys) == distinct


@pytest.mark.parametrize("budget", [0, 1])
def test_a_budget_that_cannot_hold_the_texts_is_refused_unless_they_are_here(
    planned: PlannedRun, buying: Buying, vendor: FakeVendor, budget: int
) -> None:
    with pytest.raises(BudgetExhausted, match=r"cannot hold the 2 texts of the classes.*raise it to 2 for text alone"):
        choose(Spending("random", budget), planned, buying)
    buy_planned(choose(Spending("random", TEXTS), planned, buying), buying)
    assert vendor.billed_units == TEXTS
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    plan = choose(Spending("random", budget), fresh, buying)
    assert (plan.units, plan.used_image_keys) == (0, ())


@pytest.mark.parametrize("name", PROBABILITY_SELECTORS)
def test_the_first_of_two_rounds_is_known_before_anything_is_bought(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying, name: str
) -> None:
    first = first_round(Spending(name, TEXTS + 21), planned, seed=0, features=unused)
    assert vendor.billed_units == 0
    assert (first.planned.plan.units, first.later) == (TEXTS + 11, 10)
    whole = choose(Spending(name, TEXTS + 21), planned, buying)
    assert vendor.billed_units == TEXTS + 11
    assert first.planned.plan.chosen is not None
    assert whole.chosen is not None
    assert first.planned.plan.chosen < whole.chosen
    assert whole.missing != ()


def test_margin_asks_about_the_images_between_two_classes(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying
) -> None:
    """The teacher and the student agree but on ten images whose features lie between the classes."""
    labels = np.array([sample.class_index for sample in planned.queries.split.train])
    sure = np.where(labels[:, None] == [0, 1], 1.0, 0.0) + 0.01 * np.random.default_rng(2).normal(size=(TRAIN, 2))
    between = np.arange(0, TRAIN, 3)
    sure[between] = 0.5
    _teach(vendor, planned, labels)
    spending = Spending("margin", TEXTS + 12)
    first = first_round(spending, planned, seed=0, features=unused).planned.plan.chosen
    whole = choose_queries(spending, planned, buying, seed=0, features=lambda: sure.astype(np.float32)).planned.plan
    assert first is not None
    assert whole.chosen is not None
    added = [planned.plan.image_keys.index(key) // VIEWS for key in whole.chosen - first]
    assert len(added) == 6
    assert set(added) <= set(between.tolist())


def test_a_second_round_of_views_goes_to_the_images_that_the_student_misses(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying
) -> None:
    labels = np.array([sample.class_index for sample in planned.queries.split.train])
    sure = np.where(labels[:, None] == [0, 1], 1.0, 0.0).astype(np.float32)
    spending = Spending("random", TEXTS + 24, rounds=2)
    first = first_round(spending, planned, seed=0, features=unused)
    rows = [planned.plan.image_keys.index(item.cache_key) // VIEWS for item in first.planned.plan.missing[TEXTS:]]
    assert (len(rows), first.later) == (12, 12)
    hard = sorted(rows[:2])
    teacher_says = labels.copy()
    teacher_says[hard] = 1 - labels[hard]  # what no student could guess from the features
    _teach(vendor, planned, teacher_says)
    plan = choose_queries(spending, planned, buying, seed=0, features=lambda: sure).planned.plan
    further = [planned.plan.image_keys.index(item.cache_key) for item in plan.missing if item.modality == "image"][12:]
    assert [place % VIEWS for place in further] == [1, 2] * 6
    assert sorted({place // VIEWS for place in further[:4]}) == hard
    assert {place // VIEWS for place in further} < set(rows)


def _teach(vendor: FakeVendor, planned: PlannedRun, classes: NDArray[np.int64]) -> None:
    """The vendor's embedding of an image is near the one of the class that the teacher takes it for."""
    axes = np.eye(vendor.dimension, dtype=np.float32)
    queries = dict.fromkeys(item.content_sha for item in planned.plan.missing if item.modality == "text")
    said = {sha: axes[place] for place, sha in enumerate(queries)}
    shas = {item.cache_key: item.content_sha for item in planned.plan.missing}
    for place, key in enumerate(planned.plan.image_keys):
        said[shas[key]] = axes[int(classes[place // VIEWS])]
    vendor.vector = lambda content_sha: said[content_sha]  # type: ignore[method-assign]


def test_a_run_folder_keeps_its_choice(planned: PlannedRun, buying: Buying, data: Path, tmp_path: Path) -> None:
    spending = Spending("herding", TEXTS + 8)

    def choose_in(setting: int, seed: int, planned: PlannedRun) -> frozenset[str] | None:
        def drawn() -> NDArray[np.float32]:
            return np.random.default_rng(seed).normal(size=(TRAIN, 6)).astype(np.float32)

        with claim_run_folder(tmp_path / "run", {"setting": setting}) as folder:
            chosen = choose_queries(spending, planned, buying, seed=0, features=drawn, folder=folder)
        return chosen.planned.plan.chosen

    first = choose_in(1, 1, planned)
    assert choose_in(1, 2, planned) == first
    other = choose_in(2, 2, planned)  # declined and begun again with other settings
    assert other != first
    for path in sorted(data.rglob("*.png")):
        Image.new("RGB", (12, 10), (int(path.stem), len(path.parts[-2]), len(path.parts[-3]) * 9)).save(path)
    changed = plan_run(QueryChoice(data, "sketch", VIEWS), buying)
    with pytest.raises(RunError, match="images that have changed since"):
        choose_in(2, 2, changed)


def test_a_purchase_that_was_cut_short_goes_on_with_the_same_choice(
    vendor: FakeVendor, planned: PlannedRun, buying: Buying, tmp_path: Path
) -> None:
    spending, calls = Spending("pcoreset", TEXTS + 20), 0

    def choose_again() -> QueryPlan:
        fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
        with claim_run_folder(tmp_path / "run", {}) as folder:
            chosen = choose_queries(spending, fresh, buying, seed=0, features=features, folder=folder)
        return chosen.planned.plan

    def fail(request: httpx.Request) -> httpx.Response | None:
        nonlocal calls
        calls += request.url.path.startswith("/v1/embeddings/")
        return vendor.problem(401, "unauthenticated") if calls == 2 else None

    vendor.max_items, vendor.before = 4, fail
    with pytest.raises(NotAuthorized):  # within the first round
        choose_again()
    first = first_round(spending, planned, seed=0, features=unused).planned.plan.chosen
    assert 0 < vendor.billed_units < TEXTS + 10
    whole = choose_again()
    assert vendor.billed_units == TEXTS + 10
    assert first is not None
    assert whole.chosen is not None
    assert first < whole.chosen
    calls = 0
    with pytest.raises(NotAuthorized):  # within the second
        buy_planned(whole, buying)
    again = choose_again()
    assert again.chosen == whole.chosen
    buy_planned(again, buying)
    assert vendor.billed_units == TEXTS + 20


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"select": "random"}, "give both"),
        ({"max_queries": 9}, "give both"),
        ({"select": "best", "max_queries": 9}, "no selector 'best'"),
        ({"rounds": 2}, "no --select does not choose so"),
        ({"select": "margin", "max_queries": 9, "rounds": 2}, "margin does not choose so"),
        ({"select": "random", "max_queries": 9, "rounds": 3}, "there are 1 and 2"),
    ],
)
def test_choices_that_do_not_fit_are_refused(words: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Spending(**words)  # type: ignore[arg-type]


def test_two_rounds_of_views_need_a_second_view(data: Path, buying: Buying) -> None:
    planned = plan_run(QueryChoice(data, "sketch", 1), buying)
    with pytest.raises(UsageError, match="use --views 2 or more"):
        choose(Spending("random", 9, rounds=2), planned, buying)


def test_a_choice_without_views_is_refused(data: Path, buying: Buying) -> None:
    planned = plan_run(QueryChoice(data, "sketch", 0), buying)
    with pytest.raises(UsageError, match="--views 0 asks about no image"):
        choose(Spending("k-center", 9), planned, buying)
