"""Triggers that make a table append-only, and the start-up check that they are still there."""

from __future__ import annotations

from sqlalchemy import Connection, text

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.ledger_sql.database import is_postgresql

APPEND_ONLY_TABLES = ("ledger", "charge_items", "prices", "admin_log")

_SQLITE_ACTS: tuple[str, ...] = ("update", "delete")
_POSTGRES_ACTS: tuple[str, ...] = ("update", "delete", "truncate")

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION vl2v_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; corrections are new rows', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$
"""


class LedgerUnprotected(VendorError):
    """An append-only trigger is missing, so the ledger's rows could be changed."""


def protect(connection: Connection, table: str) -> None:
    """Refuse every UPDATE, DELETE, REPLACE and (PostgreSQL) TRUNCATE of `table` from now on."""
    if is_postgresql(connection):
        connection.execute(text(_POSTGRES_FUNCTION))
        for act in _POSTGRES_ACTS:
            connection.execute(
                text(
                    f"CREATE TRIGGER {_trigger(table, act)} BEFORE {act.upper()} ON {table} "
                    "FOR EACH STATEMENT EXECUTE FUNCTION vl2v_refuse_change()"
                )
            )
        return
    for act in _SQLITE_ACTS:
        connection.execute(
            text(
                f"CREATE TRIGGER {_trigger(table, act)} BEFORE {act.upper()} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only; corrections are new rows'); END"
            )
        )


def verify_protection(connection: Connection) -> None:
    """Check that every trigger is there and enabled.

    Raises:
        LedgerUnprotected: Names those that are not.
    """
    if is_postgresql(connection):
        acts = _POSTGRES_ACTS
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
    else:
        acts = _SQLITE_ACTS
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    present = set(connection.execute(text(query)).scalars())
    missing = [name for table in APPEND_ONLY_TABLES for act in acts if (name := _trigger(table, act)) not in present]
    if missing:
        raise LedgerUnprotected(
            f"the append-only trigger(s) {', '.join(missing)} are missing; somebody changed the schema by hand: "
            "restore the database from a backup and run `vl2v-vendor ledger verify`"
        )


def _trigger(table: str, act: str) -> str:
    return f"{table}_refuse_{act}"
