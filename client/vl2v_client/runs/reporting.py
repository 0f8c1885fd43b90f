"""What is written when a run is done: the student with its card, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vl2v_client.core.errors import RunError
from vl2v_client.data.views import styled_views
from vl2v_client.export.pages import Bill, LocalAnswers, Purchase
from vl2v_client.export.report import ReportRow, RunReport, read_report
from vl2v_client.export.weights import export_bundle
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.scoring import ZERO_SHOT, Score
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.loss.methods import METHODS
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard
from vl2v_client.student.train.labelled_views import LabelledViews
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.teacher.targets import NO_IMPUTATION, ImageTargets


def export_student(
    settings: RunSettings,
    planned: PlannedRun,
    exported: TrainingResult,
    score: Score,
    bill: Bill,
    folder: RunFolder,
    validation: LabelledViews,
) -> None:
    """Write the student and its card, read them back, and compare.

    Args:
        settings: Settings of the run.
        planned: Its queries and plan.
        exported: The trained student.
        score: Its score.
        bill: What its answers cost.
        folder: Run folder.
        validation: Views at the size that the student is fed, which both must judge alike.

    Raises:
        CacheError: The folder cannot be written.
        RunError: What was read back is not what was scored.
    """
    teacher, row = planned.plan.teacher, score.row
    texts = exported.method.head == "text"
    scores = {"source_validation": row.source_validation, "target": row.target}
    card = StudentCard(
        student=settings.exported_student,
        view_size=validation.size,
        class_names=planned.queries.dataset.class_names,
        method=exported.method.name,
        seed=settings.training.seed,
        prompt_templates=settings.choice.prompts.templates if texts else (),
        logit_scale=teacher.logit_scale if texts else None,
        logit_bias=teacher.logit_bias if texts else 0.0,
        temperature=score.temperature,
        teacher={"id": teacher.id, "weights_sha": teacher.weights_sha, "ledger_id": teacher.ledger_id},
        queries={"images": bill.images, "texts": bill.texts} if isinstance(bill, Purchase) else {},
        scores={name: value for name, value in scores.items() if value is not None},
        target_domain=settings.choice.target_domain,
    )
    bundle = StudentBundle(exported.classifier, card)
    export_bundle(folder.student, bundle, check_pixels=validation.first())


def make_report(
    settings: RunSettings,
    planned: PlannedRun,
    rows: Sequence[ReportRow],
    score: Score,
    bill: Bill,
    targets: ImageTargets,
    folder: RunFolder,
) -> RunReport:
    """Make the report of a run.

    Args:
        settings: Settings of the run.
        planned: Its queries and plan.
        rows: The teacher's row, then one of each method.
        score: Score of the exported student.
        bill: What its answers cost.
        targets: Targets that it trained on.
        folder: Run folder.
    """
    dataset, split = planned.queries.dataset, planned.queries.split
    student = settings.exported_student
    counts = {"train": len(split.train), "validation": len(split.validation), "target": len(split.target)}
    return RunReport(
        dataset=dataset.root.name,
        class_names=dataset.class_names,
        source_domains=split.source_domains,
        target_domain=split.target_domain,
        counts=counts,
        rows=tuple(rows),
        purchase=bill if isinstance(bill, Purchase) else None,
        local=bill if isinstance(bill, LocalAnswers) else None,
        teacher=planned.plan.teacher.id,
        student=f"{student.architecture} at {student.input.size} px",
        seed=settings.training.seed,
        settings=_settings_table(settings, targets),
        confusion=score.shown.confusion.tolist(),
        student_folder=str(folder.student.relative_to(folder.path)),
        by_domain=score.by_domain,
    )


def keep_bought_row(report: RunReport, folder: RunFolder) -> RunReport:
    """Keep the teacher's row that `evaluate` bought for an earlier report on the same images."""
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


def _settings_table(settings: RunSettings, targets: ImageTargets) -> dict[str, str]:
    """Return every value that decided the result, as `config.json` has it, in words."""
    training, purchase, choice = settings.training, settings.config.purchase, settings.choice
    method, spec = METHODS[training.method](training), settings.exported_student.input
    styled, further = styled_views(choice.rendered_views, choice.recipe), choice.rendered_views - choice.views
    asked_styled = sum(view < choice.asked_views for view in styled)
    weights, bought = targets.weights[:, : choice.asked_views], targets.bought[:, : choice.asked_views]
    imputed = weights[~bought & (weights > 0)]
    answered = "views bought" if purchase.local_teacher is None else "views answered"
    table = {
        "preset": training.preset,
        "method": method.name,
        "views per image": f"{'fresh at every step' if purchase.online else choice.rendered_views}, {choice.recipe}",
        "styled views": f"{len(styled)} of each image, {asked_styled} of them asked about" if styled else "none",
        answered: f"{int(targets.bought.sum())} of {len(targets.bought) * choice.views}",
        "views that borrow": f"{further} of each image, the mean target of its bought views"
        if further and targets.bought.any()
        else "none",
        "selection": "none: every image is asked about"
        if purchase.select is None
        else f"{purchase.select}, within {purchase.max_queries:,} queries",
        "imputation": "none: a view without a target trains on its text"
        if purchase.impute == NO_IMPUTATION or not len(imputed)
        else f"{purchase.impute}, {len(imputed):,} views, at {imputed.mean():.3f} of a bought one's weight",
        "prompt": "; ".join(choice.prompts.templates),
        "student input": f"{spec.size} px, mean {_plain(spec.mean)}, deviation {_plain(spec.std)}",
    }
    for number, stage in enumerate(method.stages, start=1):
        table[f"stage {number}"] = (
            f"{stage.name}: {' and '.join(stage.trains)} on {stage.objective}, up to {stage.steps:,} steps at "
            f"{stage.learning_rate:g}, image weight {stage.share_of_image(training):g}, leaves {stage.final_weights}"
        )
    for name, value in training.result_options().items():
        table.setdefault(name.replace("_", " "), _plain(value))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
