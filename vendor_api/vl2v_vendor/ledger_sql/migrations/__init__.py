"""Bring a database to the newest schema: Alembic, run from here and not from an ini file."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.ledger_sql.database import checkpoint, is_postgresql, verify_limits, writing
from vl2v_vendor.ledger_sql.tables import verify_protection

HEAD_REVISION = "0005"
_ADVISORY_LOCK = 0x766C3276  # "vl2v"
_VERSION_TABLE = "alembic_version"
_INSUFFICIENT_PRIVILEGE = "42501"


class SchemaOutdated(VendorError):
    """The schema has to be migrated by somebody who may."""


class SchemaNewer(VendorError):
    """A later version of vl2v has migrated the schema."""


def upgrade(engine: Engine) -> None:
    """Migrate to the newest schema, then check that transactions keep their limits and the append-only triggers exist.

    Any number of processes may do so at once: all of it is one transaction under the write lock (SQLite) or an
    advisory lock (PostgreSQL), so one migrates and the others find it done.

    A role that may not change the schema opens a database that is up to date like any other.

    Raises:
        DatabaseError: A transaction's limits have no effect.
        LedgerUnavailable: The database cannot be reached.
        LedgerUnprotected: An append-only trigger is missing.
        SchemaNewer: The schema is of a later version.
        SchemaOutdated: The schema is of another version, and this database role may not change it.
    """
    try:
        revision = current_revision(engine)
        if revision is not None and revision > HEAD_REVISION:
            raise SchemaNewer(
                f"a later version of vl2v has brought this database to revision {revision}, and this one knows "
                f"{HEAD_REVISION}: start that version"
            )
        if revision != HEAD_REVISION:  # asked without Alembic, which takes time to load
            _migrate(engine)
            checkpoint(engine)
        with engine.connect() as connection:
            verify_limits(connection)
            verify_protection(connection)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
            raise SchemaOutdated(
                f"this database role may not bring the schema to revision {HEAD_REVISION} ({error.orig}); run "
                "`vl2v-vendor accounts list --database URL` once as the role that owns the tables, and grant this "
                "role what docs/operating.md lists"
            ) from error
        raise LedgerUnavailable(f"the ledger database cannot be opened: {error.orig}") from error


def current_revision(engine: Engine) -> str | None:
    """Return the schema's revision; None for a database that holds no ledger."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        return connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # nosec # a constant name


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    with writing(engine).begin() as connection, as_file(files(__package__)) as location:
        if is_postgresql(connection):
            # Whoever comes second waits for the whole migration, not just for a charge.
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        config = Config()
        config.set_main_option("script_location", str(Path(location)).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
