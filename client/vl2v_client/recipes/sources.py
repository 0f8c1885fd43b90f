"""From settings to what training reads, whoever the teacher is: plan, choose, buy, join; once for all processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import BudgetExhausted
from vl2v_client.core.progress import Progress, silent
from vl2v_client.export.report import RunReport, read_report
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.recipes.features import canonical_features
from vl2v_client.recipes.local import LocalSource, load_local_data, plan_local
from vl2v_client.recipes.purchase import PlannedRun, PurchaseContext, buy_planned, check_hold_out, cut_planned, plan_run
from vl2v_client.recipes.run_folder import RunFolder, open_run_folder
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.recipes.spending import choose_queries
from vl2v_client.recipes.targets import Vectors
from vl2v_client.recipes.training import RunData, load_run_data, train_method
from vl2v_client.recipes.used import count_from_the_start, keep_used, read_used
from vl2v_client.student.distributed import Ranks
from vl2v_client.student.samples import LabelledViews


def plan_source(settings: RunSettings, source: PurchaseContext | LocalSource, progress: Progress) -> PlannedRun:
    """The run's queries with their plan; image queries only if one of its methods reads their answers.

    Raises:
        ClientError: as `recipes.purchase.plan_run`.
    """
    choice = replace(settings.choice, ask_images=settings.choice.ask_images and settings.needs_images)
    if isinstance(source, LocalSource):
        return plan_local(choice, source, progress=progress)
    return plan_run(choice, source, progress=progress)


def obtain_data(
    settings: RunSettings,
    planned: PlannedRun,
    source: PurchaseContext | LocalSource,
    folder: RunFolder,
    progress: Progress,
) -> tuple[PlannedRun, RunData]:
    """Choose within the budget, buy, render and join; returns the plan of what is trained on with it.

    A folder whose purchase is done stays with what it trains on: nothing new is chosen or bought.

    Raises:
        RunError: the folder's purchase is done, and its images have changed since.
        ClientError: whatever was bought so far is kept.
    """
    if isinstance(source, LocalSource):
        return planned, load_local_data(settings, planned, source, folder, progress=progress)
    used, some_missing = read_used(folder, planned.plan), True
    if used is not None:
        planned = _go_on(settings, planned, used, source, folder, progress)
    else:
        check_hold_out(planned, source, progress=progress)
        source = count_from_the_start(folder, source)
        planned = _choose(settings, planned, folder, progress)
        some_missing = source.skip_failed or source.allow_partial or planned.plan.chosen is not None
        _buy(planned.plan, source, progress)
        planned = _cut_to(planned, keep_used(folder, planned.plan, source.cache))
    plan = planned.plan

    def fetch(_train: LabelledViews) -> Vectors:
        return source.cache.get_many([*plan.used_image_keys, *plan.text_keys])

    return planned, load_run_data(settings, planned, fetch, folder, allow_missing=some_missing, progress=progress)


def train_along(
    settings: RunSettings, source: PurchaseContext | LocalSource, out: Path, ranks: Ranks, renders: Path | None
) -> RunReport:
    """The part of every process but the first: to train on what that one has bought and rendered.

    Raises:
        ClientError: as the first process; or that one was lost.
    """
    ranks.barrier()
    folder = replace(open_run_folder(out), shared_renders=renders)
    if isinstance(source, PurchaseContext):
        # what the first could not buy is missing here too, and nobody asks or tells twice
        source = replace(source, approve=_leave_to_the_first, notify=lambda _sentence: None, allow_partial=True)
    planned, data = obtain_data(settings, plan_source(settings, source, silent), source, folder, silent)
    for name in settings.methods:
        train_method(name, settings, data, planned.plan.teacher, folder, progress=silent)
    ranks.barrier()
    return read_report(out)


def _leave_to_the_first(_plan: QueryPlan) -> None:
    raise BudgetExhausted("only the first process of a run buys")


def _choose(settings: RunSettings, planned: PlannedRun, folder: RunFolder, progress: Progress) -> PlannedRun:
    def features() -> NDArray[np.float32]:
        return canonical_features(
            settings.student,
            planned.queries.split.train,
            planned.plan.teacher.image_size,
            seed=settings.choice.seed,
            device=settings.training.device,
            progress=progress,
        )

    return choose_queries(settings.spending, planned, seed=settings.choice.seed, features=features, folder=folder)


def _buy(plan: QueryPlan, buying: PurchaseContext, progress: Progress) -> None:
    try:
        buy_planned(plan, buying, progress=progress)
    except BudgetExhausted as error:
        if not buying.allow_partial:
            raise
        buying.notify(
            f"{error}, in another --out. This run keeps to these: images without an embedding train on their class's "
            "text alone"
        )


def _go_on(
    settings: RunSettings,
    planned: PlannedRun,
    used: frozenset[str],
    buying: PurchaseContext,
    folder: RunFolder,
    progress: Progress,
) -> PlannedRun:
    """The run with what it trains on; of that, what the cache has lost since is bought again."""
    cut = _cut_to(planned, used)
    left_out = planned.plan.units - cut.plan.units
    if left_out and settings.spending.select is None:
        buying.notify(
            f"The purchase of {folder.path} is done, and {left_out:,} queries stay out of it: to buy them too, choose "
            "another --out"
        )
    if cut.plan.missing:
        buy_planned(cut.plan, replace(buying, allow_partial=False, skip_failed=False), progress=progress)
    return cut


def _cut_to(planned: PlannedRun, used: frozenset[str]) -> PlannedRun:
    return cut_planned(planned, [key for key in planned.plan.used_image_keys if key in used])
