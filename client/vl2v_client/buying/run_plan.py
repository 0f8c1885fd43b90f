"""The plan of a run at a vendor, and the look at the hold-out before it is bought."""

from __future__ import annotations

from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.vendor_meeting import meet
from vl2v_client.core.progress import Progress, silent
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.choice import QueryChoice, collect_queries
from vl2v_client.planning.hashing import hash_views
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.query_plan import PlannedRun, make_plan


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
