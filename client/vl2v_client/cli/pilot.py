"""`vl2v-client pilot`: a few queries that tell whether more are worth their price."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vl2v_client.cli.bars import bars, plain
from vl2v_client.cli.plan import DataRoot, Prompts, Seed, TargetDomain
from vl2v_client.cli.purchase_options import purchase_context
from vl2v_client.cli.spending_options import Student, StudentSize, StudentWeights
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
)
from vl2v_client.core.values import format_micro
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.teacher.prompts import prompt_templates

if TYPE_CHECKING:
    from vl2v_client.recipes.pilot import PilotReport

_SUSPECTS_SHOWN = 10
_BAR_WIDTH = 40


def pilot(
    data: DataRoot,
    target_domain: TargetDomain = None,
    prompt: Prompts = None,
    seed: Seed = 0,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Ask at most these, class prompts included.")] = 200,
    student: Student = "tiny",
    student_weights: StudentWeights = None,
    student_size: StudentSize = None,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_cost: MaxCost = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    as_json: AsJson = False,
) -> None:
    """Is it worth buying? Ask about a few training images, and say what that tells. Later runs have them already."""
    from vl2v_client.recipes.pilot import pilot as run_pilot
    from vl2v_client.student.spec import resolve_student

    spec = resolve_student(student, weights=student_weights, size=student_size)
    choice = QueryChoice(data, target_domain=target_domain, seed=seed, prompts=prompt_templates(prompt))
    with open_cache(cache) as opened, open_vendor(vendor_url, api_key) as vendor, bars(quiet=as_json) as progress:
        buying = purchase_context(
            vendor,
            opened,
            model=model,
            max_queries=queries,
            max_cost=max_cost,
            yes=yes,
            as_json=as_json,
            progress=progress,
        )
        report = run_pilot(choice, spec, buying, queries=queries, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        _show(report, Console())


def _show(report: PilotReport, console: Console) -> None:
    from vl2v_client.recipes import pilot_findings as rules

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    console.print(_domain_table(report))
    line(f"\ncos(image, its mirror image) {report.flip_cosine:.3f}, cos(image, its middle) {report.crop_cosine:.3f}")
    line("cos(image, text of its label):")
    most = max(count for _, count in report.cosines)
    for low, count in report.cosines:
        line(f"  {low:6.2f}  {'#' * round(_BAR_WIDTH * count / most)} {count}")
    if report.suspects:
        line(f"\n{len(report.suspects)} labels are likely wrong ({rules.SUSPECT_RULE}):")
        for suspect in report.suspects[:_SUSPECTS_SHOWN]:
            said = f"labelled {suspect.label}, the teacher says {suspect.teacher_says}"
            line(f"  {suspect.path}: {said}, cosine {suspect.cosine:.3f}")
    advice = report.advice
    error = f"{100 * advice.difference:+.1f} points over the probe, standard error {100 * advice.standard_error:.1f}"
    line(f"\nworth buying: {advice.worth_buying} ({error})\n  {rules.VERDICT_RULE}")
    line(f"image weight: {advice.image_weight:g}\n  {rules.IMAGE_WEIGHT_RULE}")
    line(f"views: {advice.views}\n  {rules.VIEWS_RULE}\n")
    console.print(_offer_table(report))
    spent = format_micro(report.purchase.amount_micro, report.purchase.currency)
    line(
        f"\nThe pilot bought {report.purchase.billed_units:,} queries for {spent}; the cache keeps them for later runs."
    )


def _domain_table(report: PilotReport) -> Table:
    table = Table("domain", "images", "teacher", "probe", "majority", box=None, header_style="bold")
    for domain in report.domains:
        teacher = f"{domain.teacher:.1%} ± {100 * domain.standard_error:.1f}"
        table.add_row(
            plain(domain.domain), f"{domain.images}", teacher, f"{domain.probe:.1%}", f"{domain.majority:.1%}"
        )
    return table


def _offer_table(report: PilotReport) -> Table:
    table = Table("next", "queries", "new", "price at most", "options", box=None, header_style="bold")
    for offer in report.offers:
        price = format_micro(offer.amount_micro, report.purchase.currency)
        table.add_row(offer.name, f"{offer.queries:,}", f"{offer.new:,}", price, plain(offer.options))
    return table
