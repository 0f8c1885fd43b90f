"""`vl2v-client plan`: what a run would buy, and what it would cost. Buys nothing."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vl2v_client.cli.console import PlainConsole, write_json
from vl2v_client.cli.options import COMMON, PURCHASING_OPTIONS, ApiKey, AsJson, ConfigFile, Named, run_config, takes
from vl2v_client.cli.tables import estimate_json, estimate_table, plan_json, plan_table
from vl2v_client.cli.vendor import open_purchase


@takes(*PURCHASING_OPTIONS)
def plan(
    *,
    named: Named,
    exact: Annotated[
        bool,
        Parameter(group=COMMON, show_default=False, help="Render and count the views, even of a very large data set."),
    ] = False,
    config: ConfigFile = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what the same options of `distill` would buy: queries, cache hits, price, time and disk. Costs nothing."""
    from vl2v_client.buying.context import remaining_units
    from vl2v_client.planning.query_plan import Limits, QueryPlan
    from vl2v_client.recipes.plan import plan as plan_run

    run = run_config(named, config)
    with open_purchase(run.purchase, api_key, as_json=as_json, yes=False) as (context, progress):
        made = plan_run(run, context, exact=exact, progress=progress)
        left = remaining_units(context.vendor) if api_key else None
    if isinstance(made, QueryPlan):
        shown = plan_json(made, left) if as_json else plan_table(made, left)
    else:
        shown = estimate_json(made, left) if as_json else estimate_table(made, left)
    if as_json:
        write_json(shown)
    else:
        PlainConsole().print(shown)
    made.check_caps(Limits(run.purchase.max_queries, run.purchase.max_cost_micro, left))
