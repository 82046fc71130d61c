"""How well the aggregation's error is known: it is estimated on a sample."""

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; it is unknown for earlier rounds."""
    op.add_column("rounds", sa.Column("aggregation_error_deviation", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove it, and what is in it."""
    op.drop_column("rounds", "aggregation_error_deviation")
