"""Who agrees to a purchase: a function that sees the plan, or a cap that holds it. Without either, nothing is spent."""

import sys
from collections.abc import Callable

from vl2v_client.buying.context import Approve
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import NotApproved
from vl2v_client.core.progress import format_micro
from vl2v_client.planning.query_plan import QueryPlan
from vl2v_contract.texts import printable

Approval = Callable[[QueryPlan], bool]
"""Gets a plan and says whether to buy it."""


def ask(plan: QueryPlan) -> bool:
    """Show a plan, and ask whether to buy it: on the terminal, or in a notebook below the cell.

    Where nobody can be asked, the answer is no.
    """
    width = max(map(len, plan.facts()))
    lines = [f"{name:<{width}}  {fact}" for name, fact in plan.facts().items()]
    question = "\n".join([f"plan of {printable(plan.teacher.id)}", *lines, "Buy this? [y/N]: "])
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, NotImplementedError):  # standard input is at its end; a notebook that runs without a user
        return False


def gate(approve: Approval | None, terms: PurchaseConfig) -> Approve:
    """Return what lets a plan pass that may be bought, and raises `NotApproved` on any other.

    Args:
        approve: Asked, if there is one.
        terms: Terms of the purchase; a cap on queries or money stands for an approval.
    """
    is_capped = (terms.max_queries, terms.max_cost) != (None, None)

    def check(plan: QueryPlan) -> None:
        if not plan.units or (approve is None and is_capped):
            return
        if approve is not None and approve(plan):
            return
        cost = f"{plan.units:,} new queries for {format_micro(plan.amount_micro, plan.currency)}"
        remedy = (
            f"give max_queries={plan.units} or more, or approve=vl2v.ask to be asked"
            if approve is None
            else "`approve` did not agree"
        )
        raise NotApproved(
            f"this would buy {cost}, and nothing was bought: {remedy}",
            units=plan.units,
            amount_micro=plan.amount_micro,
            currency=plan.currency,
        )

    return check


def notify(sentence: str) -> None:
    """Show a sentence on standard error, in a notebook below the cell."""
    sys.stderr.write(printable(sentence) + "\n")
