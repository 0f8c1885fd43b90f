"""`vl2v-client pilot`: a few queries that tell whether more are worth their price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from vl2v_client.cli.console import PlainConsole, plain_table, write_json
from vl2v_client.cli.options import (
    COMMON,
    DATA_OPTIONS,
    PURCHASE_OPTIONS,
    STUDENT_OPTIONS,
    TRAINING_OPTIONS,
    ApiKey,
    AsJson,
    ConfigFile,
    Named,
    Yes,
    as_flags,
    run_config,
    takes,
)
from vl2v_client.cli.vendor import open_purchase
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.runs.pilot_report import PilotReport

_SUSPECTS_SHOWN = 10
_BAR_WIDTH = 40


@takes(
    DATA_OPTIONS,
    PURCHASE_OPTIONS.only("vendor_url", "model", "cache", "max_cost"),
    STUDENT_OPTIONS,
    TRAINING_OPTIONS.only("preset", "seed"),
)
def pilot(
    *,
    named: Named,
    queries: Annotated[
        int, Parameter(group=COMMON, validator=Number(gte=1), help="Ask at most these, class prompts included.")
    ] = 200,
    config: ConfigFile = None,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Is it worth buying? Ask about a few training images, and say what that tells. Later runs have them already."""
    from vl2v_client.recipes.pilot import pilot as run_pilot
    from vl2v_client.runs.settings import settle

    run = run_config(named, config)
    run = run.replace(purchase=run.purchase.replace(max_queries=queries))
    settings = settle(run)
    with open_purchase(run.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
        report = run_pilot(settings.choice, settings.student, context, queries=queries, progress=progress)
    if as_json:
        values = report.to_json()
        values["offers"] = [offer | {"options": as_flags(offer["options"])} for offer in values["offers"]]
        write_json(values)
    else:
        _show(report, PlainConsole())


def _show(report: PilotReport, console: PlainConsole) -> None:
    from vl2v_client.evaluation import pilot_findings as rules

    def show(*lines: str) -> None:
        for line in lines:
            console.print(line, soft_wrap=True)

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
    console.print(plain_table("domain", "images", "teacher", "probe", "majority", rows=domains))
    show("", f"cos(image, its mirror image) {report.flip_cosine:.3f}, cos(image, its middle) {report.crop_cosine:.3f}")
    show("cos(image, text of its label):")
    most = max(count for _, count in report.cosines)
    for low, count in report.cosines:
        show(f"  {low:6.2f}  {'#' * round(_BAR_WIDTH * count / most)} {count}")
    if report.suspects:
        show("", f"{len(report.suspects)} labels are likely wrong ({rules.SUSPECT_RULE}):")
        for suspect in report.suspects[:_SUSPECTS_SHOWN]:
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
