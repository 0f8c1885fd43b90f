"""Leave one domain out, over all targets and several seeds: one purchase, then a run folder for each student."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.core.progress import Notify, Progress, no_notice, renamed
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.recipes.distill import distill
from vl2v_client.reports.pages import counted
from vl2v_client.reports.report import ZERO_SHOT, RunReport, read_report
from vl2v_client.reports.sweep_page import write_sweep
from vl2v_client.reports.sweep_report import Outcome, SweepReport
from vl2v_client.runs.before_purchase import plan_tried_run
from vl2v_client.runs.config_record import TEACHER_SIZE_FORMAT
from vl2v_client.runs.run_folder import claim_run_folder, skipped_before
from vl2v_client.runs.settings import SweepSettings
from vl2v_client.runs.source import Source
from vl2v_client.student.loss.methods import online_queries

Run = tuple[str, int, str]  # target, seed and method


def sweep(
    settings: SweepSettings, source: Source, out: Path, *, progress: Progress, notify: Notify = no_notice
) -> SweepReport:
    """Buy once, then train and score every student; called again, it goes on where it stopped.

    Buying for several targets buys training images of every domain; a run reads those of its source domains alone,
    and opens its own target after training and selection.

    Args:
        settings: What to run.
        source: The vendor, or a local teacher.
        out: `TARGET/seedN/METHOD` under it are run folders; the report is in it.
        progress: Gets every step of every run, as `i/n PHASE`.
        notify: Gets how long the student takes for the views.

    Raises:
        ClientError: See `core.errors`; whatever was bought and trained so far is kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a sweep runs in one process: under torchrun, use `distill` for each run")
    # the training images of every domain that is a source of some run; a domain's split does not depend on the target
    held_out = settings.targets[0] if len(settings.targets) == 1 else None
    run = replace(settings.run, skipped=skipped_before(out))
    choice = replace(run.choice, target_domain=held_out)
    shared = plan_tried_run(run, source, choice, out, None, progress=progress, notify=notify)
    dataset = shared.queries.dataset
    settings = replace(settings, run=replace(run, skipped=dataset.skipped))
    published = online_queries(settings.run.training, len(dataset.domains) - 1) * len(settings.targets)
    with claim_run_folder(out, settings.to_json(shared.plan.teacher, dataset)) as folder:
        views = max(folder.written["format"], TEACHER_SIZE_FORMAT)  # of one size in all runs of a sweep
        settings = replace(settings, run=replace(settings.run, config_format=views))
        announce = partial(_announcement, settings, published * len(settings.seeds))
        shared, source = source.share(shared, folder, announce, progress=progress)
        reports = dict(_run_all(settings, source, folder.path, progress))
        report = _report(settings, source, shared, reports, published)
        write_sweep(folder.path, report)
        return report


def _run_all(settings: SweepSettings, source: Source, out: Path, progress: Progress) -> Iterator[tuple[Run, RunReport]]:
    """Yield every run's report; a local teacher's answers are shared by a target's runs, and removed after the last."""
    runs = list(product(settings.targets, settings.seeds, settings.methods))
    for number, (target, seed, method) in enumerate(runs, start=1):
        place, answers = out / target / f"seed{seed}" / method, out / target / "answers"
        try:
            # the sweep's own settings and the place decide what a run that is done ran with
            report = read_report(place)
        except RunError:
            numbered = renamed(progress, f"{number}/{len(runs)} {{}}".format)
            of_run = settings.run.with_method(method, target_domain=target, seed=seed)
            report = distill(of_run, source, place, progress=numbered, answers=answers)
        yield (target, seed, method), report
        if (seed, method) == (settings.seeds[-1], settings.methods[-1]):
            shutil.rmtree(answers, ignore_errors=True)


def _announcement(settings: SweepSettings, published: int, shared: PlannedRun) -> str:
    targets, seeds, methods = len(settings.targets), len(settings.seeds), len(settings.methods)
    of_each = ", ".join((counted(targets, "target"), counted(seeds, "seed"), counted(methods, "method")))
    runs, new = counted(targets * seeds * methods, "run"), counted(shared.plan.units, "new query")
    return f"One purchase serves all of {runs} ({of_each}): {new}. The published loop would ask {published:,}"


def _report(
    settings: SweepSettings, source: Source, shared: PlannedRun, reports: dict[Run, RunReport], published: int
) -> SweepReport:
    run = settings.run
    purchase, queries = source.sweep_bill(run.training, settings.methods, shared)
    zero_shot = {key[0]: row for key, report in reports.items() for row in report.rows if row.name == ZERO_SHOT}
    return SweepReport(
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
        published_queries=published,
    )


def _outcome(run: Run, report: RunReport) -> Outcome:
    target, seed, _ = run
    row = report.rows[-1]
    if row.source_validation is None or row.target is None or row.target_in is None:
        raise RunError(f"the report of target {target}, seed {seed} has no accuracy: remove its folder, and run again")
    return Outcome(row.name, target, seed, row.source_validation, row.target_in, row.target)
