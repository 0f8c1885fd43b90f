"""Who acted: a column in the admin log, added in place, since append-only tables are never rebuilt.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("admin_log", sa.Column("actor", sa.String(128)))


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken apart; restore a backup instead")
