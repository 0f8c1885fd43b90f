"""`vl2v-client sweep`: leave one domain out, over all targets and several seeds, with one purchase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from vl2v_client.cli.distill import Yes
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
from vl2v_client.cli.plan import DataRoot, Prompts, ViewRecipeName, ViewsIfStored
from vl2v_client.cli.purchase_options import notify
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
    MaxQueries,
    ModelId,
    SkipFailed,
    VendorUrl,
)
from vl2v_client.recipes.preset_views import choose_views
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.student.methods import ERM, METHODS, VL2V_ADIP, check_effects, check_label_weight
from vl2v_client.teacher.prompts import prompt_templates


def sweep(
    data: DataRoot,
    target_domain: Annotated[
        list[str] | None, typer.Option(help="Domain to hold out; every one in turn if left out. Repeatable.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of a training. Repeatable. (default: 0)")] = None,
    data_seed: Annotated[int, typer.Option(help="Of the split and the views, the same for all trainings.")] = 0,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"How students learn: {', '.join(METHODS)}. Repeatable. (default: {ERM}, {VL2V_ADIP})"),
    ] = None,
    views: ViewsIfStored = None,
    train_views: TrainViews = None,
    view_recipe: ViewRecipeName = None,
    prompt: Prompts = None,
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
    preset: Preset = "default",
    own_normalisation: OwnNormalisation = None,
    carry: Carry = None,
    interpolate: Interpolate = None,
    local_teacher: LocalTeacherName = None,
    local_weights: LocalWeights = None,
    local_precision: LocalPrecision = "fp32",
    online: Online = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs. (default: runs/DATA-sweep)")] = None,
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    model: ModelId = None,
    cache: CachePath = None,
    max_queries: MaxQueries = None,
    max_cost: MaxCost = None,
    skip_failed: SkipFailed = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Hold out each domain in turn, with several seeds and methods; buy once for all. Run again to go on."""
    from vl2v_client.recipes.presets import choose_student, choose_training
    from vl2v_client.recipes.settings import RunSettings
    from vl2v_client.recipes.sweep import SweepSettings
    from vl2v_client.recipes.sweep import sweep as run_sweep
    from vl2v_client.student.training import resolve_device

    training = choose_training(
        preset,
        student,
        data,
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
    methods = tuple(method or (ERM, VL2V_ADIP))
    teacher = load_teacher(local_teacher, local_weights, local_precision, training.device)
    run = RunSettings(
        choice=QueryChoice(
            data,
            seed=data_seed,
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
        method=methods[0],
        preset=preset,
        **local_settings(teacher, methods, online=online),
    )
    settings = SweepSettings(run, tuple(target_domain or ()), tuple(seed or (0,)), methods)
    check_student_options(
        methods,
        preset,
        student,
        student_weights=student_weights,
        student_size=student_size,
        own_normalisation=own_normalisation,
    )
    check_label_weight(label_weight, method or ())
    check_effects(
        methods,
        align_steps=align_steps,
        align_learning_rate=align_learning_rate,
        distill_learning_rate=learning_rate,
        image_weight=image_weight,
    )
    folder = out or Path("runs") / f"{data.resolve().name}-sweep"
    with open_source(
        teacher,
        cache,
        vendor_url,
        api_key,
        as_json=as_json,
        model=model,
        max_queries=max_queries,
        max_cost=max_cost,
        skip_failed=skip_failed,
        yes=yes,
    ) as (source, progress):
        report = run_sweep(settings, source, folder, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        Console().print(Markdown(report.to_markdown()))
        notify(f"Each student is in its run folder under {folder}, the report in {folder / 'report.md'}.")
