"""Buy what a run needs and the cache lacks."""

from __future__ import annotations

from vl2v_client.buying import purchase
from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.buying.run_plan import check_hold_out
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import Progress
from vl2v_client.recipes.plan import plan_selected


def buy(config: RunConfig, context: PurchaseContext, *, progress: Progress) -> PurchaseReport:
    """Plan a run and buy its answers; nothing is paid twice.

    Args:
        config: Configuration of the run.
        context: Whom to buy from, and on which terms.
        progress: Gets every step that takes time.

    Raises:
        ClientError: See `core.errors`; whatever was bought is kept.
    """
    planned = plan_selected(config, context, progress=progress)
    check_hold_out(planned, context, progress=progress)
    return purchase.buy(planned.plan, context, progress=progress)
