"""Whom to buy from, and on which terms; meeting the vendor, and the plan of a run there.

The vendor's first key is trusted once. Whatever it sells now that is not what was bought before is said.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import NotAuthorized, VendorChanged, VendorUnavailable
from vl2v_client.core.progress import Notify, Progress, format_micro, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.folder import DomainDataset
from vl2v_client.planning.broken import naming_all_broken
from vl2v_client.planning.choice import QueryChoice, collect_queries
from vl2v_client.planning.query_plan import Limits, PlannedRun, QueryPlan, make_plan
from vl2v_contract.records import Summary

Approve = Callable[[QueryPlan], None]  # shows a plan and returns if it may be bought; raises if not


@dataclass(frozen=True)
class PurchaseContext:
    """How to buy.

    Attributes:
        vendor: Client of the vendor.
        cache: Where vectors and receipts go; what it already holds is not bought.
        approve: Asked before anything is spent.
        notify: Gets what the user should know.
        model: Model of the vendor; `None` is its default.
        caps: Limits of the user on queries and money; a plan above them is refused, or with `allow_partial` cut.
        allow_partial: Buy as much as caps and budget hold, then end with `BudgetExhausted`.
        skip_failed: Report queries that the vendor cannot answer instead of raising.
        workers: Requests under way at a time.
    """

    vendor: VendorClient
    cache: EmbeddingCache
    approve: Approve
    notify: Notify
    model: str | None = None
    caps: Limits = field(default_factory=Limits)
    allow_partial: bool = False
    skip_failed: bool = False
    workers: int = 4


def purchase_context(
    terms: PurchaseConfig, vendor: VendorClient, cache: EmbeddingCache, approve: Approve, notify: Notify
) -> PurchaseContext:
    """Return how to buy by a run's options; its caps hold for all that is bought with it.

    Whether the API key may buy is asked before anybody is asked to approve.
    """

    def approve_for_a_buyer(plan: QueryPlan) -> None:
        vendor.check_may_buy()
        approve(plan)

    return PurchaseContext(
        vendor,
        cache,
        approve_for_a_buyer,
        notify,
        model=terms.model,
        caps=Limits(terms.max_queries, terms.max_cost_micro, task=secrets.token_hex(8)),
        allow_partial=terms.partial,
        skip_failed=terms.skip_failed,
        workers=terms.requests,
    )


def meet(context: PurchaseContext) -> TeacherModel:
    """Return the vendor's model; pin its keys on first use, and notify the user of what it showed otherwise before.

    Without a vendor: the model as last seen.

    Raises:
        VendorChanged: The signing keys do not descend from the one pinned for this ledger.
        VendorError: The vendor refuses, has no such model, is no vendor, or was never met and cannot be reached.
    """
    vendor, cache, model_id = context.vendor, context.cache, context.model
    before = cache.vendors.teacher(vendor.url, model_id)
    try:
        teacher = vendor.model(model_id)
        trust_vendor(vendor, cache, ledger_id=teacher.ledger_id)
    except VendorUnavailable as error:
        if before is None:
            raise
        context.notify(f"{error}; model and prices are those of the last visit")
        return before
    for change in [] if before is None else _changes(before, teacher, cache):
        context.notify(change)
    cache.vendors.remember_teacher(vendor.url, model_id, teacher)
    return teacher


def trust_vendor(client: VendorClient, cache: EmbeddingCache, *, ledger_id: str) -> None:
    """Fetch the vendor's keys, hold them against the pinned first key, and make the client check receipts with them.

    Raises:
        VendorChanged: The keys are of another ledger, or do not descend from the pinned one.
    """
    keyring = client.trusted_keys(cache.vendors.first_key)
    if keyring.ledger_id != ledger_id:
        raise VendorChanged(
            f"the vendor at {client.url} sells for ledger {ledger_id} but publishes the keys of {keyring.ledger_id}"
        )
    cache.vendors.remember_keys(ledger_id, keyring.keys)


def _changes(before: TeacherModel, now: TeacherModel, cache: EmbeddingCache) -> list[str]:
    names = ("ledger_id", "id", "weights_sha", "precision", "preprocessing_id")
    changed = [name for name in names if getattr(before, name) != getattr(now, name)]
    if changed:
        held = cache.purchases.paid_items(before.ledger_id, before.id, before.weights_sha)
        what = ", ".join(f"{name} {_told_apart(getattr(before, name), getattr(now, name))}" for name in changed)
        return [
            f"the vendor now serves another model than the cached one ({what}): the {held:,} vectors bought before do "
            "not fit it, and this plan counts every query as new"
        ]
    pairs = (("image", before.image_price, now.image_price), ("text", before.text_price, now.text_price))
    return [
        f"the price of one {modality} query is now {format_micro(new.unit_price_micro, new.currency)}, "
        f"before {format_micro(old.unit_price_micro, old.currency)}"
        for modality, old, new in pairs
        if (old.unit_price_micro, old.currency) != (new.unit_price_micro, new.currency)
    ]


def _told_apart(before: str, now: str) -> str:
    """Return `before -> now`; hashes and long names are cut, but never to equal texts."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
    shown = max(16, same + 8)
    return " -> ".join(text if len(text) <= shown else f"{text[:shown]}..." for text in (before, now))


def read_account(vendor: VendorClient) -> Summary | None:
    """Return the state of the account; `None` if the key may buy but not read the bill.

    Raises:
        NotAuthorized: The key is none.
        VendorUnavailable: The vendor does not answer.
    """
    try:
        return vendor.summary()
    except NotAuthorized as error:
        if error.code != "forbidden":  # the code for a key that is good, but not for this
            raise
        return None


def check_account(account: Summary, cache: EmbeddingCache) -> None:
    """Refuse a key of another account than the one whose books this cache keeps at the vendor.

    Raises:
        VendorChanged: Names both accounts.
    """
    known = cache.records.account_ids(account.ledger_id)
    if known and account.account_id not in known:
        raise VendorChanged(
            f"the cache {cache.path} keeps the books of account {', '.join(sorted(known))} at this vendor, and the key "
            f"belongs to {account.account_id}: use that account's key, or another purchase.cache"
        )


def remaining_units(vendor: VendorClient) -> int | None:
    """Return what the account has left; `None` if the vendor does not answer, or the key may not read the bill.

    Raises:
        NotAuthorized: The key is none.
    """
    try:
        account = read_account(vendor)
    except VendorUnavailable:
        return None
    return None if account is None else account.remaining_units


def plan_run(
    choice: QueryChoice,
    context: PurchaseContext,
    *,
    listed: DomainDataset | None = None,
    progress: Progress = silent,
) -> PlannedRun:
    """Meet the vendor and plan what a run asks of it; its data set may be `listed` already.

    Raises:
        DataError: The data set cannot be used.
        VendorError: As `meet`.
    """
    teacher = meet(context)
    cache, size = context.cache, teacher.image_size
    queries = collect_queries(choice, cache, size=size, listed=listed, progress=progress)
    if queries.dataset.skipped and choice.skipped is None:
        named = ", ".join(queries.dataset.skipped[:5]) + (", ..." if len(queries.dataset.skipped) > 5 else "")
        context.notify(f"{len(queries.dataset.skipped):,} images cannot be used and are left out: {named}")
    with naming_all_broken(queries.split.sources, cache, size=size, progress=progress):
        plan = make_plan(queries.images, queries.texts, teacher, cache, progress=progress)
    return PlannedRun(queries, plan)
