"""How much privacy a run has spent."""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; earlier runs had no privacy."""
    for table in ("runs", "rounds"):
        op.add_column(table, sa.Column("epsilon", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove it, and what is in it."""
    for table in ("runs", "rounds"):
        op.drop_column(table, "epsilon")
