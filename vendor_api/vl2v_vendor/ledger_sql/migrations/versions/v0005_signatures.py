"""Signatures of entries and of the staff's acts, in tables of their own.

A migration has no signing key. What is there already is signed by whoever opens the ledger next with its secrets.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vl2v_vendor.ledger_sql.tables import protect

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entry_signatures",
        sa.Column("account_id", sa.String(32)),
        sa.Column("seq", sa.BigInteger, autoincrement=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "seq", name="pk_entry_signatures"),
    )
    op.create_table(
        "act_signatures",
        sa.Column("act_id", sa.BigInteger, autoincrement=False),
        sa.Column("act_hash", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("act_id", name="pk_act_signatures"),
    )
    for table in ("entry_signatures", "act_signatures"):
        protect(op.get_bind(), table)


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken apart; restore a backup instead")
