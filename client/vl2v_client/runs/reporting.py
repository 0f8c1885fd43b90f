"""What is written when a run is done: scores on the hold-out and the unseen domain, predictions, student and report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.splits import Split
from vl2v_client.data.views import styled_views
from vl2v_client.evaluation.accuracy import (
    Choices,
    Evaluation,
    calibration_error,
    choose,
    evaluate,
    fit_temperature,
    negative_log_likelihood,
)
from vl2v_client.export.weights import export_bundle
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import Bill, LocalAnswers, Purchase, percent
from vl2v_client.reports.report import CHANCE, MAJORITY, ZERO_SHOT, DomainRow, ReportRow, RunReport, read_report
from vl2v_client.runs.method_training import TrainedMethod
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.loss.methods import METHODS, Method
from vl2v_client.student.model.classifier import StudentBundle, StudentClassifier
from vl2v_client.student.model.spec import StudentCard
from vl2v_client.student.train.closed_form import PROBE
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews
from vl2v_client.teacher.imputation import NO_IMPUTATION
from vl2v_client.teacher.targets import ImageTargets


@dataclass(frozen=True)
class Score:
    """A classifier's row in the report, and what the card and the confusion table need.

    Attributes:
        logits: On source validation, `[M, C]`.
        temperature: Fitted on them.
        shown: The evaluation that the report shows in full: the target's, else source validation's.
        by_domain: Rows of the source domains on the hold-out, then of the target.
        on_validation: Predictions for source validation, in the split's order.
        on_target: Those for the target's images, likewise; None without a target.
    """

    row: ReportRow
    logits: NDArray[np.float32]
    temperature: float
    shown: Evaluation
    by_domain: tuple[DomainRow, ...]
    on_validation: Choices
    on_target: Choices | None = None


def score_classifier(
    name: str,
    classifier: StudentClassifier,
    validation: LabelledViews,
    target: LabelledViews | None,
    split: Split,
    *,
    note: str = "",
    said: NDArray[np.float32] | None = None,
    progress: Progress = silent,
) -> Score:
    """Score a trained student on the hold-out, on which alone its temperature is fitted, and on the target if any.

    `said` are its logits on the hold-out, if it was asked already.
    """
    on_validation = classifier.logits(validation.first(), progress=progress) if said is None else said
    temperature = fit_temperature(on_validation, validation.labels)
    source = evaluate(on_validation, validation.labels, validation.domains)
    logits, labels, shown, judged = on_validation, validation.labels, source, [(source, True)]
    if target is not None:
        logits, labels = classifier.logits(target.first(), progress=progress), target.labels
        shown = evaluate(logits, labels, target.domains)
        judged.append((shown, False))
    in_table = logits.argmax(axis=1)[: len(split.target_in)] == labels[: len(split.target_in)]
    row = ReportRow(
        name=name,
        source_validation=source.domain_mean,
        target=None if target is None else shown.accuracy,
        target_in=None if target is None else float(in_table.mean()),
        nll=negative_log_likelihood(logits, labels, temperature),
        calibration_error=calibration_error(logits, labels, temperature),
        uncalibrated_error=calibration_error(logits, labels),
        note=note,
    )
    by_domain = tuple(
        DomainRow(domain, seen, count.images, count.accuracy)
        for scored, seen in judged
        for domain, count in scored.by_domain.items()
    )
    on_target = None if target is None else choose(logits, temperature)
    return Score(row, on_validation, temperature, shown, by_domain, choose(on_validation, temperature), on_target)


def zero_shot_row(logits: NDArray[np.float32], labels: NDArray[np.int64], *, target_in: int) -> ReportRow:
    """Return the teacher's row on the target domain, whose first `target_in` images DomainBed's tables use."""
    right = logits.argmax(axis=1) == labels
    return ReportRow(ZERO_SHOT, None, target=float(right.mean()), target_in=float(right[:target_in].mean()))


def export_student(
    settings: RunSettings,
    planned: PlannedRun,
    exported: TrainingResult,
    score: Score,
    bill: Bill,
    folder: RunFolder,
    validation: LabelledViews,
) -> None:
    """Write the student and its card, read them back, and compare how both judge the hold-out at the student's size.

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
    export_bundle(folder.path / "student", bundle, check_pixels=validation.first(), logits=score.logits)


def _label_rows(split: Split, class_names: Sequence[str]) -> tuple[ReportRow, ReportRow]:
    """Return the rows of chance, and of the class that most training images have, the first if several do."""
    majority = int(np.bincount([sample.class_index for sample in split.train]).argmax())

    def constant(samples: Sequence[Sample]) -> Evaluation:
        logits = np.eye(len(class_names), dtype=np.float32)[[majority] * len(samples)]
        labels = np.array([sample.class_index for sample in samples])
        return evaluate(logits, labels, [sample.domain for sample in samples])

    seen, parts, chance = constant(split.validation), (split.target, split.target_in), 1 / len(class_names)
    whole, inside = (constant(part).accuracy if part else None for part in parts)
    by_domain = ", ".join(f"{domain} {percent(count.accuracy)}" for domain, count in seen.by_domain.items())
    of_target = chance if split.target else None
    of_majority = ReportRow(MAJORITY, seen.domain_mean, whole, inside, note=f"{class_names[majority]}: {by_domain}")
    return ReportRow(CHANCE, chance, of_target, of_target), of_majority


def make_report(
    settings: RunSettings,
    planned: PlannedRun,
    rows: Sequence[ReportRow],
    score: Score,
    bill: Bill,
    targets: ImageTargets,
    trained: Sequence[TrainedMethod],
) -> RunReport:
    """Make the report of a run from the teacher's row and one of each student, the exported one last."""
    method = next((one for one in trained if one.name == settings.training.method), None)
    of_method = None if method is None else method.result
    dataset, split = planned.queries.dataset, planned.queries.split
    student = settings.exported_student
    counts = {"train": len(split.train), "validation": len(split.validation), "target": len(split.target)}
    return RunReport(
        dataset=dataset.root.name,
        class_names=dataset.class_names,
        source_domains=split.source_domains,
        target_domain=split.target_domain,
        counts=counts,
        rows=(rows[0], *_label_rows(split, dataset.class_names), *rows[1:]),
        purchase=bill if isinstance(bill, Purchase) else None,
        local=bill if isinstance(bill, LocalAnswers) else None,
        teacher=planned.plan.teacher.id,
        student=f"{student.architecture} at {student.input.size} px",
        seed=settings.training.seed,
        settings=_settings_table(settings, targets, None if of_method is None else of_method.method),
        confusion=score.shown.confusion.tolist(),
        student_folder="student",
        by_domain=score.by_domain,
        probed=of_method is not None and any(one.result.method is PROBE for one in trained),
        last_stage=None
        if of_method is None
        else LastStage(of_method.stages[-1].swad_steps, of_method.history[-1]["swad"], of_method.by_weights),
        estimate=None if of_method is None else of_method.estimate,
        trained_in="" if method is None else method.place or method.name,
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


def _settings_table(settings: RunSettings, targets: ImageTargets, trained: Method | None) -> dict[str, str]:
    """Return every value that decided the result, as `config.json` has it, in words.

    The method is as it was `trained`, of which a quick run leaves the last stages out.
    """
    training, purchase, choice = settings.training, settings.config.purchase, settings.choice
    method, spec = trained or METHODS[training.method](training), settings.exported_student.input
    styled = styled_views(choice.rendered_views, choice.recipe)
    asked_styled = sum(view < choice.asked_views for view in styled)
    weights, bought = targets.weights[:, : choice.asked_views], targets.bought[:, : choice.asked_views]
    imputed = weights[~bought & (weights > 0)]
    lender = "mean target of its bought views" if training.trust == "all" else "canonical view's target"
    answered = "views bought" if purchase.local_teacher is None else "views answered"
    table = {
        "preset": training.preset,
        "method": method.name,
        "views per image": f"{'fresh at every step' if purchase.online else choice.rendered_views}, {choice.recipe}",
        "styled views": f"{len(styled)} of each image, {asked_styled} of them asked about" if styled else "none",
        answered: f"{int(targets.bought.sum())} of {len(targets.bought) * choice.views}",
        "views that borrow": f"{targets.borrowing:,} of {targets.bought.size:,}, the {lender}"
        if targets.borrowing
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
        if value is not None:
            table.setdefault(name.replace("_", " "), _plain(value))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
