"""Score a finished run's student by domain, on its own data set or another; the teacher beside it, if bought."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.context import PurchaseContext, meet
from vl2v_client.core.errors import DataError, UsageError, VendorChanged
from vl2v_client.core.progress import Progress
from vl2v_client.data.view_pixels import canonical_pixels
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import choose, evaluate
from vl2v_client.export.weights import load_bundle
from vl2v_client.local.teacher import LOCAL_LEDGER
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.reports.report import ZERO_SHOT, ReportRow, read_report, write_report
from vl2v_client.runs.folder_lock import locked
from vl2v_client.runs.kept_predictions import keep_predictions
from vl2v_client.runs.reporting import zero_shot_row
from vl2v_client.runs.run_folder import RunFolder, open_run_folder
from vl2v_client.runs.run_images import (
    UNSEEN,
    DomainScore,
    RecordedConfig,
    ScoredImages,
    choose_images,
    recorded_config,
)
from vl2v_client.runs.run_page_data import write_run_page
from vl2v_client.runs.teacher_answers import ask_teacher
from vl2v_client.student.train.training_data import labelled_views
from vl2v_client.teacher.text_classifier import PromptTemplateSet, zero_shot_logits


def evaluate_run(
    out: Path, *, data: Path | None, context: PurchaseContext | None, progress: Progress
) -> tuple[list[DomainScore], bool]:
    """Score the student in `out`, read back from its files.

    Args:
        out: Run folder.
        data: Another data set with the same classes, of which every image is scored; `None` is the run's own, of which
            the source domains' hold-out and the whole target domain are scored, as they were when it was trained.
        context: Whom to ask about the unseen images too; `None` spends nothing.
        progress: Gets every step that takes time.

    Returns:
        A row of accuracies for each domain and role, and whether the run's report now holds the teacher's row.

    Raises:
        UsageError: The teacher is to be bought, and the run has its row from a local one.
        RunError: `out` is not a finished run, or another process is at work in it.
        DataError: The data set cannot be used, has other classes, or has lost or changed images of the run.
    """
    folder = open_run_folder(out)
    with locked(out):
        bundle, config = load_bundle(out / "student"), recorded_config(folder)
        classes = bundle.card.class_names
        images = choose_images(folder, config.root, bundle.card, data)
        views = labelled_views(canonical_pixels(images.samples, bundle.card.view_size), images.samples)
        logits = bundle.classifier.logits(views.first(), progress=progress)
        is_unseen = np.array(images.roles) == UNSEEN
        choices = {bundle.card.method: choose(logits[is_unseen], bundle.card.temperature)}
        teacher = None
        if context is not None:
            of_teacher = _teacher_logits(images, config, classes, context, progress)
            labels = views.labels[is_unseen]
            teacher = evaluate(of_teacher, labels, [sample.domain for sample in images.unseen])
            choices[ZERO_SHOT] = choose(of_teacher)
            if images.record is not None:
                row = zero_shot_row(of_teacher, labels, target_in=images.record.target_in)
                _add_teacher_row(folder, row, len(labels))
        if images.record is not None:
            keep_predictions(folder, images.root, images.unseen, classes, choices, keep_others=True)
            if teacher is not None:
                write_run_page(folder)
        scores = list(images.scores(logits.argmax(axis=1) == views.labels, teacher))
        return scores, teacher is not None and images.record is not None


def _teacher_logits(
    images: ScoredImages, config: RecordedConfig, classes: Sequence[str], context: PurchaseContext, progress: Progress
) -> NDArray[np.float32]:
    """Return the zero-shot logits `[N, C]` of the run's teacher on the unseen images; buy what the cache lacks."""
    if images.record is not None and config.ledger_id == LOCAL_LEDGER:
        raise UsageError("the report has the local teacher's row already: leave the teacher out, or name other data")
    if not images.unseen:
        raise DataError(
            "the student trained on all of these images or was chosen by them, so there is none to ask the teacher "
            "about: give other images as data.root, or hold a domain out when it is trained"
        )
    teacher = meet(context)
    if (teacher.id, teacher.weights_sha) != (config.teacher_id, config.weights_sha):
        raise VendorChanged(
            f"the student's teacher was {config.teacher_id}, and the vendor serves {teacher.id} with other "
            "weights; nothing was bought: name the teacher with purchase.model, or use the vendor that has it"
        )
    prompts = PromptTemplateSet(config.prompts).prompts(classes)
    queries = [ImageQuery(sample, canonical_view()) for sample in images.unseen]
    embeddings, classifier, _ = ask_teacher(queries, prompts, teacher, context, progress=progress)
    return zero_shot_logits(embeddings, classifier, logit_scale=teacher.logit_scale, logit_bias=teacher.logit_bias)


def _add_teacher_row(folder: RunFolder, row: ReportRow, test_images: int) -> None:
    report = read_report(folder.path)
    rows = [replace(row, note=old.note) if old.name == ZERO_SHOT else old for old in report.rows]
    purchase = None if report.purchase is None else replace(report.purchase, test_images=test_images)
    write_report(folder.path, replace(report, rows=tuple(rows), purchase=purchase))
