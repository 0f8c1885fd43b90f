"""Which queries a run asks and trains on, written down so that a run that goes on asks and uses the same.

A budget counts every query that the run uses, those that the cache holds already included (they cost nothing), so the
same command chooses the same queries whatever is in the cache, and never buys a second budget. Texts come first:
nothing trains without them. Then first views before second ones, in the order of the selector.

What a run trains on is written down when its purchase is done. Otherwise, whatever came into the cache after a purchase
that was cut short would change the targets of a run that is half trained, and the same command would spend its cap
again. The name under which it buys is written down too, so that a run which is killed while it buys goes on under what
is left of its caps.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.context import PurchaseContext
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import PurchaseConfig, Selector
from vl2v_client.core.errors import BudgetExhausted, RunError
from vl2v_client.planning.query_plan import PlannedRun, QueryPlan
from vl2v_client.planning.selectors import RANDOM, select
from vl2v_client.runs.run_folder import (
    CHOICE_FILE,
    CHOICE_FORMAT,
    LEFT_OUT_FILE,
    PURCHASE_FILE,
    USED_FILE,
    RunFolder,
    chosen_keys,
)

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
    chosen = None if folder is None else _read_choice(folder, planned.plan)
    if chosen is None:
        budget = _image_budget(purchase.max_queries, planned.plan)
        chosen = _choose(purchase.select, budget, planned, seed, features)
        if folder is not None:
            folder.keep(CHOICE_FILE, {"format": CHOICE_FORMAT, "keys": chosen})
    return planned.cut(chosen)


def _image_budget(max_queries: int, plan: QueryPlan) -> int:
    """Return how many image queries fit beside the texts."""
    texts = len(set(plan.text_keys))
    lacking = sum(item.modality == "text" and not item.is_expired for item in plan.missing)
    if lacking > max_queries:
        raise BudgetExhausted(
            f"purchase.max_queries {max_queries:,} cannot hold the {texts:,} texts of the classes, and nothing "
            f"trains without them: raise it to {texts:,} for text alone, and to more for images"
        )
    return max(0, max_queries - texts)


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
        features=None if name == RANDOM else features()[rows],
    )
    in_order = dict.fromkeys(keys[rows[place] * views + view] for view in range(views) for place in order)
    return list(in_order)[:budget]


def _read_choice(folder: RunFolder, plan: QueryPlan) -> list[str] | None:
    """Return what this run has chosen already; None if it has not, or if the choice was made with other settings."""
    record = folder.recall(CHOICE_FILE)
    if record is None:
        return None
    keys = chosen_keys(record)
    if not set(keys) <= set(plan.image_keys):
        raise RunError(
            f"{folder.path} chose images that have changed since: put them back, or choose another report.out"
        )
    return keys


def read_used(folder: RunFolder, plan: QueryPlan) -> frozenset[str] | None:
    """Return the cache keys that the run in this folder trains on; None if its purchase is not done yet.

    Raises:
        RunError: They are not keys of the plan.
    """
    used = _read(folder, USED_FILE)
    if used is not None and not used <= {*plan.image_keys, *plan.text_keys}:
        raise RunError(
            f"{folder.path} bought images that have changed since: put them back, or choose another report.out"
        )
    return used


def keep_used(folder: RunFolder, plan: QueryPlan, cache: EmbeddingCache) -> frozenset[str]:
    """Return the plan's keys that the cache holds now; write them down unless a text is missing.

    Raises:
        CacheError: The folder cannot be written.
    """
    keys = [*plan.used_image_keys, *dict.fromkeys(plan.text_keys)]
    lacking = set(cache.missing(keys))
    used = [key for key in keys if key not in lacking]
    if lacking.isdisjoint(plan.text_keys):
        folder.keep(USED_FILE, {"keys": used})
    return frozenset(used)


def count_from_the_start(folder: RunFolder, context: PurchaseContext) -> PurchaseContext:
    """Return caps that hold over this call and earlier ones which were killed while they bought.

    Raises:
        CacheError: The folder cannot be written.
    """
    record = folder.recall(PURCHASE_FILE)
    if record is None:
        record = {"task": secrets.token_hex(8)}
        folder.keep(PURCHASE_FILE, record)
    return replace(context, caps=replace(context.caps, task=record["task"]))


def read_left_out(folder: RunFolder) -> frozenset[str]:
    """Return the cache keys of images that a sweep's purchase went on without: no later call asks about them again."""
    return _read(folder, LEFT_OUT_FILE) or frozenset()


def keep_left_out(folder: RunFolder, keys: frozenset[str]) -> frozenset[str]:
    """Write them down, if there are any; returns them.

    Raises:
        CacheError: The folder cannot be written.
    """
    if keys:
        folder.keep(LEFT_OUT_FILE, {"keys": sorted(keys)})
    return keys


def _read(folder: RunFolder, name: str) -> frozenset[str] | None:
    record = folder.recall(name)
    return None if record is None else frozenset(record["keys"])
