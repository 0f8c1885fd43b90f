"""Buying a plan: batch by batch, several at a time, each item paid once whatever happens on the way.

Every batch takes the same four steps: render, reserve (on disk), send, store. A crash before the second leaves
nothing, one after it leaves items `sent`, and the next purchase asks the vendor for those first, free of charge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vl2v_client.api.client import VendorClient
from vl2v_client.cache.records import Paid
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import DataError, NotAuthorized, VendorChanged
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.buyer import Buyer, FailedQuery, PurchaseReport, cut_short, keep
from vl2v_client.planning.plan import QueryPlan, mark_expired
from vl2v_client.planning.vendor import trust_vendor

DEFAULT_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Caps:
    """What one purchase may spend at most; None is no cap beside the plan itself and the vendor's budget.

    Attributes:
        max_queries: new queries.
        max_cost_micro: their price.
        counted: cache keys of queries that count even if they are paid for by now: an earlier call, which was killed,
            wanted them under the same caps.
    """

    max_queries: int | None = None
    max_cost_micro: int | None = None
    counted: frozenset[str] = frozenset()


def buy(
    plan: QueryPlan,
    client: VendorClient,
    cache: EmbeddingCache,
    *,
    caps: Caps | None = None,
    allow_partial: bool = False,
    skip_failed: bool = False,
    workers: int = DEFAULT_WORKERS,
    progress: Progress = silent,
    notify: Callable[[str], None] | None = None,
) -> PurchaseReport:
    """Buy what a plan misses. Nothing is sent if nothing is missing and nothing is outstanding.

    Purchases on one cache take turns, whichever process or thread they run in.

    Args:
        plan: from `make_plan`; the vendor is held to its model and prices.
        client: the vendor.
        cache: where vectors and receipts go; what it already holds is not bought.
        caps: refuse a plan above these, or with `allow_partial` stop at them.
        allow_partial: buy as much as caps and budget hold, then end with `BudgetExhausted`.
        skip_failed: report queries that the vendor could not answer instead of raising.
        workers: requests under way at a time.
        progress: told of delivered queries and money, as phase "buy".
        notify: told, in a sentence, that another purchase on this cache has to end first.

    Raises:
        BudgetExhausted: a cap or the budget cannot hold the plan; with `allow_partial`, after all that fits is bought.
        DataError: files changed since the plan was made, or queries failed (the rest is bought).
        VendorChanged: model, price or signing key is not the plan's.
        VendorUnavailable: the vendor stopped answering; the same purchase goes on where it stopped.
        CacheError: the cache cannot be written.
    """
    report = PurchaseReport(plan.currency)
    ledger_id = plan.teacher.ledger_id
    if not (cache.purchases.outstanding(ledger_id) or _still_missing(plan, cache).missing):
        return report
    with cache.turn(lambda: _tell_wait(cache, notify)):
        _check_account(ledger_id, client, cache)
        settle_outstanding(client, cache, plan.teacher, report)
        wanted = _still_missing(plan, cache)
        if not wanted.missing:
            return report
        _check_teacher(plan.teacher, client, cache)
        caps = caps or Caps()
        limits, spent = _limits(client, caps), _spent(plan, caps, cache)
        if not allow_partial:
            wanted.check_caps(**limits, spent=spent)
        affordable = wanted.affordable(**limits, spent=spent)
        if affordable.missing:
            Buyer(affordable, client, cache, report, progress).run(workers)
    if affordable.units < wanted.units:
        raise cut_short(report, len(wanted.missing), str(wanted.excess(**limits, spent=spent)))
    if report.failed and not skip_failed:
        raise _failures(report.failed)
    return report


def settle_outstanding(
    client: VendorClient, cache: EmbeddingCache, teacher: TeacherModel, report: PurchaseReport
) -> None:
    """Fetch what earlier purchases sent and never received, free of charge.

    What was never charged is released, and what the vendor no longer keeps is noted as expired.

    Raises:
        VendorChanged: something was paid at a price that was never agreed to.
        VendorError: the vendor cannot be asked, or its answer fails a check.
    """
    outstanding = cache.purchases.outstanding(teacher.ledger_id)
    if not outstanding:
        return
    trust_vendor(client, cache, ledger_id=teacher.ledger_id)
    for item_keys in outstanding:
        for start in range(0, len(item_keys), teacher.max_items):
            delivery = client.replay(item_keys[start : start + teacher.max_items])
            keep(delivery, cache, teacher.ledger_id)
            report.add(delivery)


def _still_missing(plan: QueryPlan, cache: EmbeddingCache) -> QueryPlan:
    """The plan without what has come into the cache since it was made, and with what is known to be charged by now."""
    lacking = set(cache.missing(item.cache_key for item in plan.missing))
    missing = (item for item in plan.missing if item.cache_key in lacking)
    return replace(plan, missing=tuple(mark_expired(missing, cache, plan.teacher.ledger_id)))


def _tell_wait(cache: EmbeddingCache, notify: Callable[[str], None] | None) -> None:
    if notify is not None:
        notify(f"another purchase is using the cache {cache.path}; waiting for it to end")


def _check_account(ledger_id: str, client: VendorClient, cache: EmbeddingCache) -> None:
    """One cache keeps the books of one account at a vendor: with another's key, the same items would be paid again."""
    known = cache.records.account_ids(ledger_id)
    if not known:
        return
    try:
        account_id = client.summary().account_id
    except NotAuthorized:
        return  # a key that may not read the bill cannot say whose it is
    if account_id not in known:
        raise VendorChanged(
            f"the cache {cache.path} keeps the books of account {', '.join(sorted(known))} at this vendor, and the key "
            f"belongs to {account_id}: use that account's key, or another --cache"
        )


def _check_teacher(planned: TeacherModel, client: VendorClient, cache: EmbeddingCache) -> None:
    now = client.model(planned.id)
    if replace(now, max_items=planned.max_items, max_request_bytes=planned.max_request_bytes) != planned:
        raise VendorChanged(
            f"the vendor's model {planned.id} or its price is not the one that was planned; nothing was bought: "
            "run the command again to plan anew"
        )
    trust_vendor(client, cache, ledger_id=planned.ledger_id)


def _limits(client: VendorClient, caps: Caps) -> dict[str, int | None]:
    try:
        remaining_units: int | None = client.summary().remaining_units
    except NotAuthorized:
        remaining_units = None  # a key that may buy but not read the bill; the vendor still enforces its budget
    return {
        "max_queries": caps.max_queries,
        "max_cost_micro": caps.max_cost_micro,
        "remaining_units": remaining_units,
    }


def _spent(plan: QueryPlan, caps: Caps, cache: EmbeddingCache) -> Paid:
    paid = cache.records.paid(caps.counted.intersection((*plan.used_image_keys, *plan.text_keys))).values()
    return Paid(sum(of_kind.units for of_kind in paid), sum(of_kind.amount_micro for of_kind in paid))


def _failures(failed: Sequence[FailedQuery]) -> DataError:
    named = "; ".join(f"{query.name}: {query.detail}" for query in failed[:5])
    more = f" and {len(failed) - 5:,} more" if len(failed) > 5 else ""
    return DataError(
        f"{len(failed):,} queries got no vector and cost nothing: {named}{more}. Everything else is bought; mend or "
        "remove these, or go on without the images among them: `buy`, `distill` and `sweep` take --skip-failed"
    )
