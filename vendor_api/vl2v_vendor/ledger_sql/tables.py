"""The tables, and the triggers that make some of them append-only.

Counts are units (queries), money is micro-units, times are microseconds since the epoch, UTC. `ledger`, `charge_items`,
`prices`, `admin_log` and the signatures are append-only and are never rebuilt by a migration: new facts go into side
tables. `budgets` is a guarded cache of the ledger's own sums; `results` may be pruned. No table holds an image, a text,
an unkeyed hash of either, or a secret.
"""

import sqlalchemy as sa

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.ledger_sql.database import is_postgresql

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite numbers rows by itself only for a key of type INTEGER."""

vendor = sa.Table(
    "vendor",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ledger_id", sa.String(64), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("public_key", sa.String(64), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("retired_at", sa.BigInteger),
    sa.Column("predecessor_id", sa.String(16)),
    sa.Column("predecessor_signature", sa.String(128)),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("prefix", sa.String(16), nullable=False, index=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("scopes", sa.String(128), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("api_key_id", sa.ForeignKey("api_keys.id"), unique=True),
    sa.Column("limit_units", sa.BigInteger, nullable=False),
    sa.Column("used_units", sa.BigInteger, nullable=False),
    # The end of the account's chain; of no use in a key's row.
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("head_hash", sa.String(64), nullable=False),
    sa.Column("last_created_at", sa.BigInteger, nullable=False),
    sa.CheckConstraint("used_units >= 0 AND used_units <= limit_units", name="within_limit"),
)
sa.Index(
    "uq_budgets_account",
    budgets.c.account_id,
    unique=True,
    sqlite_where=sa.text("api_key_id IS NULL"),
    postgresql_where=sa.text("api_key_id IS NULL"),
)
sa.Index("ix_budgets_account_id", budgets.c.account_id)

prices = sa.Table(
    "prices",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("model_id", sa.String(256), nullable=False),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("unit_price_micro", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("valid_from", sa.BigInteger, nullable=False),
    sa.CheckConstraint("unit_price_micro >= 0", name="not_negative"),
    sa.Index("ix_prices_model_id", "model_id", "modality"),
)

_REFUNDS = sa.text("kind = 'refund'")

# No CHECK on `kind`: later kinds must not need a rebuild of this table.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("account_id", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("v", sa.Integer, nullable=False),
    sa.Column("ledger_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("api_key_id", sa.ForeignKey("api_keys.id")),
    sa.Column("endpoint", sa.String(64)),
    sa.Column("modality", sa.String(16)),
    sa.Column("model_id", sa.String(256)),
    sa.Column("weights_sha", sa.String(64)),
    sa.Column("precision", sa.String(32)),
    sa.Column("preprocessing_id", sa.String(128)),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("price_id", sa.ForeignKey("prices.id")),
    sa.Column("unit_price_micro", sa.BigInteger, nullable=False),
    sa.Column("amount_micro", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("items_hash", sa.String(64)),
    sa.Column("ref_seq", sa.BigInteger),
    sa.Column("note", sa.Text),
    sa.Column("used_units", sa.BigInteger, nullable=False),
    sa.Column("limit_units", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("signing_key_id", sa.ForeignKey("signing_keys.key_id"), nullable=False),
    sa.Column("prev_hash", sa.String(64), nullable=False),
    sa.Column("entry_hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("account_id", "request_id", name="uq_ledger_request"),
    sa.Index("ix_ledger_refunds", "account_id", "ref_seq", sqlite_where=_REFUNDS, postgresql_where=_REFUNDS),
)

IS_REFUND = ledger.c.kind == sa.literal("refund", literal_execute=True)
"""Written out in the statement, or no database would use the index of refunds."""

# The foreign key is SQLite's alone: see migration 0003.
charge_items = sa.Table(
    "charge_items",
    metadata,
    sa.Column("account_id", sa.String(32), primary_key=True),
    sa.Column("item_key", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("idx", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("result_sha", sa.String(64), nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["account_id", "seq"], ["ledger.account_id", "ledger.seq"], name="fk_charge_items_ledger"),
    sa.Index("uq_charge_items_position", "account_id", "seq", "idx", unique=True),
)

# No foreign key to `charge_items`: both rows are written in one transaction, and this one may be pruned.
results = sa.Table(
    "results",
    metadata,
    sa.Column("account_id", sa.String(32), primary_key=True),
    sa.Column("item_key", sa.String(64), primary_key=True),
    # `[D]` little-endian float32
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
)

admin_log = sa.Table(
    "admin_log",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    # Unique, so that an act that is tried again under its id finds what the first try did.
    sa.Column("request_id", sa.String(64), nullable=False, unique=True),
    sa.Column("act", sa.String(32), nullable=False),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), index=True),
    # Canonical JSON of what was asked for, and of what came of it.
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # Who acted; null in rows of before revision 0002.
    sa.Column("actor", sa.String(128)),
)


# What is committed is signed in the same transaction; what is older, at the first start of this version or later.
entry_signatures = sa.Table(
    "entry_signatures",
    metadata,
    sa.Column("account_id", sa.String(32), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("signature", sa.String(128), nullable=False),
)

act_signatures = sa.Table(
    "act_signatures",
    metadata,
    sa.Column("act_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # Covers the act's row and the hash of the act before it.
    sa.Column("act_hash", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("signature", sa.String(128), nullable=False),
)

APPEND_ONLY_TABLES = ("ledger", "charge_items", "prices", "admin_log", "entry_signatures", "act_signatures")

_REFUSED_ACTS = {"sqlite": ("update", "delete"), "postgresql": ("update", "delete", "truncate")}

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION vl2v_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; corrections are new rows', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$
"""


class LedgerUnprotected(VendorError):
    """An append-only trigger is missing or altered, so the ledger's rows could be changed."""


def protect(connection: sa.Connection, table: str) -> None:
    """Refuse every UPDATE, DELETE, REPLACE and (PostgreSQL) TRUNCATE of `table` from now on."""
    if is_postgresql(connection):
        connection.execute(sa.text(_POSTGRES_FUNCTION))
    for statement in _triggers(connection, table).values():
        connection.execute(sa.text(statement))


def _triggers(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the statements that make the table's triggers, by name."""
    body = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only; corrections are new rows'); END"
    if is_postgresql(connection):
        body = "FOR EACH STATEMENT EXECUTE FUNCTION vl2v_refuse_change()"
    acts = {f"{table}_refuse_{act}": act.upper() for act in _REFUSED_ACTS[connection.dialect.name]}
    return {name: f"CREATE TRIGGER {name} BEFORE {act} ON {table} {body}" for name, act in acts.items()}


def verify_protection(connection: sa.Connection) -> None:
    """Check that every trigger is there, enabled and as it was made.

    Raises:
        LedgerUnprotected: Names those that are not.
    """
    query, function = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'", ""
    if is_postgresql(connection):
        query = (
            "SELECT tgname, pg_get_triggerdef(pg_trigger.oid, true) || prosrc FROM pg_trigger "
            "JOIN pg_proc ON pg_proc.oid = tgfoid WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
        )
        function = _POSTGRES_FUNCTION.split("$$")[1]
    present = {row[0]: row[1] for row in connection.execute(sa.text(query))}
    needed = {name: made for table in APPEND_ONLY_TABLES for name, made in _triggers(connection, table).items()}
    if wrong := [name for name, statement in needed.items() if present.get(name) != f"{statement}{function}"]:
        raise LedgerUnprotected(
            f"the append-only trigger(s) {', '.join(wrong)} are missing or altered; somebody changed the "
            "schema by hand: restore the database from a backup and run `vl2v-vendor ledger verify`"
        )
