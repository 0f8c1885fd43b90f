"""Whether the budgets still say what the items say: for a gauge that is always 0."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from vl2v_vendor.adapters.sql.tables import budgets, charge_items, ledger


def read_drift_units(connection: Connection) -> int:
    """Units used in the accounts' budgets, less the units of charged items that were not refunded, over all accounts.

    Reads every item, on the connection of one snapshot.
    """
    used = select(func.coalesce(func.sum(budgets.c.used_units), 0)).where(budgets.c.api_key_id.is_(None))
    charged = select(func.coalesce(func.sum(charge_items.c.units), 0))
    refunded = select(func.coalesce(func.sum(ledger.c.units), 0)).where(ledger.c.kind == "refund")
    row = connection.execute(
        select(used.scalar_subquery(), charged.scalar_subquery(), refunded.scalar_subquery())
    ).one()
    used_units, charged_units, refunded_units = map(int, row)
    return used_units - (charged_units - refunded_units)
