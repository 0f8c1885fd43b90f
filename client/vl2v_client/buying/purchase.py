"""Buying a plan: batch by batch, several at a time, each item paid once whatever happens on the way.

Every batch takes the same four steps: render, reserve (on disk), send, store. A crash before the second leaves
nothing, one after it leaves items `sent`, and the next purchase asks the vendor for those first, free of charge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vl2v_client.api.client import VendorClient
from vl2v_client.buying.buyer import Buyer, FailedQuery, PurchaseReport, keep
from vl2v_client.buying.vendor_meeting import trust_vendor
from vl2v_client.cache.records import NOTHING
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, DataError, NotAuthorized, VendorChanged
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import TeacherModel, format_micro
from vl2v_client.planning.plan import Limits, QueryPlan, still_missing, without_items
from vl2v_contract.records import Summary

DEFAULT_WORKERS = 4
FORBIDDEN = "forbidden"
"""The vendor's code for a key that is good, but not for this."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one purchase may spend at most; None is no cap beside the plan itself and the vendor's budget.

    Attributes:
        max_queries: new queries.
        max_cost_micro: their price.
        task: a name for what is bought under these caps: all purchases of that name, whichever call made them, count.
    """

    max_queries: int | None = None
    max_cost_micro: int | None = None
    task: str | None = None


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
    """Buy what a plan misses. Nothing is sent if nothing is missing any more.

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
    if not plan.missing:
        return report
    caps = caps or Caps()
    with cache.purchase_lock(lambda: _tell_wait(cache, notify)):
        asked = still_missing(plan, cache)
        if not asked.missing:
            return report
        account = _account(client)
        if account is not None:
            _check_account(account.account_id, plan.teacher.ledger_id, cache)
        wanted = without_items(asked, settle_outstanding(asked, client, cache, report), cache)
        if not wanted.missing:
            return report
        settled = report.vectors
        _check_approved(plan, wanted)
        _check_teacher(plan.teacher, client, cache)
        limits = _limits(caps, account, cache)
        if not allow_partial:
            wanted.check_caps(limits)
        affordable = wanted.affordable(limits)
        try:
            if affordable.missing:
                purchase_id = _open(affordable, account, caps, cache)
                Buyer(affordable, purchase_id, client, cache, report, progress).run(workers)
            if affordable.units < wanted.units:
                raise BudgetExhausted(str(wanted.excess(limits)))
        except BudgetExhausted as error:
            got = len(asked.missing) - len(wanted.missing) + report.vectors - settled
            raise _cut_short(got, len(asked.missing), report, str(error)) from error
    if report.failed and not skip_failed:
        raise _failures(report.failed)
    return report


def settle_outstanding(
    plan: QueryPlan, client: VendorClient, cache: EmbeddingCache, report: PurchaseReport
) -> frozenset[str]:
    """Fetch what earlier purchases sent and never received, free of charge.

    What was never charged is released, and what the vendor no longer keeps is noted as expired. Expired items that the
    plan wants are asked for too: a vendor that has lost its ledger meanwhile, or says so, would charge them.

    Returns:
        The item keys of what came.

    Raises:
        VendorChanged: something was paid at a price that was never agreed to.
        VendorError: the vendor cannot be asked, or its answer fails a check.
    """
    teacher = plan.teacher
    expired = [item.item_key for item in plan.missing if item.is_expired]
    wanted = [*cache.purchases.outstanding(teacher.ledger_id), *([expired] if expired else [])]
    if not wanted:
        return frozenset()
    trust_vendor(client, cache, ledger_id=teacher.ledger_id)
    came: set[str] = set()
    for item_keys in wanted:
        for start in range(0, len(item_keys), teacher.max_items):
            delivery = client.replay(item_keys[start : start + teacher.max_items])
            keep(delivery, cache, teacher.ledger_id)
            report.add(delivery)
            came.update(item.item_key for item in delivery.items)
    return frozenset(came)


def _open(plan: QueryPlan, account: Summary | None, caps: Caps, cache: EmbeddingCache) -> int:
    """Open a purchase at exactly what was agreed: whatever the vendor claims, no more can be sent."""
    return cache.purchases.open_purchase(
        plan.teacher,
        max_units=plan.units,
        max_amount_micro=plan.amount_micro,
        account_id=None if account is None else account.account_id,
        task=caps.task,
    )


def _tell_wait(cache: EmbeddingCache, notify: Callable[[str], None] | None) -> None:
    if notify is not None:
        notify(f"another purchase is using the cache {cache.path}; waiting for it to end")


def _account(client: VendorClient) -> Summary | None:
    try:
        return client.summary()
    except NotAuthorized as error:
        if error.code != FORBIDDEN:
            raise
        return None  # a key that may buy but not read the bill; the vendor still enforces its budget


def _check_account(account_id: str, ledger_id: str, cache: EmbeddingCache) -> None:
    """One cache keeps the books of one account at a vendor: with another's key, the same items would be paid again."""
    known = cache.records.account_ids(ledger_id)
    if known and account_id not in known:
        raise VendorChanged(
            f"the cache {cache.path} keeps the books of account {', '.join(sorted(known))} at this vendor, and the key "
            f"belongs to {account_id}: use that account's key, or another purchase.cache"
        )


def _check_approved(plan: QueryPlan, wanted: QueryPlan) -> None:
    """What has come to cost money since the plan was made is not bought unasked."""
    more = wanted.units - plan.units
    if more > 0:
        raise VendorChanged(
            f"the vendor no longer knows {more:,} of the queries that it said it had charged, and would charge them; "
            "nothing was bought: run the command again to see what they cost"
        )


def _check_teacher(planned: TeacherModel, client: VendorClient, cache: EmbeddingCache) -> None:
    now = client.model(planned.id)
    if replace(now, max_items=planned.max_items, max_request_bytes=planned.max_request_bytes) != planned:
        raise VendorChanged(
            f"the vendor's model {planned.id} or its price is not the one that was planned; nothing was bought: "
            "run the command again to plan anew"
        )
    trust_vendor(client, cache, ledger_id=planned.ledger_id)


def _limits(caps: Caps, account: Summary | None, cache: EmbeddingCache) -> Limits:
    spent = NOTHING if caps.task is None else cache.purchases.spent(caps.task)
    remaining_units = None if account is None else account.remaining_units
    return Limits(caps.max_queries, caps.max_cost_micro, remaining_units, spent)


def _cut_short(got: int, wanted: int, report: PurchaseReport, why: str) -> BudgetExhausted:
    """The end of a purchase that a budget or a cap stopped: what was got, and how to go on."""
    return BudgetExhausted(
        f"got {got:,} of {wanted:,} queries for {format_micro(report.amount_micro, report.currency)}, "
        f"then stopped: {why}. All of them are kept, and the same command goes on from there"
    )


def _failures(failed: Sequence[FailedQuery]) -> DataError:
    named = "; ".join(f"{query.name}: {query.detail}" for query in failed[:5])
    more = f" and {len(failed) - 5:,} more" if len(failed) > 5 else ""
    return DataError(
        f"{len(failed):,} queries got no vector, for which nothing was charged now: {named}{more}. Everything else is "
        "bought; mend or remove these, or go on without the images among them: `buy`, `distill` and `sweep` take "
        "purchase.skip_failed"
    )
