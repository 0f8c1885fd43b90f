"""The whole road: data set, plan, purchase, align, distill, predict on the unseen domain, export, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import Progress
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.cost import LocalAnswers, Purchase
from vl2v_client.export.report import ReportRow, RunReport, read_report, write_report
from vl2v_client.export.weights import export_bundle
from vl2v_client.recipes.local import LocalSource, local_answers, local_teacher_row
from vl2v_client.recipes.purchase import PlannedRun, PurchaseContext
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.recipes.readings import billable_image_keys, billable_text_keys
from vl2v_client.recipes.run_folder import RunFolder, claim_run_folder
from vl2v_client.recipes.run_images import find_images, keep_images, name_images
from vl2v_client.recipes.scoring import ZERO_SHOT, Score, score_classifier
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.recipes.sources import obtain_data, plan_source, train_along
from vl2v_client.recipes.training import RunData, render_canonical, train_method
from vl2v_client.student.bundle import StudentBundle, StudentCard
from vl2v_client.student.distributed import Ranks, joined_ranks
from vl2v_client.student.methods import METHODS, asks_about_images
from vl2v_client.student.samples import LabelledViews
from vl2v_client.student.stages import EXECUTION_FIELDS, Method, online_queries
from vl2v_client.student.training import TrainingResult
from vl2v_client.teacher.imputation import NO_IMPUTATION


def distill(
    settings: RunSettings,
    source: PurchaseContext | LocalSource,
    out: Path,
    *,
    progress: Progress,
    renders: Path | None = None,
) -> RunReport:
    """Do the whole job, or go on where an earlier call with the same settings and folder stopped.

    Under `torchrun`, the first process does so, the others train with it, and all return its report.

    The target domain's images are opened only after every model is trained and selected; calibration, like selection,
    reads the source domains' hold-out alone.

    Args:
        settings: of the run.
        source: the vendor, or a local teacher.
        out: the run folder.
        progress: told of everything that takes time.
        renders: where rendered views lie that other runs share; by default in the run folder.

    Raises:
        ClientError: see `core.errors`; whatever was bought and trained so far is kept.
    """
    with joined_ranks() as ranks:
        if ranks.is_first:
            return _distill(settings, source, out, ranks, progress, renders)
        return train_along(settings, source, out, ranks, renders)


def _distill(
    settings: RunSettings,
    source: PurchaseContext | LocalSource,
    out: Path,
    ranks: Ranks,
    progress: Progress,
    renders: Path | None,
) -> RunReport:
    planned = plan_source(settings, source, progress)
    with claim_run_folder(out, settings.to_json(planned.plan.teacher), shared_renders=renders) as folder:
        planned, data = obtain_data(settings, planned, source, folder, progress)
        ranks.barrier()
        teacher = planned.plan.teacher
        trained = [train_method(name, settings, data, teacher, folder, progress=progress) for name in settings.methods]

        target = _render_target(planned, folder, progress)
        validation, split = data.training.validation, planned.queries.split
        images = name_images(planned.queries.dataset.root, split, source.cache)
        scores = [
            score_classifier(one.result.method.name, one.result.classifier, validation, target, split, note=one.note)
            for one in trained
        ]
        score, exported = scores[-1], trained[-1].result
        local: LocalAnswers | None = None
        purchase: Purchase | None = None
        if isinstance(source, LocalSource):
            teacher_row = local_teacher_row(source, data, target, split)
            local = local_answers(settings, planned, exported)
        else:
            teacher_row = _teacher_row(planned, data)
            purchase = _purchase(planned, source.cache, settings, exported.method)
        _export(settings, planned, exported, score, data, folder, purchase)
        rows = [teacher_row, *(one.row for one in scores)]
        report = replace(_report(settings, planned, rows, score, data, folder), purchase=purchase, local=local)
        before = find_images(folder)
        if before is not None and before.is_judged_like(images):
            report = _keep_bought_row(report, folder)
        write_report(folder.path, report)
        keep_images(folder, images)
        ranks.barrier()
        return report


def _render_target(planned: PlannedRun, folder: RunFolder, progress: Progress) -> LabelledViews | None:
    samples = planned.queries.split.target
    if not samples:
        return None
    return render_canonical(folder, "target", samples, planned.plan.teacher.image_size, progress)


def _teacher_row(planned: PlannedRun, data: RunData) -> ReportRow:
    """The teacher on the training images' first views, which are bought anyway; its target row costs extra."""
    bought, teacher = data.targets.bought, planned.plan.teacher
    if not bought.size or not bought[:, 0].any():
        return ReportRow(ZERO_SHOT, None, note="no image was bought")
    rows = bought[:, 0]
    logits = zero_shot_logits(
        data.targets.vectors[rows, 0],
        data.text_classifier,
        logit_scale=teacher.logit_scale,
        logit_bias=teacher.logit_bias,
    )
    accuracy = float((logits.argmax(axis=1) == data.training.train.labels[rows]).mean())
    return ReportRow(ZERO_SHOT, None, note=f"{accuracy:.1%} on the training images")


def _export(
    settings: RunSettings,
    planned: PlannedRun,
    exported: TrainingResult,
    score: Score,
    data: RunData,
    folder: RunFolder,
    purchase: Purchase | None,
) -> None:
    teacher, row = planned.plan.teacher, score.row
    texts = exported.method.head == "text"
    scores = {"source_validation": row.source_validation, "target": row.target}
    card = StudentCard(
        student=settings.student_of(settings.method),
        view_size=teacher.image_size,
        class_names=planned.queries.dataset.class_names,
        method=exported.method.name,
        seed=settings.training.seed,
        prompt_templates=settings.choice.prompts.templates if texts else (),
        logit_scale=teacher.logit_scale if texts else None,
        logit_bias=teacher.logit_bias if texts else 0.0,
        temperature=score.temperature,
        teacher={"id": teacher.id, "weights_sha": teacher.weights_sha, "ledger_id": teacher.ledger_id},
        queries={} if purchase is None else {"images": purchase.images, "texts": purchase.texts},
        scores={name: value for name, value in scores.items() if value is not None},
        target_domain=settings.choice.target_domain,
    )
    bundle = StudentBundle(exported.classifier, card)
    export_bundle(folder.student, bundle, check_pixels=data.training.validation.pixels[:, 0])


def _report(
    settings: RunSettings,
    planned: PlannedRun,
    rows: Sequence[ReportRow],
    score: Score,
    data: RunData,
    folder: RunFolder,
) -> RunReport:
    dataset, split = planned.queries.dataset, planned.queries.split
    student = settings.student_of(settings.method)
    counts = {"train": len(split.train), "validation": len(split.validation), "target": len(split.target)}
    return RunReport(
        dataset=dataset.root.name,
        class_names=dataset.class_names,
        source_domains=split.source_domains,
        target_domain=split.target_domain,
        counts=counts,
        rows=tuple(rows),
        purchase=None,
        teacher=planned.plan.teacher.id,
        student=f"{student.architecture} at {student.input.size} px",
        seed=settings.training.seed,
        settings=_settings_table(settings, data),
        confusion=score.shown.confusion.tolist(),
        student_folder=str(folder.student.relative_to(folder.path)),
        by_domain=score.by_domain,
    )


def _purchase(planned: PlannedRun, cache: EmbeddingCache, settings: RunSettings, method: Method) -> Purchase:
    """The queries that the exported method reads, and what was paid for them, whenever that was; the others apart."""
    plan, config, sources = planned.plan, settings.training, len(planned.queries.split.source_domains)
    images, texts = billable_image_keys(method, config, planned), billable_text_keys(method, planned)
    paid, whole = cache.records.paid([*images, *texts]), cache.records.paid([*plan.used_image_keys, *plan.text_keys])
    amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
    return Purchase(
        images=paid["image"].units,
        texts=paid["text"].units,
        amount_micro=amount_micro,
        currency=plan.currency,
        published_queries=online_queries(config, sources) if asks_about_images(method, config) else None,
        other_queries=sum(whole[kind].units - paid[kind].units for kind in whole),
        other_amount_micro=sum(of_kind.amount_micro for of_kind in whole.values()) - amount_micro,
    )


def _keep_bought_row(report: RunReport, folder: RunFolder) -> RunReport:
    """A report on the same images, made again, keeps the teacher's row that `evaluate` bought for it."""
    try:
        before = read_report(folder.path)
    except RunError:
        return report
    bought = next((row for row in before.rows if row.name == ZERO_SHOT and row.target is not None), None)
    if bought is None or report.purchase is None or before.purchase is None:
        return report
    purchase = replace(report.purchase, test_images=before.purchase.test_images)
    rows = tuple(bought if row.name == ZERO_SHOT else row for row in report.rows)
    return replace(report, rows=rows, purchase=purchase)


def _settings_table(settings: RunSettings, data: RunData) -> dict[str, str]:
    """Every value that decided the result, as `config.json` has it, in words."""
    training, spec = settings.training, settings.student_of(settings.method).input
    table = {
        "preset": settings.preset,
        "method": METHODS[settings.method](training).name,
        "views per image": f"{'fresh at every step' if settings.online else settings.choice.rendered_views}, "
        f"{settings.choice.recipe}",
        "styled views": _styled(settings.choice),
        "views answered"
        if settings.local
        else "views bought": f"{int(data.targets.bought.sum())} of {len(data.targets.bought) * settings.choice.views}",
        "views that borrow": _borrowing(settings.choice) if data.targets.bought.any() else "none",
        "selection": _selection(settings),
        "imputation": _imputation(settings, data),
        "prompt": "; ".join(settings.choice.prompts.templates),
        "student input": f"{spec.size} px, mean {_list(spec.mean)}, deviation {_list(spec.std)}",
    }
    for number, stage in enumerate(METHODS[settings.method](training).stages, start=1):
        table[f"stage {number}"] = (
            f"{stage.name}: {' and '.join(stage.trains)} on {stage.objective}, up to {stage.steps:,} steps at "
            f"{stage.learning_rate:g}, image weight {stage.share_of_image(training):g}, leaves {stage.final_weights}"
        )
    values = {name: value for name, value in asdict(training).items() if name not in EXECUTION_FIELDS}
    return table | {name.replace("_", " "): _plain(value) for name, value in values.items()}


def _selection(settings: RunSettings) -> str:
    spending = settings.spending
    if spending.select is None:
        return "none: every image is asked about"
    return f"{spending.select}, within {spending.max_queries:,} queries"


def _imputation(settings: RunSettings, data: RunData) -> str:
    asked = settings.choice.asked_views
    weights, bought = data.targets.weights[:, :asked], data.targets.bought[:, :asked]
    imputed = weights[~bought & (weights > 0)]
    if settings.impute == NO_IMPUTATION or not len(imputed):
        return "none: a view without a target trains on its text"
    return f"{settings.impute}, {len(imputed):,} views, at {imputed.mean():.3f} of a bought one's weight"


def _borrowing(choice: QueryChoice) -> str:
    further = choice.rendered_views - choice.views
    return f"{further} of each image, the mean target of its bought views" if further else "none"


def _styled(choice: QueryChoice) -> str:
    styled = choice.styled_views
    if not styled:
        return "none"
    return f"{len(styled)} of each image, {sum(view < choice.asked_views for view in styled)} of them asked about"


def _plain(value: Any) -> str:
    return _list(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
