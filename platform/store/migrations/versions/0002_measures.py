"""Measures by task, energy, peak memory, and the sweep that a run belongs to."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_CLASSIFICATION = ("macro_f1", "calibration_error")
_GENERATION = ("exact_match", "rouge_l", "bleu")
_NUMBERS = {
    "runs": ("loss", *_CLASSIFICATION, *_GENERATION, "joules"),
    "rounds": ("joules",),
    "assignments": ("test_loss", *_CLASSIFICATION, "joules"),
    "evaluations": (*_CLASSIFICATION, *_GENERATION),
}


def upgrade() -> None:
    """Add the columns; task, loss and peak memory of older runs are read from what is there.

    Never as a batch, which would copy a table and drop the old one: SQLite then deletes what refers to it.
    """
    for table, names in _NUMBERS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Double(), nullable=True))
    op.add_column("rounds", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("evaluations", sa.Column("generated", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("sweep", sa.String(length=200), nullable=True))
    op.create_index("ix_runs_sweep", "runs", ["sweep"], unique=False)
    task = sa.Column("task", sa.String(length=20), nullable=False, server_default="classification")
    op.add_column("runs", task)
    _fill_in()


def downgrade() -> None:
    """Remove the columns, and what is in them."""
    op.drop_index("ix_runs_sweep", "runs")
    for table, name in (
        ("runs", "task"),
        ("runs", "sweep"),
        ("evaluations", "generated"),
        ("rounds", "peak_memory_bytes"),
        *((table, name) for table, names in _NUMBERS.items() for name in names),
    ):
        op.drop_column(table, name)


def _fill_in() -> None:
    connection = op.get_bind()
    runs = sa.table("runs", sa.column("id"), sa.column("job", sa.JSON()), sa.column("task"), sa.column("loss"))
    rounds = sa.table("rounds", *map(sa.column, ("run_id", "round", "peak_memory_bytes")))
    devices = sa.table("assignments", *map(sa.column, ("run_id", "round", "peak_memory_bytes")))
    measured = sa.table("evaluations", *map(sa.column, ("run_id", "round", "loss")))
    for run_id, job in connection.execute(sa.select(runs.c.id, runs.c.job)).all():
        connection.execute(runs.update().where(runs.c.id == run_id).values(task=job["model"]["task"]))
    newest = sa.select(measured.c.loss).where(measured.c.run_id == runs.c.id).order_by(measured.c.round.desc()).limit(1)
    connection.execute(runs.update().values(loss=newest.scalar_subquery()))
    same = (devices.c.run_id == rounds.c.run_id) & (devices.c.round == rounds.c.round)
    largest = sa.select(sa.func.max(devices.c.peak_memory_bytes)).where(same).scalar_subquery()
    connection.execute(rounds.update().values(peak_memory_bytes=largest))
