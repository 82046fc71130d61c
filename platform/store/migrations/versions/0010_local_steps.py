"""How many local optimiser steps a device was given in a round: the number can differ by device and round."""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column, NULL in earlier rows: those devices took as many steps as the job says."""
    op.add_column("assignments", sa.Column("local_steps", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Remove it, and what is in it."""
    op.drop_column("assignments", "local_steps")
