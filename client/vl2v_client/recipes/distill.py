"""The whole road: data set, plan, purchase, align, distill, predict on the unseen domain, export, report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vl2v_client.core.progress import Notify, Progress, no_notice
from vl2v_client.data.view_pixels import canonical_pixels
from vl2v_client.planning.broken import without_broken_target
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.recipes.train_along import train_with_first
from vl2v_client.reports.report import RunReport, write_report
from vl2v_client.runs.before_purchase import plan_tried_run
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.kept_predictions import keep_all_predictions
from vl2v_client.runs.method_training import MethodTraining, RunData, TrainedMethod, exported_last
from vl2v_client.runs.reporting import export_student, keep_bought_row, make_report, score_classifier
from vl2v_client.runs.run_folder import RunFolder, claim_run_folder, skipped_before
from vl2v_client.runs.run_images import find_images, keep_images, name_images
from vl2v_client.runs.run_page_data import write_run_page
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import Source
from vl2v_client.student.train.devices import cpu_threads, joined_ranks
from vl2v_client.student.train.training_data import labelled_views


def distill(
    settings: RunSettings,
    source: Source,
    out: Path,
    *,
    progress: Progress,
    answers: Path | None = None,
    notify: Notify = no_notice,
    is_tried: bool = False,
) -> RunReport:
    """Do the whole job, or go on where an earlier call with the same settings and folder stopped.

    Under `torchrun`, the first process does so, the others train with it, and all return its report. What it bought
    lies in the run folder then, as one file that all of them read: a run that goes on needs neither vendor nor cache.

    The target domain's images are opened only after every model is trained and selected; calibration, like selection,
    reads the source domains' hold-out alone.

    Args:
        settings: Settings of the run.
        source: The vendor, or a local teacher.
        out: Run folder.
        progress: Gets every step that takes time.
        answers: Folder of a local teacher's answers that other runs share; by default in the run folder.
        notify: Gets what the run has reached on the way, and how long what follows will take.
        is_tried: Whether student, device and disk were tried already.

    Raises:
        ClientError: See `core.errors`; whatever was bought and trained so far is kept.
    """
    with joined_ranks() as ranks, cpu_threads(settings.training.threads):
        if not ranks.is_first:
            return train_with_first(settings, source, out, ranks, answers)
        settings = settings if settings.skipped is not None else replace(settings, skipped=skipped_before(out))
        source = BoughtSource.of_run(settings, out) or source
        if is_tried:
            planned = source.plan(settings.choice, progress=progress)
        else:
            record, choice = settings.to_json(None), settings.choice
            planned = plan_tried_run(settings, source, choice, out, record, progress=progress, notify=notify)
        settings = replace(settings, skipped=planned.queries.dataset.skipped)
        with claim_run_folder(out, settings.to_json(planned.plan.teacher), shared_answers=answers) as folder:
            planned, data = source.obtain(settings, planned, folder, progress=progress)
            training = MethodTraining(settings, data, planned.plan.teacher, folder, progress, notify)
            probe = training.probe()
            ranks.barrier()
            trained = exported_last(training.methods(), probe, settings.training.method)
            report = _score(settings, source, planned, data, trained, folder, progress)
            ranks.barrier()
            return report


def _score(
    settings: RunSettings,
    source: Source,
    planned: PlannedRun,
    data: RunData,
    trained: Sequence[TrainedMethod],
    folder: RunFolder,
    progress: Progress,
) -> RunReport:
    """Open the target, score every model on it, export the last, and write the report."""
    if settings.config.data.skip_broken:
        queries, size = planned.queries, planned.plan.teacher.image_size
        split = without_broken_target(queries.split, source.cache, size=size, progress=progress)
        planned = replace(planned, queries=replace(queries, split=split))
    validation, split, dataset = data.training.validation, planned.queries.split, planned.queries.dataset
    images, target = name_images(dataset.root, split, source.cache), None
    if split.target:
        target = labelled_views(canonical_pixels(split.target, validation.size, folder.pixels), split.target)
    scores = []
    for one in trained:
        name, classifier = one.result.method.name, one.result.classifier
        size = folder.view_size(classifier.input.size, planned.plan.teacher.image_size)
        seen, unseen = validation.at(size), None if target is None else target.at(size)
        said, note = one.result.logits, one.note
        scores.append(score_classifier(name, classifier, seen, unseen, split, note=note, said=said, progress=progress))
    teacher_row, of_teacher = source.teacher_row(planned, data, target)
    bill = source.bill(settings, planned, trained[-1].result)
    export_student(settings, planned, trained[-1].result, scores[-1], bill, folder, seen)
    rows = [teacher_row, *(one.row for one in scores)]
    report = make_report(settings, planned, rows, scores[-1], bill, data.targets, trained)
    before = find_images(folder)
    is_again = before is not None and (before.target, before.target_in) == (images.target, images.target_in)
    report = keep_bought_row(report, folder) if is_again else report
    keep_all_predictions(folder, dataset, split, scores, {teacher_row.name: of_teacher}, keep_others=is_again)
    write_report(folder.path, report)
    keep_images(folder, images)
    write_run_page(folder)
    return report
