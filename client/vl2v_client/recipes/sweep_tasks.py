"""Train the runs of a sweep: one after the other, or by an executor, in processes that ask nobody."""

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed, wait

from vl2v_client.cache.feature_store import FeatureFolder
from vl2v_client.cache.memo import SessionCache
from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import Progress, renamed, silent
from vl2v_client.recipes.distill import distill
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.local_source import LocalSource, load_local_teacher
from vl2v_client.runs.run_folder import FEATURES_FOLDER
from vl2v_client.runs.source import Source
from vl2v_client.runs.sweep_runs import SweepRun, remove_answers
from vl2v_client.student.train.devices import cpu_threads


def train_run(run: SweepRun, source: Source | None = None, progress: Progress = silent) -> None:
    """Train and score one run, or go on with it. It asks nobody: what it reads is in files.

    Args:
        run: The run.
        source: Where its answers come from, if that is open already.
        progress: Gets every step.

    Raises:
        ClientError: See `core.errors`; whatever was trained so far is kept.
    """
    if run.report() is not None:
        return
    with cpu_threads(run.threads):
        opened = source or _open_source(run)
        distill(run.settings, opened, run.place, progress=progress, answers=run.answers, is_tried=True)


def _open_source(run: SweepRun) -> Source:
    config = run.settings.config
    if config.purchase.local_teacher is None:
        return BoughtSource.of_sweep(run.sweep)
    session = SessionCache(features=FeatureFolder(run.sweep / FEATURES_FOLDER))
    return LocalSource(load_local_teacher(config.purchase, config.training.device), session)


def train_all(
    runs: Sequence[SweepRun], source: Source, executor: Executor | None, progress: Progress, *, is_alone: bool = False
) -> None:
    """Train every run that is not done; one after the other in this process without an executor.

    A run that fails ends the others that have not begun, once those that have are done.

    Args:
        runs: Runs of a sweep, in order.
        source: Where their answers come from in this process.
        executor: Trains them elsewhere.
        progress: Gets every step here, and the runs that are done elsewhere.
        is_alone: Whether nobody else trains runs of the sweep: then a local teacher's answers for a target are removed
            once its runs are done.

    Raises:
        RunError: A process that trained has ended.
        ClientError: As the run that failed.
    """
    if executor is None:
        for number, run in enumerate(runs, start=1):
            train_run(run, source, renamed(progress, f"{number}/{len(runs)} {{}}".format))
            if is_alone and (number == len(runs) or runs[number].key[0] != run.key[0]):
                remove_answers([run])
        return
    futures = [executor.submit(train_run, run) for run in runs if run.report() is None]
    try:
        for done, _ in enumerate(_results(futures), start=1):
            progress("runs", done, len(futures))
    except Exception as error:
        for future in futures:
            future.cancel()
        wait(futures)
        if not isinstance(error, BrokenExecutor):
            raise
        raise RunError(
            f"a process that trained a run has ended ({error}): run the same command again; what is bought and trained "
            "is kept"
        ) from error


def _results(futures: Sequence[Future[None]]) -> Iterator[None]:
    for future in as_completed(futures):
        yield future.result()
