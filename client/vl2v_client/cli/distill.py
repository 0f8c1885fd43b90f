"""`vl2v-client distill`: the whole job in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from vl2v_client.cli.local_options import (
    LocalPrecision,
    LocalTeacherName,
    LocalWeights,
    Online,
    check_student_options,
    load_teacher,
    local_settings,
    open_source,
)
from vl2v_client.cli.plan import DataRoot, Prompts, Seed, TargetDomain, ViewRecipeName, ViewsIfStored
from vl2v_client.cli.purchase_options import notify
from vl2v_client.cli.spending_options import (
    Impute,
    MaxQueries,
    Select,
    spending_from,
)
from vl2v_client.cli.training_options import (
    AlignLearningRate,
    AlignSteps,
    BatchSize,
    BFloat16,
    Carry,
    ChannelsLast,
    Compile,
    Device,
    DistillSteps,
    EvaluateEvery,
    ImageWeight,
    Interpolate,
    LabelWeight,
    LearningRate,
    LoaderWorkers,
    Mixup,
    OwnNormalisation,
    Preset,
    StudentName,
    StudentSize,
    StudentWeights,
    TrainViews,
)
from vl2v_client.cli.vendor_options import (
    DEFAULT_VENDOR_URL,
    ApiKey,
    AsJson,
    CachePath,
    MaxCost,
    ModelId,
    SkipFailed,
    VendorUrl,
)
from vl2v_client.recipes.preset_views import choose_views
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.student.methods import METHODS, VL2V_ADIP, check_effects, check_label_weight
from vl2v_client.teacher.prompts import prompt_templates

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")]


def distill(
    data: DataRoot,
    target_domain: TargetDomain = None,
    views: ViewsIfStored = None,
    train_views: TrainViews = None,
    view_recipe: ViewRecipeName = None,
    prompt: Prompts = None,
    seed: Seed = 0,
    student: StudentName = "tiny",
    student_weights: StudentWeights = None,
    student_size: StudentSize = None,
    align_steps: AlignSteps = None,
    distill_steps: DistillSteps = None,
    batch_size: BatchSize = None,
    align_learning_rate: AlignLearningRate = None,
    learning_rate: LearningRate = None,
    image_weight: ImageWeight = None,
    label_weight: LabelWeight = None,
    mixup: Mixup = None,
    evaluate_every: EvaluateEvery = None,
    channels_last: ChannelsLast = None,
    device: Device = None,
    bfloat16: BFloat16 = None,
    compile_student: Compile = None,
    loader_workers: LoaderWorkers = None,
    method: Annotated[str, typer.Option(help=f"How the student learns: {', '.join(METHODS)}.")] = VL2V_ADIP,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Another of these methods, trained beside it to compare. Repeatable.")
    ] = None,
    preset: Preset = "default",
    own_normalisation: OwnNormalisation = None,
    carry: Carry = None,
    interpolate: Interpolate = None,
    local_teacher: LocalTeacherName = None,
    local_weights: LocalWeights = None,
    local_precision: LocalPrecision = "fp32",
    online: Online = False,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/DATA-TARGET-seedN)")] = None,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_queries: MaxQueries = None,
    select: Select = None,
    impute: Impute = "none",
    max_cost: MaxCost = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Buy as much as caps and budget hold; the rest trains on its text alone.")
    ] = False,
    skip_failed: SkipFailed = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Plan, buy, align, distil, evaluate on the unseen domain, export. Run again to go on where it stopped."""
    from vl2v_client.recipes.distill import distill as run_distill
    from vl2v_client.recipes.presets import choose_student, choose_training
    from vl2v_client.recipes.settings import RunSettings
    from vl2v_client.student.distributed import is_first_process
    from vl2v_client.student.training import resolve_device

    training = choose_training(
        preset,
        student,
        data,
        seed=seed,
        align_steps=align_steps,
        distill_steps=distill_steps,
        batch_size=batch_size,
        align_learning_rate=align_learning_rate,
        distill_learning_rate=learning_rate,
        image_weight=image_weight,
        label_weight=label_weight,
        mixup=mixup,
        evaluate_every=evaluate_every,
        channels_last=channels_last,
        final_weights=carry,
        interpolate=interpolate,
        device=device,
        bfloat16=bfloat16,
        compile=compile_student,
        workers=loader_workers,
    )
    resolve_device(training.device)
    baselines = tuple(baseline or ())
    teacher = load_teacher(local_teacher, local_weights, local_precision, training.device)
    settings = RunSettings(
        choice=QueryChoice(
            data,
            target_domain=target_domain,
            seed=seed,
            prompts=prompt_templates(prompt),
            **choose_views(
                preset,
                views,
                recipe=view_recipe,
                train_views=train_views,
                online=online,
            ),
        ),
        student=choose_student(
            preset, student, weights=student_weights, size=student_size, own_normalisation=own_normalisation
        ),
        training=training,
        method=method,
        baselines=baselines,
        preset=preset,
        spending=spending_from(select, max_queries),
        impute=impute,
        **local_settings(teacher, (*baselines, method), online=online),
    )
    check_student_options(
        settings.methods,
        preset,
        student,
        student_weights=student_weights,
        student_size=student_size,
        own_normalisation=own_normalisation,
    )
    check_label_weight(label_weight, settings.methods)
    check_effects(
        settings.methods,
        align_steps=align_steps,
        align_learning_rate=align_learning_rate,
        distill_learning_rate=learning_rate,
        image_weight=image_weight,
    )
    folder = out or Path("runs") / f"{data.resolve().name}-{target_domain or 'all'}-seed{seed}"
    with open_source(
        teacher,
        cache,
        vendor_url,
        api_key,
        as_json=as_json,
        model=model,
        max_queries=max_queries,
        max_cost=max_cost,
        partial=partial,
        skip_failed=skip_failed,
        yes=yes,
    ) as (source, progress):
        report = run_distill(settings, source, folder, progress=progress)
    if not is_first_process():
        return
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        Console().print(Markdown(report.summary()))
        notify(f"The student is in {folder / 'student'}, the whole report in {folder / 'report.md'}.")
