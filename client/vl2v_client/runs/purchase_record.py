"""What a run trains on, written down when its purchase is done: a run that goes on buys nothing and uses the same.

Without it, whatever came into the cache after a purchase that was cut short would change the targets of a run that is
half trained, and the same command would spend its cap again. The name under which it buys is written down too, so that
a run which is killed while it buys goes on under what is left of its caps.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from vl2v_client.buying.context import PurchaseContext
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import RunError
from vl2v_client.planning.query_plan import QueryPlan
from vl2v_client.runs.run_folder import RunFolder


def read_used(folder: RunFolder, plan: QueryPlan) -> frozenset[str] | None:
    """Return the cache keys that the run in this folder trains on; None if its purchase is not done yet.

    Raises:
        RunError: They are not keys of the plan.
    """
    used = _read(folder, folder.used)
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
        folder.keep(folder.used, {"keys": used})
    return frozenset(used)


def count_from_the_start(folder: RunFolder, context: PurchaseContext) -> PurchaseContext:
    """Return caps that hold over this call and earlier ones which were killed while they bought.

    Raises:
        CacheError: The folder cannot be written.
    """
    record = folder.recall(folder.purchase)
    if record is None:
        record = {"task": secrets.token_hex(8)}
        folder.keep(folder.purchase, record)
    return replace(context, caps=replace(context.caps, task=record["task"]))


def read_left_out(folder: RunFolder) -> frozenset[str]:
    """Return the cache keys of images that a sweep's purchase went on without: no later call asks about them again."""
    return _read(folder, folder.left_out) or frozenset()


def keep_left_out(folder: RunFolder, keys: frozenset[str]) -> frozenset[str]:
    """Write them down, if there are any; returns them.

    Raises:
        CacheError: The folder cannot be written.
    """
    if keys:
        folder.keep(folder.left_out, {"keys": sorted(keys)})
    return keys


def _read(folder: RunFolder, path: Path) -> frozenset[str] | None:
    record = folder.recall(path)
    return None if record is None else frozenset(record["keys"])
