"""Measures of language models: bits a byte, and accuracy of multiple choice by bytes of the choices."""

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

_MEASURES = ("bits_per_byte", "accuracy_normalised")


def upgrade() -> None:
    """Add the columns, NULL in earlier rows: they were not measured."""
    for table in ("runs", "evaluations"):
        for measure in _MEASURES:
            op.add_column(table, sa.Column(measure, sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove them, and what is in them."""
    for table in ("runs", "evaluations"):
        for measure in _MEASURES:
            op.drop_column(table, measure)
