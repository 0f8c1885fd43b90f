"""Spending a number of queries: which images and views to ask about.

The budget counts every query that the run uses, those that the cache holds already included (they cost nothing), so
the same command chooses the same queries whatever is in the cache, and never buys a second budget. Texts come first:
nothing trains without them. Then one view of every image before a second one of any, in the order of the selector.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vl2v_client.config.run import PurchaseConfig, Selector
from vl2v_client.core.errors import BudgetExhausted, RunError
from vl2v_client.planning.choice import K_CENTER, select, view_order
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.run_folder import CHOICE_FILE, CHOICE_FORMAT, RunFolder

Features = Callable[[], NDArray[np.float32]]
"""Makes the frozen student's features `[N, F]` of the training images' canonical views; called if they are needed."""


def choose_queries(
    purchase: PurchaseConfig, seed: int, planned: PlannedRun, features: Features, folder: RunFolder | None = None
) -> PlannedRun:
    """Return the run with its plan cut to what it may spend; all of it if nothing is selected.

    Args:
        purchase: How many queries, and what chooses them.
        seed: Seed of the selection.
        planned: The run with every query.
        features: Features of the images, in the order of the split.
        folder: Keeps the choice, so that a run that goes on uses the same; `None` keeps none.

    Raises:
        BudgetExhausted: The budget cannot hold the texts.
        RunError: The images have changed since the folder's choice.
    """
    if purchase.select is None or purchase.max_queries is None:
        return planned
    plan, record = planned.plan, None if folder is None else folder.recall(CHOICE_FILE)
    if folder is not None and record is not None:
        rounds = record["rounds"] if record["format"] == 1 else [record["keys"]]
        chosen = [key for of_round in rounds for key in of_round]
        if not set(chosen) <= set(plan.image_keys):
            raise RunError(
                f"{folder.path} chose images that have changed since: put them back, or choose another report.out"
            )
        return planned.cut(chosen)
    texts = len(set(plan.text_keys))
    if sum(item.modality == "text" and not item.is_expired for item in plan.missing) > purchase.max_queries:
        raise BudgetExhausted(
            f"purchase.max_queries {purchase.max_queries:,} cannot hold the {texts:,} texts of the classes, and "
            f"nothing trains without them: raise it to {texts:,} for text alone, and to more for images"
        )
    chosen = _choose(purchase.select, max(0, purchase.max_queries - texts), planned, seed, features)
    if folder is not None:
        folder.keep(CHOICE_FILE, {"format": CHOICE_FORMAT, "keys": chosen})
    return planned.cut(chosen)


def _choose(name: Selector, budget: int, planned: PlannedRun, seed: int, features: Features) -> list[str]:
    """Return cache keys of `budget` image queries, each content once, for the first image that has it."""
    keys, views, train = planned.plan.image_keys, planned.queries.asked_views, planned.queries.split.train
    rows = sorted({keys[row * views]: row for row in reversed(range(len(train)))}.values())
    order = select(
        name,
        labels=np.array([train[row].class_index for row in rows], dtype=np.int64),
        domains=[train[row].domain for row in rows],
        budget=min(budget, len(rows)),
        seed=seed,
        features=features()[rows] if name == K_CENTER else None,
    )
    view_of = view_order(name, len(rows), views, seed)
    in_order = dict.fromkeys(
        keys[rows[place] * views + view_of[place, turn]] for turn in range(views) for place in order
    )
    return list(in_order)[:budget]
