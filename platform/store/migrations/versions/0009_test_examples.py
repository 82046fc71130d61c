"""On how many test examples a measure of the global model stands, and of how many."""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

_ADDED = (("evaluations", "test_examples"), ("runs", "examples"), ("runs", "test_examples"))


def upgrade() -> None:
    """Add the columns, NULL in earlier rows: those figures are of the whole test split."""
    for table, column in _ADDED:
        op.add_column(table, sa.Column(column, sa.Integer(), nullable=True))


def downgrade() -> None:
    """Remove them, and what is in them."""
    for table, column in _ADDED:
        op.drop_column(table, column)
