"""What the dashboard reads at a glance: sums over device classes, pulls, structure left; and what its readers write."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add tables and columns. Sums of older runs are made from their assignments; their structures are not known."""
    op.add_column("runs", sa.Column("course", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("tags", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("notes", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("archived", sa.Boolean(), server_default=sa.false(), nullable=False))
    numbers = ("reward", "download_seconds", "compute_seconds", "upload_seconds", "slowest_seconds")
    op.create_table(
        "class_rounds",
        *_keys(),
        sa.Column("profile", sa.String(length=60), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("sparsity", sa.Double(), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in numbers),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "round", "profile"),
    )
    op.create_table(
        "pulls",
        *_keys(),
        sa.Column("profile", sa.String(length=60), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("pulls", sa.Integer(), nullable=False),
        sa.Column("reward", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "round", "profile", "rank", "step"),
    )
    op.create_table(
        "blocks",
        *_keys(),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("kept", sa.Double(), nullable=False),
        sa.Column("shares", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "round", "block"),
    )
    _fill_in()


def downgrade() -> None:
    """Remove them, and what is in them."""
    for table in ("blocks", "pulls", "class_rounds"):
        op.drop_table(table)
    for name in ("archived", "notes", "tags", "course"):
        op.drop_column("runs", name)


def _keys() -> tuple[sa.Column[str], sa.Column[int]]:
    return sa.Column("run_id", sa.String(length=40), nullable=False), sa.Column("round", sa.Integer(), nullable=False)


_TOOK = "a.download_seconds + a.compute_seconds + a.upload_seconds"
_OF = "FROM assignments a JOIN devices d ON d.run_id = a.run_id AND d.device = a.device"
_BY_CLASS = f"""
INSERT INTO class_rounds
SELECT a.run_id, a.round, d.profile, count(*), sum(CASE WHEN a.status = 'done' THEN 1 ELSE 0 END), avg(a.sparsity),
       avg(a.rank), avg(a.reward), avg(a.download_seconds), avg(a.compute_seconds), avg(a.upload_seconds), max({_TOOK})
{_OF} GROUP BY a.run_id, a.round, d.profile
"""
_PULLS = f"""
INSERT INTO pulls
SELECT a.run_id, a.round, d.profile, a.rank, CAST(round(a.pruning_step * 40) AS INTEGER), count(*), sum(a.reward)
{_OF} WHERE a.reward IS NOT NULL
GROUP BY a.run_id, a.round, d.profile, a.rank, CAST(round(a.pruning_step * 40) AS INTEGER)
"""


def _fill_in() -> None:
    connection = op.get_bind()
    connection.execute(sa.text(_BY_CLASS))
    connection.execute(sa.text(_PULLS))
    runs = sa.table("runs", sa.column("id"), sa.column("course", sa.JSON()))
    measured = sa.table("evaluations", *map(sa.column, ("run_id", "round", "accuracy")))
    for run_id in connection.scalars(sa.select(runs.c.id)).all():
        query = sa.select(measured.c.accuracy).where(measured.c.run_id == run_id).order_by(measured.c.round)
        course = list(connection.scalars(query))
        step = max(-(-len(course) // 32), 1)
        connection.execute(runs.update().where(runs.c.id == run_id).values(course=course[::-1][::step][::-1]))
