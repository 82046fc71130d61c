"""How far an aggregation fell from the exact mean of the updates."""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; what it was in earlier rounds is not known."""
    op.add_column("rounds", sa.Column("aggregation_error", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("rounds", "aggregation_error")
