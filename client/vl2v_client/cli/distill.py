"""`vl2v-client distill`: the whole job in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from vl2v_client.cli.bars import bars
from vl2v_client.cli.plan import DataRoot, Seed, TargetDomain, Views
from vl2v_client.cli.purchase_options import buying_from, notify
from vl2v_client.cli.vendor_options import (
    DEFAULT_VENDOR_URL,
    ApiKey,
    AsJson,
    CachePath,
    MaxCost,
    MaxQueries,
    ModelId,
    VendorUrl,
    open_cache,
    open_vendor,
)
from vl2v_client.recipes.queries import DEFAULT_VIEWS, QueryChoice

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")]


def distill(
    data: DataRoot,
    target_domain: TargetDomain = None,
    views: Views = DEFAULT_VIEWS,
    seed: Seed = 0,
    student: Annotated[
        str, typer.Option(help="`tiny`, or any timm name, with or without a tag of pretrained weights.")
    ] = "tiny",
    student_weights: Annotated[
        Path | None, typer.Option(help="Local safetensors under timm's names, instead of a pretrained tag.")
    ] = None,
    student_size: Annotated[int | None, typer.Option(min=16, help="Input size in pixels, if not the usual.")] = None,
    align_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the align stage.")] = None,
    distill_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the distill stage.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per source domain and step.")] = None,
    align_learning_rate: Annotated[float | None, typer.Option(help="Of the align stage.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the distill stage.")] = None,
    image_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Weight of the image term, 0 to 1; the text term has the rest.")
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between evaluations (SWAD).")] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last", help="Memory format that suits convolutional students.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Train this beside it, to compare: erm.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/DATA-TARGET-seedN]")] = None,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_queries: MaxQueries = None,
    max_cost: MaxCost = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Buy as much as caps and budget hold; the rest trains on its text alone.")
    ] = False,
    skip_failed: Annotated[bool, typer.Option("--skip-failed", help="Go on without images that fail.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Plan, buy, align, distil, evaluate on the unseen domain, export. Run again to go on where it stopped."""
    from vl2v_client.recipes.distill import distill as run_distill
    from vl2v_client.recipes.settings import RunSettings, training_for
    from vl2v_client.student.spec import resolve_student
    from vl2v_client.student.training import resolve_device

    training = training_for(
        student,
        seed=seed,
        align_steps=align_steps,
        distill_steps=distill_steps,
        batch_size=batch_size,
        align_learning_rate=align_learning_rate,
        distill_learning_rate=learning_rate,
        image_weight=image_weight,
        evaluate_every=evaluate_every,
        channels_last=channels_last,
        device=device,
    )
    settings = RunSettings(
        choice=QueryChoice(data, target_domain=target_domain, views=views, seed=seed),
        student=resolve_student(student, weights=student_weights, size=student_size),
        training=training,
        baselines=tuple(baseline or ()),
    )
    resolve_device(training.device)
    folder = out or Path("runs") / f"{data.resolve().name}-{target_domain or 'all'}-seed{seed}"
    with open_cache(cache) as opened, open_vendor(vendor_url, api_key) as vendor, bars(quiet=as_json) as progress:
        buying = buying_from(
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
        report = run_distill(settings, buying, folder, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        Console().print(Markdown(report.summary()))
        notify(f"The student is in {folder / 'student'}, the whole report in {folder / 'report.md'}.")
