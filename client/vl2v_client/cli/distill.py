"""`vl2v-client distill` and `sweep`: the whole job in one command, for one unseen domain or for each in turn."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import (
    COMMON,
    DATA_OPTIONS,
    PURCHASE_OPTIONS,
    REPORT_OPTIONS,
    RUN_OPTIONS,
    STUDENT_OPTIONS,
    TRAINING_OPTIONS,
    ApiKey,
    AsJson,
    ConfigFile,
    Named,
    Yes,
    run_config,
    takes,
)
from vl2v_client.cli.vendor import notify, open_source
from vl2v_client.config.training import MethodName


@takes(*RUN_OPTIONS)
def distill(
    *, named: Named, config: ConfigFile = None, api_key: ApiKey = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Plan, buy, align, distil, evaluate on the unseen domain, export. Run again to go on where it stopped."""
    from vl2v_client.recipes.distill import distill as run_distill
    from vl2v_client.runs.resolution import default_folder
    from vl2v_client.runs.settings import settle
    from vl2v_client.student.train.devices import is_first_process

    run = run_config(named, config)
    folder = run.report.out or default_folder(run)
    with open_source(run, api_key, as_json=as_json, yes=yes) as (source, progress):
        report = run_distill(settle(run, source.tower), source, folder, progress=progress)
    if is_first_process():
        note = f"The student is in {folder / 'student'}, the whole report in {folder / 'report.md'}."
        _show(report.to_json(), report.summary(), note, as_json=as_json)


@takes(
    DATA_OPTIONS.but("target_domain"),
    PURCHASE_OPTIONS.but("select", "impute", "partial"),
    STUDENT_OPTIONS,
    TRAINING_OPTIONS.but("seed", "method", "baselines"),
    REPORT_OPTIONS,
)
def sweep(
    *,
    named: Named,
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
    config: ConfigFile = None,
    api_key: ApiKey = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Hold out each domain in turn, with several seeds and methods; buy once for all. Run again to go on."""
    from vl2v_client.recipes.sweep import sweep as run_sweep
    from vl2v_client.runs.resolution import default_folder
    from vl2v_client.runs.settings import settle_sweep

    run = run_config(named, config)
    folder = run.report.out or default_folder(run, sweep=True)
    with open_source(run, api_key, as_json=as_json, yes=yes) as (source, progress):
        settings = settle_sweep(run, target_domain, seed, method, source.tower)
        report = run_sweep(settings, source, folder, progress=progress)
    note = f"Each student is in its run folder under {folder}, the report in {folder / 'report.md'}."
    _show(report.to_json(), report.to_markdown(), note, as_json=as_json)


def _show(document: Any, text: str, note: str, *, as_json: bool) -> None:
    """Show a report; what lays it out is loaded after the training, which needs the memory."""
    if as_json:
        write_json(document)
        return
    from rich.markdown import Markdown

    PlainConsole().print(Markdown(text))
    notify(note)
