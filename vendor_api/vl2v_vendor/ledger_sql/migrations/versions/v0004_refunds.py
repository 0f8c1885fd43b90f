"""Refunds by the entry that they refund: no refund reads the account's whole ledger while it holds the lock.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    refunds = sa.text("kind = 'refund'")
    op.create_index(
        "ix_ledger_refunds", "ledger", ["account_id", "ref_seq"], sqlite_where=refunds, postgresql_where=refunds
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken apart; restore a backup instead")
