"""The one purchase of a sweep: made by one process, and found by all that train its runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.core.progress import Notify, Progress
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.pages import counted
from vl2v_client.runs.before_purchase import plan_tried_run
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.config_record import TEACHER_SIZE_FORMAT
from vl2v_client.runs.run_folder import (
    CONFIG_FILE,
    THREADS_FILE,
    VECTORS_FILE,
    RunFolder,
    claim_run_folder,
    holds_run,
    open_run_folder,
    rejoin_run_folder,
    skipped_before,
)
from vl2v_client.runs.settings import SweepSettings
from vl2v_client.runs.source import Source
from vl2v_client.runs.sweep_runs import SweepRun, describe_runs
from vl2v_client.student.loss.methods import online_queries
from vl2v_client.student.train.devices import process_count
from vl2v_contract.identity import sha256_hex


def find_purchase(settings: SweepSettings, out: Path, opened: Source | None = None) -> BoughtSource | None:
    """Return what was bought for exactly these runs; None if nothing was, or for others.

    Args:
        settings: The runs.
        out: Folder of the sweep.
        opened: What an earlier call has found there, if it has: the file is not read again.

    Raises:
        RunError: The file is damaged.
    """
    found = _find(settings, out, opened)
    return None if found is None else found.source


@dataclass(frozen=True)
class _Found:
    """A purchase that is done, the sweep's record with it, and the data set as it was listed for that."""

    source: BoughtSource
    record: dict[str, Any]
    dataset: DomainDataset


def _find(settings: SweepSettings, out: Path, opened: Source | None) -> _Found | None:
    path = out / VECTORS_FILE
    if not path.exists() or not (out / CONFIG_FILE).exists():
        return None
    settings = replace(settings, run=replace(settings.run, skipped=skipped_before(out)))
    is_checked = isinstance(opened, BoughtSource) and opened.file.path == path
    source = opened if isinstance(opened, BoughtSource) and is_checked else BoughtSource.of_sweep(out)
    if source.file.of != _purchase_name(settings, open_run_folder(out)):
        return None
    dataset = open_dataset(settings.run.choice.data).without(settings.run.skipped or ())
    found = _Found(source, settings.to_json(source.file.teacher, dataset), dataset)
    if not holds_run(out, found.record):
        return None
    if not is_checked:
        source.file.check()
    return found


@dataclass(frozen=True)
class BoughtSweep:
    """A sweep whose purchase is done.

    Attributes:
        settings: What it runs.
        source: Source of the runs' answers, which buys nothing.
        planned: What was bought.
        folder: Its folder.
    """

    settings: SweepSettings
    source: Source
    planned: PlannedRun
    folder: RunFolder

    @cached_property
    def runs(self) -> list[SweepRun]:
        """Its runs, by target, seed and method; all with the threads of the purchase, whoever describes them.

        An earlier version kept no number: then it is this process's, as it was.
        """
        record = self.folder.recall(THREADS_FILE) or {"threads": torch.get_num_threads()}
        return describe_runs(self.settings, self.folder.path, record["threads"])

    @property
    def published_queries(self) -> int:
        """Queries of the published loop, for one seed of all targets."""
        return _published_queries(self.settings, self.planned)


@contextmanager
def claimed_sweep(
    settings: SweepSettings, source: Source, out: Path, progress: Progress, notify: Notify
) -> Iterator[BoughtSweep]:
    """Buy, unless that is done, and keep the folder for this process while the block runs.

    Raises:
        UsageError: `torchrun` started several processes.
        ClientError: See `core.errors`; whatever was bought so far is kept.
    """
    if process_count() > 1:
        raise UsageError("a sweep runs in one process: under torchrun, use `distill` for each run")
    settings = replace(settings, run=replace(settings.run, skipped=skipped_before(out)))
    found = _find(settings, out, source)
    if found is not None:
        with claim_run_folder(out, found.record) as folder:
            _keep_threads(settings, folder)
            yield _planned_again(settings, found, folder, progress)
        return
    shared = plan_tried_run(settings.run, source, _choice(settings), out, None, progress=progress, notify=notify)
    dataset = shared.queries.dataset
    settings = replace(settings, run=replace(settings.run, skipped=dataset.skipped))
    with claim_run_folder(out, settings.to_json(shared.plan.teacher, dataset)) as folder:
        _keep_threads(settings, folder)
        settings = _with_view_size(settings, folder)

        def announce(planned: PlannedRun) -> str:
            return _announcement(settings, planned)

        of = _purchase_name(settings, folder)
        shared, source = source.share(shared, folder, of, announce, progress=progress)
        yield BoughtSweep(settings, source, shared, folder)


def _keep_threads(settings: SweepSettings, folder: RunFolder) -> None:
    """Keep with how many threads the runs train on a CPU, once for all processes: it decides last bits."""
    if folder.recall(THREADS_FILE) is None:
        folder.keep(THREADS_FILE, {"threads": settings.run.training.threads or torch.get_num_threads()})


def rejoined_sweep(settings: SweepSettings, source: Source, out: Path, progress: Progress) -> BoughtSweep:
    """Return a sweep whose purchase is done, beside other processes that train its runs.

    Raises:
        RunError: It is not done, or the folder holds another sweep.
        ClientError: See `core.errors`.
    """
    settings = replace(settings, run=replace(settings.run, skipped=skipped_before(out)))
    found = _find(settings, out, source)
    if found is not None:
        return _planned_again(settings, found, rejoin_run_folder(out, found.record), progress)
    if settings.run.config.purchase.local_teacher is None:
        raise RunError(f"{out} holds no purchase for these runs: buy first, with the same options")
    planned = source.plan(_choice(settings), progress=progress)
    folder = rejoin_run_folder(out, settings.to_json(planned.plan.teacher, planned.queries.dataset))
    planned, source = source.share(planned, folder, "", str, progress=progress)  # a local teacher sells nothing
    return BoughtSweep(_with_view_size(settings, folder), source, planned, folder)


def _planned_again(settings: SweepSettings, found: _Found, folder: RunFolder, progress: Progress) -> BoughtSweep:
    planned = found.source.plan(_choice(settings), listed=found.dataset, progress=progress)
    return BoughtSweep(_with_view_size(settings, folder), found.source, planned, folder)


def _choice(settings: SweepSettings) -> QueryChoice:
    """Return what decides the queries: the training images of every domain that is a source of some run.

    A domain's split does not depend on the target.
    """
    held_out = settings.targets[0] if len(settings.targets) == 1 else None
    return replace(settings.run.choice, target_domain=held_out)


def _purchase_name(settings: SweepSettings, folder: RunFolder) -> str:
    """Name what is bought: by what the runs share, and by what targets and methods add to it."""
    choice = _choice(settings)
    return sha256_hex(json.dumps([folder.settings_sha, choice.target_domain, choice.ask_images]).encode())


def _with_view_size(settings: SweepSettings, folder: RunFolder) -> SweepSettings:
    """Return settings by which all runs of a sweep render their views at one size, also one of an earlier version."""
    views = max(folder.written["format"], TEACHER_SIZE_FORMAT)
    return replace(settings, run=replace(settings.run, config_format=views))


def _published_queries(settings: SweepSettings, planned: PlannedRun) -> int:
    sources = len(planned.queries.dataset.domains) - 1
    return online_queries(settings.run.training, sources) * len(settings.targets)


def _announcement(settings: SweepSettings, shared: PlannedRun) -> str:
    targets, seeds, methods = len(settings.targets), len(settings.seeds), len(settings.methods)
    of_each = ", ".join((counted(targets, "target"), counted(seeds, "seed"), counted(methods, "method")))
    runs, new = counted(targets * seeds * methods, "run"), counted(shared.plan.units, "new query")
    published = _published_queries(settings, shared) * seeds
    return f"One purchase serves all of {runs} ({of_each}): {new}. The published loop would ask {published:,}"
