"""`vl2v-client buy`: buy what a run needs and the cache lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console

from vl2v_client.cli.bars import bars
from vl2v_client.cli.plan import DataRoot, Prompts, Seed, TargetDomain, ViewRecipeName, Views
from vl2v_client.cli.purchase_options import purchase_context
from vl2v_client.cli.spending_options import (
    MaxQueries,
    Select,
    Student,
    StudentSize,
    StudentWeights,
    features_for,
    spending_from,
)
from vl2v_client.cli.training_options import Preset
from vl2v_client.cli.vendor_options import (
    DEFAULT_VENDOR_URL,
    ApiKey,
    AsJson,
    CachePath,
    MaxCost,
    ModelId,
    SkipFailed,
    VendorUrl,
    open_cache,
    open_vendor,
)
from vl2v_client.core.values import format_micro
from vl2v_client.planning.buyer import PurchaseReport
from vl2v_client.planning.purchase import DEFAULT_WORKERS
from vl2v_client.recipes.preset_views import choose_views
from vl2v_client.recipes.purchase import buy_planned, check_hold_out, plan_run
from vl2v_client.recipes.queries import DEFAULT_VIEWS, QueryChoice
from vl2v_client.recipes.spending import choose_queries
from vl2v_client.teacher.prompts import prompt_templates


def buy(
    data: DataRoot,
    target_domain: TargetDomain = None,
    views: Views = DEFAULT_VIEWS,
    view_recipe: ViewRecipeName = None,
    prompt: Prompts = None,
    preset: Preset = "default",
    seed: Seed = 0,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_queries: MaxQueries = None,
    select: Select = None,
    student: Student = "tiny",
    student_weights: StudentWeights = None,
    student_size: StudentSize = None,
    max_cost: MaxCost = None,
    partial: Annotated[bool, typer.Option("--partial", help="Buy as much as caps and budget hold.")] = False,
    skip_failed: SkipFailed = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Requests under way at a time.")] = DEFAULT_WORKERS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    as_json: AsJson = False,
) -> None:
    """Buy the embeddings that the cache lacks. Run again after any interruption: nothing is paid twice."""
    choice = QueryChoice(
        data,
        target_domain=target_domain,
        seed=seed,
        prompts=prompt_templates(prompt),
        **choose_views(preset, views, recipe=view_recipe),
    )
    spending = spending_from(select, max_queries)
    with open_cache(cache) as opened, open_vendor(vendor_url, api_key) as vendor, bars(quiet=as_json) as progress:
        buying = purchase_context(
            vendor,
            opened,
            model=model,
            max_queries=max_queries,
            max_cost=max_cost,
            partial=partial,
            skip_failed=skip_failed,
            yes=yes,
            as_json=as_json,
            progress=progress,
        )
        buying = replace(buying, workers=workers)
        planned = plan_run(choice, buying, progress=progress)
        check_hold_out(planned, buying, progress=progress)
        features = features_for(planned, student, student_weights, student_size, seed=seed, progress=progress)
        planned = choose_queries(spending, planned, seed=seed, features=features)
        report = buy_planned(planned.plan, buying, progress=progress)
    if as_json:
        typer.echo(json.dumps(purchase_json(report)))
    else:
        Console().print(purchase_line(report), markup=False, highlight=False)


def purchase_json(report: PurchaseReport) -> dict[str, Any]:
    """A purchase as JSON values."""
    return {
        "billed_units": report.billed_units,
        "replayed_units": report.replayed_units,
        "amount_micro": report.amount_micro,
        "currency": report.currency,
        "failed": [{"name": one.name, "code": one.code, "detail": one.detail} for one in report.failed],
        "receipts": [{"seq": one.entry.seq, "entry_hash": one.entry_hash} for one in report.receipts],
    }


def purchase_line(report: PurchaseReport) -> str:
    """A purchase in one line."""
    if not report.billed_units + report.replayed_units + len(report.failed):
        return "nothing to buy: every vector is in the cache"
    line = f"bought {report.billed_units:,} queries for {format_micro(report.amount_micro, report.currency)}"
    if report.replayed_units:
        line += f"; {report.replayed_units:,} paid earlier came free"
    if report.failed:
        line += f"; {len(report.failed):,} failed, free"
    return line
