"""Whom a run buys from, on which terms, and the three things it does there: meet, plan, buy."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from vl2v_client.api.client import VendorClient
from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.purchase import DEFAULT_WORKERS, FORBIDDEN, Caps, buy
from vl2v_client.buying.vendor_meeting import Meeting, meet_vendor, remembered_teacher
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import NotAuthorized, VendorUnavailable
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.choice import QueryChoice, collect_queries
from vl2v_client.planning.hashing import hash_views
from vl2v_client.planning.planned_run import PlannedRun
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.query_plan import QueryPlan, make_plan

Notify = Callable[[str], None]
"""Shows a sentence to the user."""

Approve = Callable[[QueryPlan], None]
"""Shows a plan and returns if it may be bought; raises if not."""


@dataclass(frozen=True)
class PurchaseContext:
    """How to buy.

    Attributes:
        vendor: Client of the vendor.
        cache: Where vectors and receipts go.
        approve: Asked before anything is spent.
        notify: Gets what the user should know.
        model: Model of the vendor; `None` is its default.
        caps: Limits of the user on queries and money.
        allow_partial: Buy as much as caps and budget hold.
        skip_failed: Go on without queries that the vendor cannot answer.
        workers: Requests under way at a time.
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


def purchase_context(
    terms: PurchaseConfig, vendor: VendorClient, cache: EmbeddingCache, *, approve: Approve, notify: Notify
) -> PurchaseContext:
    """Return how to buy on the terms of a configuration; its caps hold for all that is bought in this context."""
    return PurchaseContext(
        vendor,
        cache,
        approve,
        notify,
        model=terms.model,
        caps=Caps(terms.max_queries, terms.max_cost_micro, task=secrets.token_hex(8)),
        allow_partial=terms.partial,
        skip_failed=terms.skip_failed,
        workers=terms.requests,
    )


def meet(context: PurchaseContext) -> TeacherModel:
    """Return the vendor's model and notify the user of what has changed. Without a vendor: the model as last seen.

    Raises:
        VendorError: The vendor refuses, or was never met and cannot be reached.
    """
    try:
        meeting = meet_vendor(context.vendor, context.cache, context.model)
    except VendorUnavailable as error:
        teacher = remembered_teacher(context.cache, context.vendor.url, context.model)
        if teacher is None:
            raise
        meeting = Meeting(teacher, (f"{error}; model and prices are those of the last visit",))
    for notice in meeting.notices:
        context.notify(notice)
    return meeting.teacher


def plan_run(choice: QueryChoice, context: PurchaseContext, *, progress: Progress = silent) -> PlannedRun:
    """Meet the vendor and plan what a run asks of it.

    Raises:
        DataError: The data set cannot be used.
        VendorError: As `meet`.
    """
    teacher = meet(context)
    queries = collect_queries(choice, context.cache, progress=progress)
    plan = make_plan(queries.images, queries.texts, teacher, context.cache, progress=progress)
    return PlannedRun(queries, plan)


def check_hold_out(planned: PlannedRun, context: PurchaseContext, *, progress: Progress = silent) -> None:
    """Decode the images of the hold-out before any image is bought, but for those that were decoded before.

    Without a broken one its domain is split anew, and a part of what was bought would train nobody.

    Raises:
        DataError: Names the first that is broken.
    """
    if any(item.modality == "image" for item in planned.plan.missing):
        looks = [ImageQuery(sample, canonical_view()) for sample in planned.queries.split.validation]
        hash_views(looks, context.cache, size=planned.plan.teacher.image_size, progress=progress)


def buy_planned(plan: QueryPlan, context: PurchaseContext, *, progress: Progress = silent) -> PurchaseReport:
    """Ask for approval, then buy what the plan misses.

    Raises:
        BudgetExhausted: A cap or the budget cannot hold it; see `buying.purchase.buy` for the rest.
    """
    if plan.missing:
        context.approve(plan)
    return buy(
        plan,
        context.vendor,
        context.cache,
        caps=context.caps,
        allow_partial=context.allow_partial,
        skip_failed=context.skip_failed,
        workers=context.workers,
        progress=progress,
        notify=context.notify,
    )


def remaining_units(vendor: VendorClient) -> int | None:
    """Return what the account has left; `None` if the vendor does not answer, or the key may not read the bill.

    Raises:
        NotAuthorized: The key is none.
    """
    try:
        return vendor.summary().remaining_units
    except VendorUnavailable:
        return None
    except NotAuthorized as error:
        if error.code != FORBIDDEN:
            raise
        return None
