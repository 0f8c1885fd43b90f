"""How commands that may spend money ask, and what they tell."""

from __future__ import annotations

import secrets

import typer

from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.cli.bars import STDERR, Bars
from vl2v_client.cli.plan import plan_table
from vl2v_client.cli.vendor_options import to_micro
from vl2v_client.core.errors import UsageError
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.planning.purchase import Caps
from vl2v_client.recipes.purchase import PurchaseContext, remaining_units


def purchase_context(
    vendor: VendorClient,
    cache: EmbeddingCache,
    *,
    model: str | None,
    max_queries: int | None,
    max_cost: str | None,
    partial: bool = False,
    skip_failed: bool = False,
    yes: bool,
    as_json: bool,
    progress: Bars,
) -> PurchaseContext:
    """A purchase as the command line describes it: unless `yes`, a person sees the plan and approves it."""

    def approve(plan: QueryPlan) -> None:
        if as_json:
            if not yes:
                raise UsageError("--json asks nobody, so spending needs --yes beside it")
            return
        with progress.paused():
            STDERR.print(plan_table(plan, remaining_units(vendor)))
            if not yes:
                typer.confirm("Buy this?", abort=True, err=True)

    return PurchaseContext(
        vendor=vendor,
        cache=cache,
        approve=approve,
        notify=notify,
        model=model,
        caps=Caps(max_queries, to_micro(max_cost), task=secrets.token_hex(8)),
        allow_partial=partial,
        skip_failed=skip_failed,
    )


def notify(sentence: str) -> None:
    """Show a sentence on standard error."""
    STDERR.print(sentence, markup=False, soft_wrap=True)
