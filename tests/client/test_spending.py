"""Spending a number of queries: exactly counted, one view of all images first, the same at every call."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from support.client.buying_bench import draw_domains
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.buying.context import PurchaseContext, plan_run
from vl2v_client.buying.purchase import buy
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import DataConfig, PurchaseConfig, RunConfig, Selector
from vl2v_client.core.errors import BudgetExhausted, NotAuthorized, RunError, UsageError
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.query_plan import PlannedRun, QueryPlan
from vl2v_client.runs.query_selection import choose_queries
from vl2v_client.runs.resolution import resolve_run
from vl2v_client.runs.run_folder import claim_run_folder

SELECTORS = get_args(Selector)

TRAIN, VIEWS, TEXTS = 32, 3, 2
"""Two source domains of two classes of ten pictures less the hold-out of a fifth; three views; two class prompts."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_domains(tmp_path / "data", 10)


@pytest.fixture
def buying(client: VendorClient, cache: EmbeddingCache) -> PurchaseContext:
    return PurchaseContext(client, cache, approve=lambda _plan: None, notify=lambda _sentence: None)


@pytest.fixture
def planned(data: Path, buying: PurchaseContext) -> PlannedRun:
    return plan_run(QueryChoice(data, target_domain="sketch", views=VIEWS), buying)


def features() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(TRAIN, 6)).astype(np.float32)


def unused() -> NDArray[np.float32]:
    raise AssertionError("a random choice looks at no feature")


def budget_of(select: str, max_queries: int) -> PurchaseConfig:
    return PurchaseConfig.model_validate({"select": select, "max_queries": max_queries})


def choose(spending: PurchaseConfig, planned: PlannedRun) -> QueryPlan:
    return choose_queries(spending, 0, planned, features).plan


def views_of(plan: QueryPlan) -> list[int]:
    """Which view of its image each missing image query is, in the order of buying."""
    images = [item.query for item in plan.missing if isinstance(item.query, ImageQuery)]
    return [0 if not query.view.to_json() else 1 for query in images]


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", [2, 3, 12, 40, 98, 500])
def test_the_bill_is_the_budget(
    vendor: FakeVendor, planned: PlannedRun, buying: PurchaseContext, name: str, budget: int
) -> None:
    spending = budget_of(name, budget)
    chosen = choose(spending, planned)
    assert buy(chosen, buying).billed_units == vendor.billed_units == min(budget, TEXTS + TRAIN * VIEWS)
    assert len(chosen.used_image_keys) == vendor.billed_units - TEXTS
    again = choose(spending, plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying))
    assert again.missing == ()
    assert again.chosen == chosen.chosen
    assert again.cached == vendor.billed_units


def test_texts_come_first_then_first_views_then_others(planned: PlannedRun, buying: PurchaseContext) -> None:
    plan = choose(budget_of("random", TEXTS + TRAIN + 5), planned)
    assert [item.modality for item in plan.missing[:TEXTS]] == ["text"] * TEXTS
    assert views_of(plan) == [0] * TRAIN + [1] * 5
    assert (plan.units, plan.image_files, plan.cached) == (TEXTS + TRAIN + 5, TRAIN, 0)
    few = choose(budget_of("k-center", TEXTS + 7), planned)
    assert views_of(few) == [0] * 7
    assert few.image_files == 7
    assert few.amount_micro == 7 * 100 + TEXTS * 10


def test_a_random_choice_of_more_begins_with_that_of_fewer_and_looks_at_no_feature(
    vendor: FakeVendor, planned: PlannedRun, buying: PurchaseContext
) -> None:
    few = choose_queries(budget_of("random", 10), 0, planned, unused).plan
    buy(few, buying)
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    more = choose_queries(budget_of("random", 25), 0, fresh, unused).plan
    assert few.chosen is not None
    assert more.chosen is not None
    assert few.chosen < more.chosen
    assert (more.units, more.cached) == (15, 10)
    strata = [(query.sample.domain, query.sample.class_index) for query in _images(few)]
    assert {strata.count(stratum) for stratum in set(strata)} == {2}


def test_random_views_asks_about_any_one_view_of_each_image_before_a_second(planned: PlannedRun) -> None:
    plan = choose_queries(budget_of("random-views", TEXTS + TRAIN + 5), 0, planned, unused).plan
    keys = planned.plan.image_keys
    bought = [keys.index(item.cache_key) for item in plan.missing[TEXTS:]]
    assert sorted(place // VIEWS for place in bought[:TRAIN]) == list(range(TRAIN))
    views = [place % VIEWS for place in bought[:TRAIN]]
    assert min(views.count(view) for view in range(VIEWS)) >= TRAIN // (2 * VIEWS)
    few = choose_queries(budget_of("random-views", TEXTS + 9), 0, planned, unused).plan
    assert few.missing == plan.missing[: TEXTS + 9]
    first = choose(budget_of("random", TEXTS + 9), planned)
    assert [query.sample for query in _images(few)] == [query.sample for query in _images(first)]
    other = choose_queries(budget_of("random-views", TEXTS + 9), 1, planned, unused).plan
    assert other.chosen != few.chosen


def _images(plan: QueryPlan) -> list[ImageQuery]:
    return [item.query for item in plan.missing if isinstance(item.query, ImageQuery)]


def test_what_the_cache_holds_beside_the_choice_is_not_used(planned: PlannedRun, buying: PurchaseContext) -> None:
    buy(planned.plan, buying)
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    plan = choose(budget_of("random", 10), fresh)
    assert (plan.units, plan.cached, len(plan.used_image_keys)) == (0, 10, 8)


def test_copies_of_an_image_cost_one_query(data: Path, buying: PurchaseContext, vendor: FakeVendor) -> None:
    for name in ("cat", "dog"):
        first = data / "art" / name / "0.png"
        for index in range(1, 10):
            (data / "art" / name / f"{index}.png").write_bytes(first.read_bytes())
    planned = plan_run(QueryChoice(data, target_domain="sketch", views=1), buying)
    distinct = len(set(planned.plan.image_keys))
    for name in SELECTORS:
        plan = choose(budget_of(name, TEXTS + distinct - 3), planned)
        assert len(plan.used_image_keys) == distinct - 3
        assert len(choose(budget_of(name, 500), planned).used_image_keys) == distinct


@pytest.mark.parametrize("budget", [0, 1])
def test_a_budget_that_cannot_hold_the_texts_is_refused_unless_they_are_here(
    planned: PlannedRun, buying: PurchaseContext, vendor: FakeVendor, budget: int
) -> None:
    with pytest.raises(BudgetExhausted, match=r"cannot hold the 2 texts of the classes.*raise it to 2 for text alone"):
        choose(budget_of("random", budget), planned)
    buy(choose(budget_of("random", TEXTS), planned), buying)
    assert vendor.billed_units == TEXTS
    fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
    plan = choose(budget_of("random", budget), fresh)
    assert (plan.units, plan.used_image_keys) == (0, ())


def test_a_run_folder_keeps_its_choice(
    planned: PlannedRun, buying: PurchaseContext, data: Path, tmp_path: Path
) -> None:
    spending = budget_of("k-center", TEXTS + 8)

    def choose_in(setting: int, seed: int, planned: PlannedRun) -> frozenset[str] | None:
        def drawn() -> NDArray[np.float32]:
            return np.random.default_rng(seed).normal(size=(TRAIN, 6)).astype(np.float32)

        with claim_run_folder(tmp_path / "run", {"setting": setting}) as folder:
            return choose_queries(spending, 0, planned, drawn, folder).plan.chosen

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
    vendor: FakeVendor, planned: PlannedRun, buying: PurchaseContext, tmp_path: Path
) -> None:
    spending, calls = budget_of("k-center", TEXTS + 20), 0

    def choose_again(seed: int) -> QueryPlan:
        def drawn() -> NDArray[np.float32]:
            return np.random.default_rng(seed).normal(size=(TRAIN, 6)).astype(np.float32)

        fresh = plan_run(QueryChoice(planned.queries.dataset.root, "sketch", VIEWS), buying)
        with claim_run_folder(tmp_path / "run", {}) as folder:
            return choose_queries(spending, 0, fresh, drawn, folder).plan

    def fail(request: httpx.Request) -> httpx.Response | None:
        nonlocal calls
        calls += request.url.path.startswith("/v1/embeddings/")
        return vendor.problem(401, "unauthenticated") if calls == 2 else None

    vendor.max_items, vendor.before = 4, fail
    first = choose_again(1)
    with pytest.raises(NotAuthorized):
        buy(first, buying)
    assert 0 < vendor.billed_units < TEXTS + 20
    again = choose_again(2)  # by now other features, were they looked at
    assert again.chosen == first.chosen
    buy(again, buying)
    assert vendor.billed_units == TEXTS + 20


@pytest.mark.parametrize(
    ("purchase", "complaint"),
    [
        ({"select": "random"}, "give both"),
        ({"select": "random", "max_queries": 9, "views": 0}, r"purchase\.views 0 asks about no image"),
    ],
)
def test_choices_that_do_not_fit_are_refused(data: Path, purchase: dict[str, object], complaint: str) -> None:
    config = RunConfig(data=DataConfig(root=data), purchase=PurchaseConfig.model_validate(purchase))
    with pytest.raises(UsageError, match=complaint):
        resolve_run(config)


def test_a_selector_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="Input should be 'random', 'random-views' or 'k-center'"):
        budget_of("best", 9)
