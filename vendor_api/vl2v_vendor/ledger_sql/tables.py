"""The tables, and the triggers that make some of them append-only.

Counts are units (queries), money is micro-units, times are microseconds since the epoch, UTC. `ledger`, `charge_items`,
`prices` and `admin_log` are append-only and are never rebuilt by a migration: new facts go into side tables. `budgets`
is a guarded cache of the ledger's own sums; `results` may be pruned. No table holds an image, a text, an unkeyed
hash of either, or a secret.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal,
    text,
)

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.ledger_sql.database import is_postgresql

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only for a key of type INTEGER."""

vendor = Table(
    "vendor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ledger_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
    Column("predecessor_id", String(16)),
    Column("predecessor_signature", String(128)),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("currency", String(3), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("prefix", String(16), nullable=False, index=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("scopes", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("api_key_id", ForeignKey("api_keys.id"), unique=True),
    Column("limit_units", BigInteger, nullable=False),
    Column("used_units", BigInteger, nullable=False),
    # The end of the account's chain; of no use in a key's row.
    Column("last_seq", BigInteger, nullable=False),
    Column("head_hash", String(64), nullable=False),
    Column("last_created_at", BigInteger, nullable=False),
    CheckConstraint("used_units >= 0 AND used_units <= limit_units", name="within_limit"),
)
Index(
    "uq_budgets_account",
    budgets.c.account_id,
    unique=True,
    sqlite_where=text("api_key_id IS NULL"),
    postgresql_where=text("api_key_id IS NULL"),
)
Index("ix_budgets_account_id", budgets.c.account_id)

prices = Table(
    "prices",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("model_id", String(256), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("unit_price_micro", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("valid_from", BigInteger, nullable=False),
    CheckConstraint("unit_price_micro >= 0", name="not_negative"),
    Index("ix_prices_model_id", "model_id", "modality"),
)

_REFUNDS = text("kind = 'refund'")

# No CHECK on `kind`: later kinds must not need a rebuild of this table.
ledger = Table(
    "ledger",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("v", Integer, nullable=False),
    Column("ledger_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("api_key_id", ForeignKey("api_keys.id")),
    Column("endpoint", String(64)),
    Column("modality", String(16)),
    Column("model_id", String(256)),
    Column("weights_sha", String(64)),
    Column("precision", String(32)),
    Column("preprocessing_id", String(128)),
    Column("units", BigInteger, nullable=False),
    Column("price_id", ForeignKey("prices.id")),
    Column("unit_price_micro", BigInteger, nullable=False),
    Column("amount_micro", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("items_hash", String(64)),
    Column("ref_seq", BigInteger),
    Column("note", Text),
    Column("used_units", BigInteger, nullable=False),
    Column("limit_units", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("signing_key_id", ForeignKey("signing_keys.key_id"), nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("entry_hash", String(64), nullable=False),
    UniqueConstraint("account_id", "request_id", name="uq_ledger_request"),
    Index("ix_ledger_refunds", "account_id", "ref_seq", sqlite_where=_REFUNDS, postgresql_where=_REFUNDS),
)

IS_REFUND = ledger.c.kind == literal("refund", literal_execute=True)
"""Written out in the statement, or no database would use the index of refunds."""

# The foreign key is SQLite's alone: see migration 0003.
charge_items = Table(
    "charge_items",
    metadata,
    Column("account_id", String(32), primary_key=True),
    Column("item_key", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("result_sha", String(64), nullable=False),
    Column("units", BigInteger, nullable=False),
    ForeignKeyConstraint(["account_id", "seq"], ["ledger.account_id", "ledger.seq"], name="fk_charge_items_ledger"),
    Index("uq_charge_items_position", "account_id", "seq", "idx", unique=True),
)

# No foreign key to `charge_items`: both rows are written in one transaction, and this one may be pruned.
results = Table(
    "results",
    metadata,
    Column("account_id", String(32), primary_key=True),
    Column("item_key", String(64), primary_key=True),
    # `[D]` little-endian float32
    Column("vector", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

admin_log = Table(
    "admin_log",
    metadata,
    Column("id", BigId, primary_key=True),
    # Unique, so that an act that is tried again under its id finds what the first try did.
    Column("request_id", String(64), nullable=False, unique=True),
    Column("act", String(32), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), index=True),
    # Canonical JSON of what was asked for, and of what came of it.
    Column("parameters", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Who acted; null in rows of before revision 0002.
    Column("actor", String(128)),
)


APPEND_ONLY_TABLES = ("ledger", "charge_items", "prices", "admin_log")

_REFUSED_ACTS = {"sqlite": ("update", "delete"), "postgresql": ("update", "delete", "truncate")}

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
    body = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only; corrections are new rows'); END"
    if is_postgresql(connection):
        connection.execute(text(_POSTGRES_FUNCTION))
        body = "FOR EACH STATEMENT EXECUTE FUNCTION vl2v_refuse_change()"
    for act in _REFUSED_ACTS[connection.dialect.name]:
        connection.execute(text(f"CREATE TRIGGER {table}_refuse_{act} BEFORE {act.upper()} ON {table} {body}"))


def verify_protection(connection: Connection) -> None:
    """Check that every trigger is there and enabled.

    Raises:
        LedgerUnprotected: Names those that are not.
    """
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if is_postgresql(connection):
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
    present = set(connection.execute(text(query)).scalars())
    acts = _REFUSED_ACTS[connection.dialect.name]
    needed = [f"{table}_refuse_{act}" for table in APPEND_ONLY_TABLES for act in acts]
    if missing := [name for name in needed if name not in present]:
        raise LedgerUnprotected(
            f"the append-only trigger(s) {', '.join(missing)} are missing; somebody changed the schema by hand: "
            "restore the database from a backup and run `vl2v-vendor ledger verify`"
        )
