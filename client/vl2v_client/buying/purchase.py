"""Buying a plan: batch by batch, several at a time, each item paid once whatever happens on the way.

Every batch takes the same four steps: render, reserve (on disk), send, store. A crash before the second leaves
nothing, one after it leaves items `sent`, and the next purchase asks the vendor for those first, free of charge.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vl2v_client.buying.buyer import Buyer, PurchaseReport, keep
from vl2v_client.buying.context import PurchaseContext, check_account, read_account, trust_vendor
from vl2v_client.cache.records import NOTHING
from vl2v_client.core.errors import BudgetExhausted, CacheError, FailedQuery, QueriesFailed, VendorChanged
from vl2v_client.core.progress import Progress, format_micro, silent
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.broken import naming_all_broken
from vl2v_client.planning.queries import ImageQuery, hash_views
from vl2v_client.planning.query_plan import Limits, PlannedRun, QueryPlan, still_missing
from vl2v_contract.records import Summary

_BESIDE_BYTES = 16 * 2**20  # for SQLite's journal, and for others


def buy(plan: QueryPlan, context: PurchaseContext, *, progress: Progress = silent) -> PurchaseReport:
    """Ask for approval, then buy what a plan misses. Nothing is asked or sent if nothing is missing any more.

    Purchases on one cache take turns, whichever process or thread they run in.

    Args:
        plan: Plan from `make_plan`; the vendor is held to its model and prices.
        context: Whom to buy from, and on which terms.
        progress: Gets delivered queries and money, as phase "buy".

    Raises:
        BudgetExhausted: A cap or the budget cannot hold the plan; with `allow_partial`, after all that fits is bought.
        DataError: Files changed since the plan was made; `QueriesFailed` if queries failed (the rest is bought).
        VendorChanged: Model, price or signing key is not the plan's.
        VendorUnavailable: The vendor stopped answering; the same purchase goes on where it stopped.
        CacheError: The cache cannot be written, or its disk has no room for the plan.
    """
    report, cache = PurchaseReport(plan.currency), context.cache
    if not plan.missing:
        return report
    _check_disk(plan, cache.path.parent)
    context.approve(plan)
    waiting = f"another purchase is using the cache {cache.path}; waiting for it to end"
    with cache.purchase_lock(lambda: context.notify(waiting)):
        asked = still_missing(plan, cache)
        if not asked.missing:
            return report
        account = read_account(context.vendor)
        wanted = still_missing(asked, cache) if settle_outstanding(asked, account, context, report) else asked
        if not wanted.missing:
            return report
        _check_unchanged(plan, wanted, context)
        spent = NOTHING if context.caps.task is None else cache.purchases.spent(context.caps.task)
        limits = replace(
            context.caps, remaining_units=None if account is None else account.remaining_units, spent=spent
        )
        if not context.allow_partial:
            wanted.check_caps(limits)
        try:
            _buy_within(wanted, limits, account, context, report, progress)
        except BudgetExhausted as error:
            got = len(asked.missing) - len(still_missing(asked, cache).missing)
            raise BudgetExhausted(
                f"got {got:,} of {len(asked.missing):,} queries for "
                f"{format_micro(report.amount_micro, report.currency)}, then stopped: {error}. All of them are kept, "
                "and the same command goes on from there",
                code=error.code,
                units=asked.units,
                left=error.left,
            ) from error
    if report.failed and not context.skip_failed:
        raise _failures(report.failed)
    return report


def check_images(planned: PlannedRun, context: PurchaseContext, *, progress: Progress = silent) -> None:
    """Decode the images of the source domains before anything is bought, but for those that were decoded before.

    Without a broken one its domain is split anew, and a part of what was bought would train nobody.

    Raises:
        DataError: Names all that are broken.
    """
    if planned.plan.missing:
        sources, size = planned.queries.split.sources, planned.plan.teacher.image_size
        looks = [ImageQuery(sample, canonical_view()) for sample in sources]
        with naming_all_broken(sources, context.cache, size=size, progress=progress):
            hash_views(looks, context.cache, size=size, progress=progress)


def settle_outstanding(
    plan: QueryPlan, account: Summary | None, context: PurchaseContext, report: PurchaseReport
) -> bool:
    """Fetch what earlier purchases sent and never received, free of charge; return whether there was any.

    What was never charged is released, and what the vendor no longer keeps is noted as expired. Expired items that the
    plan wants are asked for too: a vendor that has lost its ledger meanwhile, or says so, would charge them.

    Raises:
        VendorChanged: The key is another account's (one cache keeps the books of one, and the same items would be paid
            again), or something was paid at a price that was never agreed to.
        VendorError: The vendor cannot be asked, or its answer fails a check.
    """
    teacher, cache = plan.teacher, context.cache
    if account is not None:
        check_account(account, cache)
    expired = [item.item_key for item in plan.missing if item.is_expired]
    wanted = [*cache.purchases.outstanding(teacher.ledger_id), *([expired] if expired else [])]
    if wanted:
        trust_vendor(context.vendor, cache, ledger_id=teacher.ledger_id)
    for item_keys in wanted:
        for start in range(0, len(item_keys), teacher.max_items):
            delivery = context.vendor.replay(item_keys[start : start + teacher.max_items])
            keep(delivery, cache, teacher.ledger_id)
            report.add(delivery)
    return bool(wanted)


def _check_disk(plan: QueryPlan, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < plan.new_bytes + _BESIDE_BYTES:
        raise CacheError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB left, and the cache will grow by "
            f"{plan.new_bytes / 1e6:,.0f} MB: make room, or name another file with purchase.cache; nothing was bought"
        )


def _check_unchanged(plan: QueryPlan, wanted: QueryPlan, context: PurchaseContext) -> None:
    """Refuse to buy unasked what costs more than when the plan was made, or comes from another model."""
    planned, more = plan.teacher, wanted.units - plan.units
    if more > 0:
        raise VendorChanged(
            f"the vendor no longer knows {more:,} of the queries that it said it had charged, and would charge them; "
            "nothing was bought: run the command again to see what they cost"
        )
    now = context.vendor.model(planned.id)
    if replace(now, max_items=planned.max_items, max_request_bytes=planned.max_request_bytes) != planned:
        raise VendorChanged(
            f"the vendor's model {planned.id} or its price is not the one that was planned; nothing was bought: "
            "run the command again to plan anew"
        )
    trust_vendor(context.vendor, context.cache, ledger_id=planned.ledger_id)


def _buy_within(
    wanted: QueryPlan,
    limits: Limits,
    account: Summary | None,
    context: PurchaseContext,
    report: PurchaseReport,
    progress: Progress,
) -> None:
    """Open a purchase at exactly what was agreed: whatever the vendor claims, no more can be sent."""
    affordable = wanted.affordable(limits)
    if affordable.missing:
        purchase_id = context.cache.purchases.open_purchase(
            wanted.teacher,
            max_units=affordable.units,
            max_amount_micro=affordable.amount_micro,
            account_id=None if account is None else account.account_id,
            task=limits.task,
        )
        Buyer(affordable, purchase_id, context, report, progress).run()
    if affordable.units < wanted.units:
        why = limits.exceeded_by(wanted.units, wanted.amount_micro, wanted.currency)
        raise BudgetExhausted(str(why), units=wanted.units, left=affordable.units)


def _failures(failed: Sequence[FailedQuery]) -> QueriesFailed:
    named = "; ".join(f"{query.name}: {query.detail}" for query in failed[:5])
    more = f" and {len(failed) - 5:,} more" if len(failed) > 5 else ""
    return QueriesFailed(
        f"{len(failed):,} queries got no vector, for which nothing was charged now: {named}{more}. Everything else is "
        "bought; mend or remove these, or go on without the images among them: `buy`, `distill` and `sweep` take "
        "purchase.skip_failed",
        failed,
    )
