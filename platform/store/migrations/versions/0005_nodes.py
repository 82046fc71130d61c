"""Which nodes serve a run, and when each was last heard of."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the table; of earlier runs nobody knows their nodes."""
    op.create_table(
        "nodes",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("node", sa.String(length=20), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("last_contact", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "node"),
    )


def downgrade() -> None:
    """Remove it, and what is in it."""
    op.drop_table("nodes")
