"""Books that somebody changed by other means than the vendor's, and what `ledger verify` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from support.ledger.ledger_shop import Shop
from vl2v_vendor.ledger_sql.database import is_postgresql, writing
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.service.verification import VerificationReport


def verified(shop: Shop) -> VerificationReport:
    with snapshot(shop.engine) as connection:
        return verify_ledger(connection)


@contextmanager
def tampered(shop: Shop, *statements: str) -> Iterator[Connection]:
    """Books changed as an administrator could with other tools: no foreign keys, checks, triggers; then undone."""
    engine = create_engine(shop.engine.url, poolclass=NullPool)
    with engine.connect() as connection:
        if is_postgresql(connection):
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("ALTER TABLE budgets DROP CONSTRAINT ck_budgets_within_limit"))
        else:
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            connection.exec_driver_sql("BEGIN")
            for (name,) in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            connection.execute(text(statement))
        yield connection
        connection.rollback()


def found(shop: Shop, *statements: str) -> set[str]:
    """The codes of the problems that `ledger verify` finds in books so changed."""
    with tampered(shop, *statements) as connection:
        return {problem.code for problem in verify_ledger(connection).problems}


def forget_signatures(engine: Engine, *deletions: str) -> None:
    """Make the ledger as servers of an older version do, without signatures; or run these deletions alone."""
    for statement in deletions or ("DELETE FROM entry_signatures", "DELETE FROM act_signatures"):
        edit_rows(engine, statement.split()[2], "delete", statement)


def edit_rows(engine: Engine, table: str, act: str, statement: str) -> None:
    """Do to an append-only table what its trigger against this act, `update` or `delete`, refuses."""
    trigger = f"{table}_refuse_{act}"
    with writing(engine).begin() as connection:
        if is_postgresql(connection):
            around = [f"ALTER TABLE {table} {change} TRIGGER {trigger}" for change in ("DISABLE", "ENABLE")]
        else:
            made = connection.execute(text(f"SELECT sql FROM sqlite_master WHERE name = '{trigger}'")).scalar_one()
            around = [f"DROP TRIGGER {trigger}", made]
        for step in (around[0], statement, around[1]):
            connection.execute(text(step))
