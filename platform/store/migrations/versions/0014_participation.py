"""How many devices took part in a round, of how many available ones, and how long the round waited for them."""

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns, NULL in earlier rows: all devices took part, and nothing waited."""
    op.add_column("rounds", sa.Column("asked", sa.Integer(), nullable=True))
    op.add_column("rounds", sa.Column("available", sa.Integer(), nullable=True))
    op.add_column("rounds", sa.Column("waited_seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove them, and what is in them."""
    for column in ("waited_seconds", "available", "asked"):
        op.drop_column("rounds", column)
