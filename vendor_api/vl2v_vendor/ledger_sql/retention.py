"""Pruning vectors that are past their retention; what was paid stays paid."""

from __future__ import annotations

from sqlalchemy import Engine, delete, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ports import Clock
from vl2v_vendor.ledger_sql.database import database_now, writing
from vl2v_vendor.ledger_sql.tables import results

_ROWS_AT_A_TIME = 1000


def prune_results(engine: Engine, clock: Clock) -> int:
    """Delete expired vectors, in short transactions so that charges go on between them; returns how many.

    Raises:
        LedgerUnavailable: The database cannot be written; what was deleted before stays deleted.
    """
    key = (results.c.account_id, results.c.item_key)
    pruned = 0
    try:
        while True:
            with writing(engine).begin() as connection:
                now = database_now(connection, clock)
                expired = select(*key).where(results.c.expires_at <= now).limit(_ROWS_AT_A_TIME)
                count = connection.execute(delete(results).where(tuple_(*key).in_(expired))).rowcount
            pruned += count
            if count < _ROWS_AT_A_TIME:
                return pruned
    except SQLAlchemyError as error:
        raise LedgerUnavailable(
            f"the ledger database cannot be written ({type(error).__name__}); {pruned} vectors were pruned, try again"
        ) from error
