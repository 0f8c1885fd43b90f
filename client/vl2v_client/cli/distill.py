"""`vl2v-client distill` and `sweep`, the whole job in one command; `evaluate` with what they made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Column

from vl2v_client.cli.bars import bars
from vl2v_client.cli.check import tell_ignored
from vl2v_client.cli.console import PlainConsole, plain_table, show, write_json
from vl2v_client.cli.options import (
    CLUSTER,
    COMMON,
    DATA_OPTIONS,
    PURCHASE_OPTIONS,
    REPORT_OPTIONS,
    RUN_OPTIONS,
    STUDENT_OPTIONS,
    TRAINING_OPTIONS,
    ApiKey,
    AsJson,
    Yes,
    takes,
)
from vl2v_client.cli.vendor import notify, open_purchase, open_source, say_student
from vl2v_client.config.run import RunConfig
from vl2v_client.config.training import MethodName
from vl2v_client.core.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from vl2v_client.core.progress import Progress
    from vl2v_client.runs.settings import SweepSettings
    from vl2v_client.runs.source import Source


@takes(*RUN_OPTIONS, file=True)
def distill(*, config: RunConfig, api_key: ApiKey = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Plan, buy, align, distil, evaluate on the unseen domain, export. Run again to go on where it stopped."""
    from vl2v_client.recipes.distill import distill as run_distill
    from vl2v_client.recipes.train_along import train_along
    from vl2v_client.runs.run_place import place_run
    from vl2v_client.student.train.devices import is_first_process

    if is_first_process():
        tell_ignored(config)
    elif config.purchase.local_teacher is None:
        train_along(*place_run(config, lambda: None))
        return
    with open_source(config, api_key, as_json=as_json, yes=yes) as (source, progress):
        settings, folder = place_run(config, source.tower)
        if is_first_process():
            say_student(config, settings, "distill")
        report = run_distill(settings, source, folder, progress=progress, notify=notify)
    if is_first_process():
        note = f"The student is in {folder / 'student'}, the whole report in {folder / 'report.html'}."
        _show(report.to_json(), report.summary(), note, as_json=as_json)


@takes(
    DATA_OPTIONS.but("target_domain"),
    PURCHASE_OPTIONS.but("select", "impute", "partial"),
    STUDENT_OPTIONS,
    TRAINING_OPTIONS.but("seed", "method", "baselines", "probe", "quick", "extend"),
    REPORT_OPTIONS,
    file=True,
)
def sweep(
    *,
    config: RunConfig,
    target_domain: Annotated[
        tuple[str, ...],
        Parameter(group=COMMON, show_default=False, help="Domain to hold out; every one in turn if left out."),
    ] = (),
    seed: Annotated[
        tuple[int, ...],
        Parameter(group=COMMON, show_default=False, help="Seed of a training; repeatable; 0 if left out."),
    ] = (0,),
    method: Annotated[
        tuple[MethodName, ...],
        Parameter(
            group=COMMON, show_default=lambda names: ", ".join(names), help="Method of the students; repeatable."
        ),
    ] = ("erm", "vl2v-adip"),
    shard: Annotated[
        str | None,
        Parameter(
            group=CLUSTER,
            show_default=False,
            help="Do a part: `buy`; a share of the runs such as `0/8`; `merge`, which writes the report.",
        ),
    ] = None,
    engine: Annotated[
        Literal["ray"] | None,
        Parameter(
            group=CLUSTER,
            show_default=False,
            help="Train several runs at a time, on the cluster at $RAY_ADDRESS or on this machine.",
        ),
    ] = None,
    gpus_per_run: Annotated[float, Parameter(group=CLUSTER, help="GPUs of each run on Ray; 0 trains on CPUs.")] = 0,
    cpus_per_run: Annotated[float, Parameter(group=CLUSTER, help="CPU cores of each run on Ray.")] = 1,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Hold out each domain in turn, with several seeds and methods; buy once for all. Run again to go on."""
    from vl2v_client.recipes.sweep import buy_for_sweep, merge_shards, train_shard
    from vl2v_client.recipes.sweep import sweep as run_sweep
    from vl2v_client.runs.sweep_runs import Shard

    if shard is not None and engine is not None:
        raise UsageError("--shard is for runs without Ray: leave it or --engine out")
    part = None if shard in (None, "buy", "merge") else Shard.parse(shard)
    tell_ignored(config)
    with (
        _open_sweep(config, (target_domain, seed, method), api_key, as_json=as_json, yes=yes) as (
            (settings, folder),
            source,
            progress,
        ),
        _open_engine(engine, gpus_per_run, cpus_per_run) as executor,
    ):
        say_student(config, settings.run)
        if shard == "buy":
            buy_for_sweep(settings, source, folder, progress=progress, notify=notify)
            notify(f"What the runs need is in {folder}; train them with --shard 0/2 and the like.")
            return
        if part is not None:
            runs = train_shard(settings, source, folder, part, progress=progress, notify=notify)
            notify(
                f"{len(runs):,} runs of shard {shard} are done in {folder}; after all shards, --shard merge reports."
            )
            return
        if shard == "merge":
            report = merge_shards(settings, source, folder, progress=progress)
        else:
            report = run_sweep(settings, source, folder, executor, progress=progress, notify=notify)
    note = f"Each student is in its run folder under {folder}, the report in {folder / 'report.html'}."
    _show(report.to_json(), report.to_markdown(), note, as_json=as_json)


@contextmanager
def _open_sweep(
    config: RunConfig,
    runs: tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]],
    api_key: str | None,
    *,
    as_json: bool,
    yes: bool,
) -> Iterator[tuple[tuple[SweepSettings, Path], Source, Progress]]:
    """Yield a sweep's settings and folder, its source, and the progress bars.

    If its purchase is done, that is the source: neither the vendor nor the cache is opened.
    """
    from vl2v_client.runs.run_place import place_sweep
    from vl2v_client.runs.sweep_purchase import find_purchase

    place = None
    if config.purchase.local_teacher is None:
        place = place_sweep(config, *runs, lambda: None)
        if (bought := find_purchase(*place)) is not None:
            with bars(quiet=as_json) as progress:
                yield place, bought, progress
            return
    with open_source(config, api_key, as_json=as_json, yes=yes) as (source, progress):
        yield place or place_sweep(config, *runs, source.tower), source, progress


@contextmanager
def _open_engine(engine: str | None, gpus: float, cpus: float) -> Iterator[Executor | None]:
    if engine is None:
        yield None
        return
    from vl2v_client.recipes.ray_executor import RayExecutor

    with RayExecutor(gpus=gpus, cpus=cpus) as executor:
        yield executor


def _show(document: Any, text: str, note: str, *, as_json: bool) -> None:
    """Show a report; what lays it out is loaded after the training, which needs the memory."""
    if as_json:
        write_json(document)
        return
    from rich.markdown import Markdown

    console = PlainConsole()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        console.print_words(text)
    notify(note)


@takes(PURCHASE_OPTIONS.only("vendor_url", "model", "cache", "max_queries", "max_cost"))
def evaluate(
    run: Annotated[Path, Parameter(help="Folder of a `distill`.")],
    /,
    *,
    config: RunConfig,
    data: Annotated[Path | None, Parameter(group=COMMON, help="Another data set with the same classes.")] = None,
    teacher: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Ask the teacher about the unseen images too: a query each."),
    ] = False,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Score the exported student by domain; with --teacher, beside the zero-shot teacher."""
    from vl2v_client.recipes.evaluate import evaluate_run
    from vl2v_client.reports.pages import percent

    if teacher:
        with open_purchase(config.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
            scores, report_updated = evaluate_run(run, data=data, context=context, progress=progress)
    else:
        with bars(quiet=as_json) as progress:
            scores, report_updated = evaluate_run(run, data=data, context=None, progress=progress)
    rows = [(one.domain, one.role, f"{one.images:,}", percent(one.student), percent(one.teacher)) for one in scores]
    numbers = (Column(name, justify="right") for name in ("images", "student", "zero-shot teacher"))
    table = plain_table("domain", "role", *numbers, rows=rows)
    show([asdict(score) for score in scores], table, as_json=as_json)
    if report_updated and not as_json:
        notify(f"The teacher's row is now in {run / 'report.html'}.")
