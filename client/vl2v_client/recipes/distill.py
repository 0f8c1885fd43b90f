"""The whole road: data set, plan, purchase, align, distill, predict on the unseen domain, export, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, RunError
from vl2v_client.core.progress import Progress
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.report import Purchase, ReportRow, RunReport, read_report, write_report
from vl2v_client.export.weights import export_bundle
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.recipes.purchase import Buying, PlannedRun, buy_planned, plan_run
from vl2v_client.recipes.run_folder import RunFolder, claim_run_folder
from vl2v_client.recipes.scoring import ADIP, ERM, ZERO_SHOT, Score, score_classifier
from vl2v_client.recipes.settings import ERM as ERM_BASELINE
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.recipes.training import RunData, load_run_data, render_canonical, train_erm, train_vl2v_adip
from vl2v_client.student.bundle import StudentBundle, StudentCard
from vl2v_client.student.samples import LabelledViews
from vl2v_client.student.stages import TrainingConfig, online_queries
from vl2v_client.student.training import TrainingResult


def distill(settings: RunSettings, buying: Buying, out: Path, *, progress: Progress) -> RunReport:
    """Do the whole job, or go on where an earlier call with the same settings and folder stopped.

    The target domain's images are opened only after every model is trained and selected; calibration, like selection,
    reads the source domains' hold-out alone.

    Raises:
        ClientError: see `core.errors`; whatever was bought and trained so far is kept.
    """
    planned = plan_run(settings.choice, buying, progress=progress)
    with claim_run_folder(out, settings.to_json(planned.plan.teacher)) as folder:
        _buy(planned.plan, buying, progress)
        some_missing = buying.skip_failed or buying.allow_partial
        data = load_run_data(planned, buying.cache, folder, allow_missing=some_missing, progress=progress)
        adip = train_vl2v_adip(settings, data, planned.plan, folder, progress=progress)
        baselines = _train_baselines(settings, planned, data, folder, progress)

        target = _render_target(planned, folder, progress)
        validation, split = data.training.validation, planned.queries.split
        rows = [_teacher_row(planned, data)]
        for name, result, note in baselines:
            rows.append(score_classifier(name, result.classifier, validation, target, split, note=note).row)
        score = score_classifier(ADIP, adip.classifier, validation, target, split)
        rows.append(score.row)

        _export(settings, planned, adip, score, data, folder, buying.cache)
        report = _keep_bought_row(_report(settings, planned, rows, score, data, folder, buying.cache), folder)
        write_report(folder.path, report)
        return report


def _buy(plan: QueryPlan, buying: Buying, progress: Progress) -> None:
    try:
        buy_planned(plan, buying, progress=progress)
    except BudgetExhausted as error:
        if not buying.allow_partial:
            raise
        buying.notify(f"{error}. Images without an embedding train on their class's text alone")


def _train_baselines(
    settings: RunSettings, planned: PlannedRun, data: RunData, folder: RunFolder, progress: Progress
) -> list[tuple[str, TrainingResult, str]]:
    if ERM_BASELINE not in settings.baselines:
        return []
    classes = len(planned.queries.dataset.class_names)
    rate, result = train_erm(settings, data, folder, classes=classes, progress=progress)
    return [(ERM, result, f"learning rate {rate:g}, chosen on source validation")]


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
    adip: TrainingResult,
    score: Score,
    data: RunData,
    folder: RunFolder,
    cache: EmbeddingCache,
) -> None:
    teacher, row = planned.plan.teacher, score.row
    scores = {"source_validation": row.source_validation, "target": row.target}
    card = StudentCard(
        student=settings.student,
        view_size=teacher.image_size,
        class_names=planned.queries.dataset.class_names,
        method=ADIP,
        seed=settings.choice.seed,
        prompt_templates=settings.choice.prompts.templates,
        logit_scale=teacher.logit_scale,
        logit_bias=teacher.logit_bias,
        temperature=score.temperature,
        teacher={"id": teacher.id, "weights_sha": teacher.weights_sha, "ledger_id": teacher.ledger_id},
        queries=_paid(planned.plan, cache)[0],
        scores={name: value for name, value in scores.items() if value is not None},
        target_domain=settings.choice.target_domain,
    )
    bundle = StudentBundle(adip.classifier, card)
    export_bundle(folder.student, bundle, check_pixels=data.training.validation.pixels[:, 0])


def _report(
    settings: RunSettings,
    planned: PlannedRun,
    rows: Sequence[ReportRow],
    score: Score,
    data: RunData,
    folder: RunFolder,
    cache: EmbeddingCache,
) -> RunReport:
    dataset, split = planned.queries.dataset, planned.queries.split
    counts = {"train": len(split.train), "validation": len(split.validation), "target": len(split.target)}
    return RunReport(
        dataset=dataset.root.name,
        class_names=dataset.class_names,
        source_domains=split.source_domains,
        target_domain=split.target_domain,
        counts=counts,
        rows=tuple(rows),
        purchase=_purchase(planned.plan, cache, settings.training, sources=len(split.source_domains)),
        teacher=planned.plan.teacher.id,
        student=f"{settings.student.architecture} at {settings.student.input.size} px",
        seed=settings.choice.seed,
        settings=_settings_table(settings, data),
        confusion=score.shown.confusion.tolist(),
        student_folder=str(folder.student.relative_to(folder.path)),
    )


def _paid(plan: QueryPlan, cache: EmbeddingCache) -> tuple[dict[str, int], int]:
    """Queries of this plan that are paid for, `images` and `texts`, and what was paid, whenever that was."""
    paid = cache.records.paid([*plan.image_keys, *plan.text_keys])
    queries = {"images": paid["image"].units, "texts": paid["text"].units}
    return queries, sum(of_kind.amount_micro for of_kind in paid.values())


def _purchase(plan: QueryPlan, cache: EmbeddingCache, training: TrainingConfig, *, sources: int) -> Purchase:
    queries, amount_micro = _paid(plan, cache)
    return Purchase(
        **queries,
        amount_micro=amount_micro,
        currency=plan.currency,
        published_queries=online_queries(training, sources),
    )


def _keep_bought_row(report: RunReport, folder: RunFolder) -> RunReport:
    """A report made again keeps the teacher's row that `evaluate` bought for it."""
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
    training = settings.training
    return {
        "views per image": str(settings.choice.views),
        "prompt": "; ".join(settings.choice.prompts.templates),
        "image weight": str(training.image_weight),
        "align steps, learning rate": f"{training.align_steps}, {training.align_learning_rate:g}",
        "distill steps, learning rate": f"{training.distill_steps}, {training.distill_learning_rate:g}",
        "batch": f"{training.batch_size} per source domain",
        "weights": "align: best on source validation; distill and ERM: SWAD average",
        "views bought": f"{int(data.targets.bought.sum())} of {data.targets.bought.size}",
    }
