"""`vl2v-client sweep`: leave one domain out, over all targets and several seeds, with one purchase."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.markdown import Markdown

from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import (
    COMMON,
    DATA_OPTIONS,
    PURCHASE_OPTIONS,
    REPORT_OPTIONS,
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
    ] = (
        "erm",
        "vl2v-adip",
    ),
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
    if as_json:
        write_json(report.to_json())
    else:
        PlainConsole().print(Markdown(report.to_markdown()))
        notify(f"Each student is in its run folder under {folder}, the report in {folder / 'report.md'}.")
