"""Samples of what a language model wrote, with their prompts and references."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column, NULL in earlier rows: nobody kept them."""
    op.add_column("evaluations", sa.Column("samples", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Remove it, and what is in it."""
    op.drop_column("evaluations", "samples")
