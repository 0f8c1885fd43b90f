"""`vl2v-client plan`, `pilot` and `buy`: what a run would buy, what that costs and is worth, and buying it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from vl2v_client.cli.check import data_json, data_table, open_data, tell_ignored
from vl2v_client.cli.console import PlainConsole, plain_table, show, stacked, write_json
from vl2v_client.cli.options import (
    COMMON,
    DATA_OPTIONS,
    PURCHASE_OPTIONS,
    PURCHASING_OPTIONS,
    STUDENT_OPTIONS,
    TRAINING_OPTIONS,
    ApiKey,
    AsJson,
    Yes,
    as_command,
    as_flags,
    takes,
)
from vl2v_client.cli.vendor import notify, open_purchase, say_student
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.buying.buyer import PurchaseReport
    from vl2v_client.planning.plan_estimate import PlanEstimate
    from vl2v_client.planning.query_plan import QueryPlan
    from vl2v_client.runs.pilot_report import PilotReport


_CLASSES_SHOWN = 20


@takes(*PURCHASING_OPTIONS, file=True)
def plan(
    *,
    config: RunConfig,
    exact: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Render and count the views, even of a very large data set."),
    ] = False,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what the same options of `distill` would buy: queries, cache hits, price, time and disk. Costs nothing."""
    from vl2v_client.buying.context import remaining_units
    from vl2v_client.planning.query_plan import Limits, QueryPlan
    from vl2v_client.recipes.plan import plan as plan_run

    tell_ignored(config)
    dataset, prompts = open_data(config)
    with open_purchase(config.purchase, api_key, as_json=as_json, yes=False) as (context, progress):
        made = plan_run(config, context, exact=exact, listed=dataset, progress=progress)
        left = remaining_units(context.vendor) if api_key else None
    facts, counted = made.facts(left), made if isinstance(made, QueryPlan) else made.texts
    if made is not counted:
        facts["not subtracted"] = "views in the cache, and views that look alike: --exact renders all and counts"
    totals = plain_table("plan" if made is counted else "upper bound", counted.teacher.id, rows=facts.items())
    shown = stacked(data_table(dataset, prompts, most=_CLASSES_SHOWN), totals)
    show(plan_json(made, left) | data_json(dataset, prompts), shown, as_json=as_json)
    made.check_caps(Limits(config.purchase.max_queries, config.purchase.max_cost_micro, left))


@takes(*PURCHASING_OPTIONS, file=True)
def buy(*, config: RunConfig, api_key: ApiKey = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Buy the embeddings that the cache lacks. Run again after any interruption: nothing is paid twice."""
    from vl2v_client.recipes.buy import buy as buy_run

    tell_ignored(config)
    with open_purchase(config.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
        report = buy_run(config, context, progress=progress)
    document = {
        "billed_units": report.billed_units,
        "replayed_units": report.replayed_units,
        "amount_micro": report.amount_micro,
        "currency": report.currency,
        "failed": [asdict(one) for one in report.failed],
        "receipts": [{"seq": one.entry.seq, "entry_hash": one.entry_hash} for one in report.receipts],
    }
    show(document, _purchase_line(report), as_json=as_json)


def plan_json(made: QueryPlan | PlanEstimate, left_units: int | None) -> dict[str, Any]:
    """Return a plan's totals as JSON values; of an upper bound, `exact` is false and some are missing."""
    from vl2v_client.planning.query_plan import QueryPlan

    exact = made if isinstance(made, QueryPlan) else made.texts
    totals: dict[str, Any] = {
        "exact": made is exact,
        "ledger_id": exact.teacher.ledger_id,
        "model": exact.teacher.id,
        "images": made.image_files,
        "new_queries": made.units,
        "texts": len(exact.text_keys),
        "amount_micro": made.amount_micro,
        "currency": exact.currency,
        "seconds": made.seconds,
        "remaining_units": left_units,
    }
    if not isinstance(made, QueryPlan):
        return {**totals, "views": made.views}
    return {
        **totals,
        "views": len(made.image_keys),
        "chosen_views": len(made.used_image_keys),
        "cached": made.cached,
        "free_queries": len(made.missing) - made.units,
        "new_bytes": made.new_bytes,
    }


def _purchase_line(report: PurchaseReport) -> str:
    if not report.billed_units + report.replayed_units + len(report.failed):
        return "nothing to buy: every vector is in the cache"
    line = f"bought {report.billed_units:,} queries for {format_micro(report.amount_micro, report.currency)}"
    if report.replayed_units:
        line += f"; {report.replayed_units:,} paid earlier came free"
    if report.failed:
        line += f"; {len(report.failed):,} failed, free"
    return line


@takes(
    DATA_OPTIONS,
    PURCHASE_OPTIONS.only("vendor_url", "model", "cache", "max_cost"),
    STUDENT_OPTIONS,
    TRAINING_OPTIONS.only("preset", "seed"),
    file=True,
)
def pilot(
    *,
    config: RunConfig,
    queries: Annotated[
        int, Parameter(group=COMMON, validator=Number(gte=1), help="Ask at most these, class prompts included.")
    ] = 200,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Is it worth buying? Ask about a few training images, and say what that tells. Later runs have them already."""
    from vl2v_client.recipes.pilot import pilot as run_pilot
    from vl2v_client.runs.settings import settle

    capped = config.replace(purchase=config.purchase.replace(max_queries=queries))
    settings = settle(capped)
    with open_purchase(capped.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
        say_student(config, settings, "pilot")
        report = run_pilot(settings, context, queries=queries, progress=progress)
    command = as_command("distill", config, report.next.options)
    if as_json:
        values = report.to_json()
        values["offers"] = [offer | {"options": as_flags(offer["options"])} for offer in values["offers"]]
        write_json(values | {"student": settings.config.student.name, "next": command})
    else:
        _show(report, PlainConsole())
        notify(f"Next, {report.next.name}: {command}")


def _show(report: PilotReport, console: PlainConsole) -> None:
    from vl2v_client.evaluation import pilot_findings as rules

    show = partial(console.print, sep="\n", soft_wrap=True)
    domains = [
        (
            one.domain,
            f"{one.images}",
            f"{one.teacher:.1%} ± {100 * one.standard_error:.1f}",
            f"{one.probe:.1%}",
            f"{one.majority:.1%}",
        )
        for one in report.domains
    ]
    console.print(plain_table("domain", "images", "teacher", "labels alone", "majority", rows=domains))
    show("", f"cos(image, its mirror image) {report.flip_cosine:.3f}, cos(image, its middle) {report.crop_cosine:.3f}")
    show("cos(image, text of its label):")
    most = max(count for _, count in report.cosines)
    for low, count in report.cosines:
        show(f"  {low:6.2f}  {'#' * round(40 * count / most)} {count}")
    if report.suspects:
        show("", f"{len(report.suspects)} labels are likely wrong ({rules.SUSPECT_RULE}):")
        for suspect in report.suspects[:10]:
            said = f"labelled {suspect.label}, the teacher says {suspect.teacher_says}"
            show(f"  {suspect.path}: {said}, cosine {suspect.cosine:.3f}")
    advice = report.advice
    error = f"{100 * advice.difference:+.1f} points over the probe, standard error {100 * advice.standard_error:.1f}"
    show("", f"worth buying: {advice.worth_buying} ({error})", f"  {rules.VERDICT_RULE}")
    show(f"image weight: {advice.image_weight:g}", f"  {rules.IMAGE_WEIGHT_RULE}")
    show(f"views: {advice.views}", f"  {rules.VIEWS_RULE}", "")
    currency = report.purchase.currency
    offers = [
        (one.name, f"{one.queries:,}", f"{one.new:,}", format_micro(one.amount_micro, currency), as_flags(one.options))
        for one in report.offers
    ]
    console.print(plain_table("next", "queries", "new", "price at most", "options", rows=offers))
    spent = format_micro(report.purchase.amount_micro, currency)
    bought = f"The pilot bought {report.purchase.billed_units:,} queries for {spent}"
    show("", f"{bought}; the cache keeps them for later runs.")
