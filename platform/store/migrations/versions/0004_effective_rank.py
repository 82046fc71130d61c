"""The ranks that a device's adapter has not switched off."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; no earlier run had a rank that was off."""
    op.add_column("assignments", sa.Column("effective_rank", sa.Double(), nullable=True))
    devices = sa.table("assignments", sa.column("rank"), sa.column("effective_rank"), sa.column("loss_after"))
    trained = devices.c.loss_after.is_not(None)
    op.get_bind().execute(devices.update().where(trained).values(effective_rank=devices.c.rank))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("assignments", "effective_rank")
