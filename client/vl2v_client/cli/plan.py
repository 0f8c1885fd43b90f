"""`vl2v-client plan`: what a run would buy, and what it would cost. Buys nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vl2v_client.cli.bars import STDERR, bars, plain
from vl2v_client.cli.bound import estimate_json, estimate_table
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
    VendorUrl,
    open_cache,
    open_vendor,
    to_micro,
)
from vl2v_client.core.values import format_micro
from vl2v_client.data.views import VIEW_RECIPES
from vl2v_client.planning.plan import Limits, QueryPlan
from vl2v_client.recipes.bound import EXACT_VIEWS, estimate_run
from vl2v_client.recipes.preset_views import choose_views
from vl2v_client.recipes.purchase import PurchaseContext, plan_run, remaining_units
from vl2v_client.recipes.queries import DEFAULT_VIEWS, QueryChoice
from vl2v_client.recipes.spending import choose_queries
from vl2v_client.teacher.prompts import DEFAULT_TEMPLATE, prompt_templates

DataRoot = Annotated[Path, typer.Option("--data", help="Data set: domain/class/file, or class/file.")]
TargetDomain = Annotated[str | None, typer.Option("--target-domain", help="Domain to hold out; it is never bought.")]
Views = Annotated[int, typer.Option("--views", min=0, help="Views of each training image.")]
ViewsIfStored = Annotated[
    int | None, typer.Option("--views", min=0, help=f"Views of each training image. (default: {DEFAULT_VIEWS})")
]
ViewRecipeName = Annotated[
    str | None, typer.Option("--view-recipe", help=f"How views are chosen: {', '.join(VIEW_RECIPES)}; by preset.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="Prompt template, with {class} in it. Repeatable: their embeddings are averaged "
        f"(default: {DEFAULT_TEMPLATE}).",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the split and the views.")]


def plan(
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
    exact: Annotated[
        bool, typer.Option("--exact", help=f"Render and count the views even if there are more than {EXACT_VIEWS:,}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what would be bought: queries, cache hits, price, time and disk. Costs nothing."""
    choice = QueryChoice(
        data,
        target_domain=target_domain,
        seed=seed,
        prompts=prompt_templates(prompt),
        **choose_views(preset, views, recipe=view_recipe),
    )
    spending, max_cost_micro = spending_from(select, max_queries), to_micro(max_cost)
    with open_cache(cache) as opened, open_vendor(vendor_url, api_key) as vendor:
        with bars(quiet=as_json) as progress:
            buying = PurchaseContext(vendor, opened, approve=_show_nothing, notify=_notify, model=model)
            estimate = None if exact or select else estimate_run(choice, buying, progress=progress)
        left = remaining_units(vendor) if api_key else None
        if estimate is not None:
            _say(estimate_json(estimate, left) if as_json else estimate_table(estimate, left))
            estimate.check_caps(Limits(max_queries, max_cost_micro, left))
            return
        with bars(quiet=as_json) as progress:
            planned = plan_run(choice, buying, progress=progress)
            features = features_for(planned, student, student_weights, student_size, seed=seed, progress=progress)
            made = choose_queries(spending, planned, seed=seed, features=features).plan
    _say(plan_json(made, left) if as_json else plan_table(made, left))
    made.check_caps(Limits(max_queries, max_cost_micro, left))


def _say(totals: dict[str, Any] | Table) -> None:
    if isinstance(totals, Table):
        Console().print(totals)
    else:
        typer.echo(json.dumps(totals))


def _show_nothing(_plan: QueryPlan) -> None:
    """A plan alone buys nothing, so nothing has to be approved."""


def _notify(sentence: str) -> None:
    STDERR.print(f"note: {sentence}", markup=False, soft_wrap=True)


def plan_json(plan: QueryPlan, left_units: int | None) -> dict[str, Any]:
    """The plan's totals as JSON values."""
    return {
        "exact": True,
        "ledger_id": plan.teacher.ledger_id,
        "model": plan.teacher.id,
        "images": plan.image_files,
        "views": len(plan.image_keys),
        "chosen_views": len(plan.used_image_keys),
        "texts": len(plan.text_keys),
        "cached": plan.cached,
        "new_queries": plan.units,
        "free_queries": len(plan.missing) - plan.units,
        "amount_micro": plan.amount_micro,
        "currency": plan.currency,
        "seconds": plan.seconds,
        "new_bytes": plan.new_bytes,
        "remaining_units": left_units,
    }


def plan_table(plan: QueryPlan, left_units: int | None) -> Table:
    """The plan's totals for people."""
    table = Table("plan", plain(plan.teacher.id), title=None, box=None, header_style="bold")
    rows = {
        "images": f"{plan.image_files:,}",
        "views": f"{len(plan.image_keys):,}",
        "texts": f"{len(plan.text_keys):,}",
        "in the cache": f"{plan.cached:,}",
        "to buy": f"{plan.units:,}",
        "price": format_micro(plan.amount_micro, plan.currency),
        "disk": f"{plan.new_bytes / 1e6:,.1f} MB",
    }
    if free := len(plan.missing) - plan.units:
        rows["to buy"] += f", and {free:,} that are charged and whose answers were lost"
    if plan.chosen is not None:
        rows["views"] += f", of which {len(plan.chosen):,} are chosen"
    if plan.seconds is not None and plan.units:
        rows["time"] = f"about {timedelta(seconds=round(plan.seconds))}"
    if left_units is not None:
        short = plan.units - left_units
        rows["budget left"] = f"{left_units:,}" + (f" ({short:,} too few)" if short > 0 else "")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
