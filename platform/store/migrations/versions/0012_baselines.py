"""What a run is judged by: the untuned model, the most frequent class, a held-out test split, runs of reference."""

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None


def _columns() -> list[tuple[str, sa.Column]]:
    return [
        ("evaluations", sa.Column("majority", sa.Double(), nullable=True)),
        ("evaluations", sa.Column("held_out", sa.JSON(), nullable=True)),
        ("runs", sa.Column("evaluated_on", sa.String(20), nullable=False, server_default="test")),
        ("runs", sa.Column("base_accuracy", sa.Double(), nullable=True)),
        ("runs", sa.Column("majority", sa.Double(), nullable=True)),
        ("runs", sa.Column("held_out_accuracy", sa.Double(), nullable=True)),
        ("runs", sa.Column("reference", sa.String(20), nullable=True)),
        ("runs", sa.Column("reference_of", sa.String(40), nullable=True)),
    ]


def upgrade() -> None:
    """Add the columns, NULL in earlier rows: those runs measured no round 0."""
    for table, column in _columns():
        op.add_column(table, column)
    op.create_index("ix_runs_reference_of", "runs", ["reference_of"])


def downgrade() -> None:
    """Remove them, and what is in them."""
    op.drop_index("ix_runs_reference_of", table_name="runs")
    for table, column in reversed(_columns()):
        op.drop_column(table, column.name)
