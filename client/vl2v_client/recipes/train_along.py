"""What a process does that `torchrun` started beside the first of a run, which buys, evaluates and writes."""

from dataclasses import replace
from pathlib import Path

from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import no_notice, silent
from vl2v_client.reports.report import RunReport, read_report
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.method_training import MethodTraining
from vl2v_client.runs.run_folder import open_run_folder, skipped_before
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import Source
from vl2v_client.student.train.devices import Ranks, cpu_threads, joined_ranks


def train_along(settings: RunSettings, out: Path) -> None:
    """Do the part of a process that `torchrun` started beside the first, which buys. It opens no vendor and no cache.

    Raises:
        ClientError: See `core.errors`.
    """
    with joined_ranks() as ranks, cpu_threads(settings.training.threads):
        train_with_first(settings, None, out, ranks, None)


def train_with_first(
    settings: RunSettings, local: Source | None, out: Path, ranks: Ranks, answers: Path | None
) -> RunReport:
    """Train on what the first process has bought, or ask a local teacher as it does; return its report.

    Raises:
        ClientError: See `core.errors`.
    """
    ranks.barrier()
    source = BoughtSource.of_run(settings, out) or local
    if source is None:
        raise RunError(f"{out} does not hold what the first process has bought: it has to see the same files")
    folder = replace(open_run_folder(out), shared_answers=answers)
    settings = replace(settings, skipped=skipped_before(out))
    planned = source.plan(settings.choice, progress=silent)
    planned, data = source.obtain(settings, planned, folder, progress=silent)
    MethodTraining(settings, data, planned.plan.teacher, folder, silent, no_notice).methods()
    ranks.barrier()
    return read_report(out)
