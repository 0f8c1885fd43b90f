"""`vl2v-client distill`: the whole job in one command."""

from __future__ import annotations

from rich.markdown import Markdown

from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import RUN_OPTIONS, ApiKey, AsJson, ConfigFile, Named, Yes, run_config, takes
from vl2v_client.cli.vendor import notify, open_source


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
    if not is_first_process():
        return
    if as_json:
        write_json(report.to_json())
    else:
        PlainConsole().print(Markdown(report.summary()))
        notify(f"The student is in {folder / 'student'}, the whole report in {folder / 'report.md'}.")
