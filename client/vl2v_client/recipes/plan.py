"""What a run would buy: an exact plan, or an upper bound where rendering takes too long."""

import os

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.context import PurchaseContext, meet, plan_run
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import Progress, silent
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.layout import refuse_one_class
from vl2v_client.data.splits import training_files
from vl2v_client.planning.choice import QueryChoice, text_queries
from vl2v_client.planning.plan_estimate import PlanEstimate, estimate_plan
from vl2v_client.planning.query_plan import PlannedRun, QueryPlan
from vl2v_client.runs.query_selection import choose_queries
from vl2v_client.runs.resolution import resolve_run, run_choice

EXACT_VIEWS = 20_000  # a plan renders this many views at most, unless it has to be exact


def plan(
    config: RunConfig,
    context: PurchaseContext,
    *,
    exact: bool = False,
    listed: DomainDataset | None = None,
    progress: Progress = silent,
) -> QueryPlan | PlanEstimate:
    """Plan a run without buying anything.

    Args:
        config: Configuration of the run.
        context: Whom it would buy from.
        exact: Render and count all views, however many there are.
        listed: The run's data set, if it is listed already.
        progress: Gets every step that takes time.

    Raises:
        DataError: The data set or an image in it cannot be used.
        VendorError: The vendor refuses, or was never met and cannot be reached.
        BudgetExhausted: A budget for selected images cannot hold the texts.
    """
    resolved = resolve_run(config)
    if not exact and resolved.purchase.select is None:
        choice = run_choice(resolved)
        listed = listed or open_dataset(choice.data)
        estimate = estimate_run(choice, context, listed, progress=progress)
        if estimate is not None:
            return estimate
    return plan_selected(config, context, listed=listed, progress=progress).plan


def plan_selected(
    config: RunConfig,
    context: PurchaseContext,
    *,
    listed: DomainDataset | None = None,
    progress: Progress = silent,
) -> PlannedRun:
    """Plan a run within its budget; its data set may be `listed` already.

    Raises:
        ClientError: As `plan`.
    """
    resolved = resolve_run(config)
    choice = run_choice(resolved)
    planned = plan_run(choice, context, listed=listed, progress=progress)

    def features() -> NDArray[np.float32]:
        # PyTorch is loaded for a selector that asks for them alone
        from vl2v_client.runs.settings import settle
        from vl2v_client.runs.student_features import run_features

        return run_features(settle(config), planned, context.cache, progress)

    return choose_queries(resolved.purchase, choice.seed, planned, features)


def estimate_run(
    choice: QueryChoice, context: PurchaseContext, dataset: DomainDataset, *, progress: Progress = silent
) -> PlanEstimate | None:
    """Return the upper bound, without rendering a view; `None` if there are few enough views to plan exactly.

    Raises:
        DataError: The data set cannot be used, or a file cannot be read.
        VendorError: As `buying.context.meet`.
    """
    refuse_one_class(dataset.root, dataset.class_names)
    training = training_files(dataset, target_domain=choice.target_domain, seed=choice.seed)
    if sum(map(len, training.values())) * choice.asked_views <= EXACT_VIEWS:
        return None
    root, here = dataset.root.absolute(), os.getcwd()
    by_folder = {
        root / domain if dataset.has_domains else root: [os.path.join(here, path) for path in paths]
        for domain, paths in training.items()
    }
    texts = text_queries(choice, dataset.class_names)
    return estimate_plan(by_folder, choice.asked_views, texts, meet(context), context.cache, progress=progress)
