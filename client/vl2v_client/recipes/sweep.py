"""Leave one domain out, over all targets and several seeds: one purchase, then a run folder for each student."""

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import Notify, Progress, no_notice, silent
from vl2v_client.recipes.sweep_tasks import train_all
from vl2v_client.reports.sweep_report import SweepReport
from vl2v_client.runs.run_folder import THREADS_FILE
from vl2v_client.runs.settings import SweepSettings
from vl2v_client.runs.source import Source
from vl2v_client.runs.sweep_purchase import claimed_sweep, find_purchase, rejoined_sweep
from vl2v_client.runs.sweep_reporting import write_report_of
from vl2v_client.runs.sweep_runs import Shard, SweepRun


def sweep(
    settings: SweepSettings,
    source: Source,
    out: Path,
    executor: Executor | None = None,
    *,
    progress: Progress = silent,
    notify: Notify = no_notice,
) -> SweepReport:
    """Buy once, then train and score every student; called again, it goes on where it stopped.

    Buying for several targets buys training images of every domain; a run reads those of its source domains alone,
    and opens its own target after training and selection.

    Args:
        settings: What to run.
        source: The vendor, or a local teacher; asked for nothing if the purchase is done.
        out: `TARGET/seedN/METHOD` under it are run folders; the report is in it.
        executor: Trains the runs, several at a time, in other processes, which ask nobody: each gets a
            `runs.sweep_runs.SweepRun` and reads files. `None` trains one after the other in this process. On a CPU
            the students are the same to the bit, whoever trains them.
        progress: Gets every step of every run, as `i/n PHASE`; with an executor, the runs that are done.
        notify: Gets how long the student takes for the views.

    Raises:
        ClientError: See `core.errors`; whatever was bought and trained so far is kept.
    """
    with claimed_sweep(settings, source, out, progress, notify) as bought:
        train_all(bought.runs, bought.source, executor, progress, is_alone=True)
        return write_report_of(bought)


def buy_for_sweep(
    settings: SweepSettings, source: Source, out: Path, *, progress: Progress, notify: Notify = no_notice
) -> None:
    """Buy for all runs of a sweep and train none, so that shards can; called again, nothing is asked.

    Raises:
        ClientError: See `core.errors`; whatever was bought so far is kept.
    """
    with claimed_sweep(settings, source, out, progress, notify):
        pass


def train_shard(
    settings: SweepSettings,
    source: Source,
    out: Path,
    shard: Shard,
    *,
    progress: Progress,
    notify: Notify = no_notice,
) -> Sequence[SweepRun]:
    """Train a part of the runs of a sweep, while others train the other parts; return them.

    Buys first if nobody has; then it asks nobody, and opens neither a socket nor the cache.

    Raises:
        ClientError: See `core.errors`; whatever was bought and trained so far is kept.
    """
    is_local = settings.run.config.purchase.local_teacher is not None
    found = None if is_local else find_purchase(settings, out, source)
    if found is None and not (is_local and (out / THREADS_FILE).exists()):
        buy_for_sweep(settings, source, out, progress=progress, notify=notify)
    bought = rejoined_sweep(settings, found or source, out, progress)
    runs = shard.of(bought.runs)
    train_all(runs, bought.source, None, progress)
    return runs


def merge_shards(settings: SweepSettings, source: Source, out: Path, *, progress: Progress = silent) -> SweepReport:
    """Write the report of runs that shards have trained. It trains nothing, and asks nobody.

    Raises:
        RunError: A run is not done, or the folder holds another sweep.
        ClientError: See `core.errors`.
    """
    bought = rejoined_sweep(settings, source, out, progress)
    lacking = [run for run in bought.runs if run.report() is None]
    if lacking:
        named = ", ".join(str(run.place.relative_to(run.sweep)) for run in lacking[:5])
        more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
        raise RunError(f"{len(lacking):,} of {len(bought.runs):,} runs are not done: {named}{more}; train their shards")
    return write_report_of(bought)
