"""Buying what a run needs, without training."""

from vl2v_client.buying import purchase
from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import Progress
from vl2v_client.recipes.plan import plan_selected


def buy(config: RunConfig, context: PurchaseContext, *, progress: Progress) -> PurchaseReport:
    """Plan a run and buy its answers; nothing is paid twice.

    Raises:
        ClientError: See `core.errors`; whatever was bought is kept.
    """
    planned = plan_selected(config, context, progress=progress)
    purchase.check_images(planned, context, progress=progress)
    return purchase.buy(planned.plan, context, progress=progress)
