"""Meet the vendor, plan what a run asks of it, and buy what the cache lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import NotAuthorized, VendorUnavailable
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.buyer import PurchaseReport
from vl2v_client.planning.contents import hash_views
from vl2v_client.planning.plan import QueryPlan, make_plan
from vl2v_client.planning.purchase import DEFAULT_WORKERS, FORBIDDEN, Caps, buy
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.vendor import Meeting, meet_vendor, remembered_teacher
from vl2v_client.recipes.queries import QueryChoice, RunQueries, collect_queries

Notify = Callable[[str], None]
"""Shows a sentence to the user."""

Approve = Callable[[QueryPlan], None]
"""Shows a plan and returns if it may be bought; raises if not."""


@dataclass(frozen=True)
class PlannedRun:
    """A run's queries with their plan."""

    queries: RunQueries
    plan: QueryPlan


@dataclass(frozen=True)
class PurchaseContext:
    """How to buy: with whom, into which cache, and who is asked and told.

    Attributes:
        model: the vendor's model to ask; None is its default.
        approve: asked before anything is spent.
        notify: told what the user should know.
    """

    vendor: VendorClient
    cache: EmbeddingCache
    approve: Approve
    notify: Notify
    model: str | None = None
    caps: Caps | None = None
    allow_partial: bool = False
    skip_failed: bool = False
    workers: int = DEFAULT_WORKERS


def plan_run(choice: QueryChoice, buying: PurchaseContext, *, progress: Progress = silent) -> PlannedRun:
    """Meet the vendor, tell what has changed, and plan. Without a vendor: its model and prices as last seen.

    Raises:
        DataError: the data set cannot be used.
        VendorError: the vendor refuses, or was never met and cannot be reached.
    """
    teacher = meet(buying)
    queries = collect_queries(choice, buying.cache, progress=progress)
    plan = make_plan(queries.images, queries.texts, teacher, buying.cache, progress=progress)
    return PlannedRun(queries, plan)


def cut_planned(planned: PlannedRun, image_keys: Sequence[str]) -> PlannedRun:
    """The run with some of its image queries only, named by cache key, each once, in the order to buy them."""
    chosen = set(image_keys)
    pairs = zip(planned.queries.images, planned.plan.image_keys, strict=True)
    files = {query.sample.path for query, key in pairs if key in chosen}
    return replace(planned, plan=planned.plan.cut(image_keys, image_files=len(files)))


def meet(buying: PurchaseContext) -> TeacherModel:
    """The vendor's model; the user is told what has changed. Without a vendor: the model as last seen.

    Raises:
        VendorError: the vendor refuses, or was never met and cannot be reached.
    """
    try:
        meeting = meet_vendor(buying.vendor, buying.cache, buying.model)
    except VendorUnavailable as error:
        teacher = remembered_teacher(buying.cache, buying.vendor.url, buying.model)
        if teacher is None:
            raise
        meeting = Meeting(teacher, (f"{error}; model and prices are those of the last visit",))
    for notice in meeting.notices:
        buying.notify(notice)
    return meeting.teacher


def check_hold_out(planned: PlannedRun, buying: PurchaseContext, *, progress: Progress = silent) -> None:
    """Before images are bought, decode those that will be selected on, but for what was decoded before.

    Without a broken one its domain is split anew, and a part of what was bought would train nobody.

    Raises:
        DataError: names the first that is broken.
    """
    if any(item.modality == "image" for item in planned.plan.missing):
        looks = [ImageQuery(sample, canonical_view()) for sample in planned.queries.split.validation]
        hash_views(looks, buying.cache, size=planned.plan.teacher.image_size, progress=progress)


def buy_planned(plan: QueryPlan, buying: PurchaseContext, *, progress: Progress = silent) -> PurchaseReport:
    """Ask, then buy what the plan misses; if anything, what earlier purchases left open is settled first.

    Raises:
        BudgetExhausted: a cap or the budget cannot hold it; see `planning.purchase.buy` for the rest.
    """
    if plan.missing:
        buying.approve(plan)
    return buy(
        plan,
        buying.vendor,
        buying.cache,
        caps=buying.caps,
        allow_partial=buying.allow_partial,
        skip_failed=buying.skip_failed,
        workers=buying.workers,
        progress=progress,
        notify=buying.notify,
    )


def remaining_units(vendor: VendorClient) -> int | None:
    """What the account has left; None if the vendor does not answer, or the key may not read the bill.

    Raises:
        NotAuthorized: the key is none.
    """
    try:
        return vendor.summary().remaining_units
    except VendorUnavailable:
        return None
    except NotAuthorized as error:
        if error.code != FORBIDDEN:
            raise
        return None
