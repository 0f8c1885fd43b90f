"""PostgreSQL keeps vectors beside their keys: floats do not compress, and a side table would cost more than they do.

Up to 8 kB in a row, 2,000 numbers wide, lie in line; wider ones still go aside. Rows written earlier stay as they are.

Revision: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE results ALTER COLUMN vector SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE results SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken apart; restore a backup instead")
