"""Updates that count in a later round than the one that asked for them."""

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns, NULL in earlier rows: their rounds waited for all devices."""
    op.add_column("rounds", sa.Column("late", sa.Integer(), nullable=True))
    op.add_column("rounds", sa.Column("staleness", sa.Double(), nullable=True))
    op.add_column("rounds", sa.Column("in_flight", sa.Integer(), nullable=True))
    op.add_column("assignments", sa.Column("staleness", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Remove them, and what is in them."""
    op.drop_column("assignments", "staleness")
    for column in ("in_flight", "staleness", "late"):
        op.drop_column("rounds", column)
