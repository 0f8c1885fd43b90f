"""What a run on a very large data set would ask at most."""

from __future__ import annotations

from vl2v_client.core.progress import Progress, silent
from vl2v_client.data.folder import list_files
from vl2v_client.data.splits import training_files
from vl2v_client.planning.bound import PlanEstimate, estimate_plan
from vl2v_client.recipes.purchase import PurchaseContext, meet
from vl2v_client.recipes.queries import QueryChoice, text_queries

EXACT_VIEWS = 20_000
"""A plan renders this many views at most, unless it has to be exact."""


def estimate_run(choice: QueryChoice, buying: PurchaseContext, *, progress: Progress = silent) -> PlanEstimate | None:
    """The estimate, without rendering a view; `None` if there are few enough views to plan exactly.

    Raises:
        DataError: the data set cannot be used, or a file cannot be read.
        VendorError: as `recipes.purchase.meet`.
    """
    root = choice.data.absolute()
    files = list_files(root)
    training = training_files(files, target_domain=choice.target_domain, seed=choice.seed)
    views_per_file = choice.asked_views
    if sum(map(len, training.values())) * views_per_file <= EXACT_VIEWS:
        return None
    by_folder = {root / domain if files.has_domains else root: paths for domain, paths in training.items()}
    texts = text_queries(choice, files.class_names)
    return estimate_plan(by_folder, views_per_file, texts, meet(buying), buying.cache, progress=progress)
