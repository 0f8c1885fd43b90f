"""Accounts, keys, budgets, prices, the append-only ledger with its items and results, and the admin log.

Revision: 0001
"""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op

from vl2v_vendor.ledger_sql.database import is_postgresql
from vl2v_vendor.ledger_sql.tables import protect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_big_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_vendor()
    _create_accounts()
    _create_prices()
    _create_ledger()
    _create_items()
    _create_admin_log()
    for table in ("ledger", "charge_items", "prices", "admin_log"):
        protect(op.get_bind(), table)


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken apart; restore a backup instead")


def _create_vendor() -> None:
    vendor = op.create_table(
        "vendor",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("ledger_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vendor"),
        sa.CheckConstraint("id = 1", name=op.f("ck_vendor_single_row")),
    )
    now = time.time_ns() // 1000
    op.bulk_insert(vendor, [{"id": 1, "ledger_id": f"ledger_{secrets.token_hex(12)}", "created_at": now}])
    op.create_table(
        "signing_keys",
        sa.Column("key_id", sa.String(16)),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
        sa.Column("predecessor_id", sa.String(16)),
        sa.Column("predecessor_signature", sa.String(128)),
        sa.PrimaryKeyConstraint("key_id", name="pk_signing_keys"),
    )


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32)),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32)),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id"),
        sa.UniqueConstraint("secret_sha256", name="uq_api_keys_secret_sha256"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_index("ix_api_keys_prefix", "api_keys", ["prefix"])
    op.create_table(
        "budgets",
        sa.Column("id", _big_id),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("api_key_id", sa.String(32)),
        sa.Column("limit_units", sa.BigInteger, nullable=False),
        sa.Column("used_units", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("head_hash", sa.String(64), nullable=False),
        sa.Column("last_created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_budgets_account_id"),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_budgets_api_key_id"),
        sa.UniqueConstraint("api_key_id", name="uq_budgets_api_key_id"),
        sa.CheckConstraint("used_units >= 0 AND used_units <= limit_units", name=op.f("ck_budgets_within_limit")),
    )
    op.create_index(
        "uq_budgets_account",
        "budgets",
        ["account_id"],
        unique=True,
        sqlite_where=sa.text("api_key_id IS NULL"),
        postgresql_where=sa.text("api_key_id IS NULL"),
    )
    op.create_index("ix_budgets_account_id", "budgets", ["account_id"])


def _create_prices() -> None:
    op.create_table(
        "prices",
        sa.Column("id", _big_id),
        sa.Column("model_id", sa.String(256), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("unit_price_micro", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("valid_from", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
        sa.CheckConstraint("unit_price_micro >= 0", name=op.f("ck_prices_not_negative")),
    )
    op.create_index("ix_prices_model_id", "prices", ["model_id", "modality"])


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("account_id", sa.String(32)),
        sa.Column("seq", sa.BigInteger, autoincrement=False),
        sa.Column("v", sa.Integer, nullable=False),
        sa.Column("ledger_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("api_key_id", sa.String(32)),
        sa.Column("endpoint", sa.String(64)),
        sa.Column("modality", sa.String(16)),
        sa.Column("model_id", sa.String(256)),
        sa.Column("weights_sha", sa.String(64)),
        sa.Column("precision", sa.String(32)),
        sa.Column("preprocessing_id", sa.String(128)),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("price_id", _big_id),
        sa.Column("unit_price_micro", sa.BigInteger, nullable=False),
        sa.Column("amount_micro", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("items_hash", sa.String(64)),
        sa.Column("ref_seq", sa.BigInteger),
        sa.Column("note", sa.Text),
        sa.Column("used_units", sa.BigInteger, nullable=False),
        sa.Column("limit_units", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("signing_key_id", sa.String(16), nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("entry_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "seq", name="pk_ledger"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_ledger_account_id"),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_ledger_api_key_id"),
        sa.ForeignKeyConstraint(["price_id"], ["prices.id"], name="fk_ledger_price_id"),
        sa.ForeignKeyConstraint(["signing_key_id"], ["signing_keys.key_id"], name="fk_ledger_signing_key_id"),
        sa.UniqueConstraint("account_id", "request_id", name="uq_ledger_request"),
    )


def _create_items() -> None:
    op.create_table(
        "charge_items",
        sa.Column("account_id", sa.String(32)),
        sa.Column("item_key", sa.String(64)),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("idx", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("result_sha", sa.String(64), nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "item_key", name="pk_charge_items"),
        sa.ForeignKeyConstraint(
            ["account_id", "seq"], ["ledger.account_id", "ledger.seq"], name="fk_charge_items_ledger"
        ),
    )
    op.create_index("uq_charge_items_position", "charge_items", ["account_id", "seq", "idx"], unique=True)
    op.create_table(
        "results",
        sa.Column("account_id", sa.String(32)),
        sa.Column("item_key", sa.String(64)),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "item_key", name="pk_results"),
    )
    op.create_index("ix_results_expires_at", "results", ["expires_at"])
    if is_postgresql(op.get_bind()):
        # Vectors do not compress, and at 2 KiB would all go to a side table by default.
        op.execute("ALTER TABLE results ALTER COLUMN vector SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE results SET (toast_tuple_target = 8160)")


def _create_admin_log() -> None:
    op.create_table(
        "admin_log",
        sa.Column("id", _big_id),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("account_id", sa.String(32)),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_admin_log"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_admin_log_account_id"),
        sa.UniqueConstraint("request_id", name="uq_admin_log_request_id"),
    )
    op.create_index("ix_admin_log_account_id", "admin_log", ["account_id"])
