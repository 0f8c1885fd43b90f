"""Whom to buy from, and on which terms."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.planning.query_plan import QueryPlan

DEFAULT_WORKERS = 4

Notify = Callable[[str], None]
"""Shows a sentence to the user."""

Approve = Callable[[QueryPlan], None]
"""Shows a plan and returns if it may be bought; raises if not."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one purchase may spend at most; `None` is no cap beside the plan itself and the vendor's budget.

    Attributes:
        max_queries: Number of new queries.
        max_cost_micro: Price of the new queries, in micro-units.
        task: Name for what is bought under these caps: all purchases of that name, whichever call made them, count.
    """

    max_queries: int | None = None
    max_cost_micro: int | None = None
    task: str | None = None


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
    caps: Caps = Caps()
    allow_partial: bool = False
    skip_failed: bool = False
    workers: int = DEFAULT_WORKERS


def purchase_context(
    terms: PurchaseConfig, vendor: VendorClient, cache: EmbeddingCache, *, approve: Approve, notify: Notify
) -> PurchaseContext:
    """Return how to buy on the terms of a configuration; its caps hold for all that is bought in this context."""
    return PurchaseContext(
        vendor,
        cache,
        approve,
        notify,
        model=terms.model,
        caps=Caps(terms.max_queries, terms.max_cost_micro, task=secrets.token_hex(8)),
        allow_partial=terms.partial,
        skip_failed=terms.skip_failed,
        workers=terms.requests,
    )
