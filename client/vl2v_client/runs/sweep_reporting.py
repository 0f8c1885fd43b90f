"""The report of a sweep, from the reports of its runs."""

import shutil

from vl2v_client.core.errors import RunError
from vl2v_client.reports.report import ZERO_SHOT, RunReport
from vl2v_client.reports.sweep_page import write_sweep
from vl2v_client.reports.sweep_report import Outcome, SweepReport
from vl2v_client.runs.run_folder import FEATURES_FOLDER
from vl2v_client.runs.sweep_purchase import BoughtSweep
from vl2v_client.runs.sweep_runs import remove_answers


def write_report_of(bought: BoughtSweep) -> SweepReport:
    """Write the report of a sweep whose runs are done, and remove what only they read.

    Raises:
        RunError: The report of a run has no accuracy.
        CacheError: The folder cannot be written.
    """
    settings, source, shared, run = bought.settings, bought.source, bought.planned, bought.settings.run
    reports = {one.key: found for one in bought.runs if (found := one.report()) is not None}
    purchase, queries = source.sweep_bill(run.training, settings.methods, shared)
    zero_shot = {key[0]: row for key, report in reports.items() for row in report.rows if row.name == ZERO_SHOT}
    report = SweepReport(
        dataset=shared.queries.dataset.root.name,
        targets=settings.targets,
        seeds=settings.seeds,
        teacher=shared.plan.teacher.id,
        student=f"{run.student.architecture} at {run.student.input.size} px",
        views=settings.describe_views(),
        outcomes=tuple(_outcome(key, report) for key, report in reports.items()),
        teacher_target_in=source.teacher_accuracy(shared, settings.targets, zero_shot),
        purchase=purchase,
        queries=queries,
        published_queries=bought.published_queries,
    )
    write_sweep(bought.folder.path, report)
    remove_answers(bought.runs)
    shutil.rmtree(bought.folder.path / FEATURES_FOLDER, ignore_errors=True)
    return report


def _outcome(run: tuple[str, int, str], report: RunReport) -> Outcome:
    target, seed, _ = run
    row = report.rows[-1]
    if row.source_validation is None or row.target is None or row.target_in is None:
        raise RunError(f"the report of target {target}, seed {seed} has no accuracy: remove its folder, and run again")
    return Outcome(row.name, target, seed, row.source_validation, row.target_in, row.target)
