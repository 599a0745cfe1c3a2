"""What is compared on live traffic: arms of experiments, and questions mirrored to a generation that is not live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "trace_arms",
        sa.Column("trace_id", _NUMBER, nullable=False),
        sa.Column("experiment", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["trace_id"], ["traces.id"], name=op.f("fk_trace_arms_trace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trace_id", "experiment", name=op.f("pk_trace_arms")),
    )
    op.create_index(op.f("ix_trace_arms_experiment"), "trace_arms", ["experiment"])
    op.add_column("generations", sa.Column("mirror_share", sa.Double(), server_default="0", nullable=False))
    op.create_table(
        "mirrored_questions",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("generation_id", _NUMBER, nullable=False),
        sa.Column("live_id", _NUMBER, nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Double(), nullable=False),
        sa.Column("correlation", sa.Double(), nullable=True),
        sa.Column("live_ms", sa.Double(), nullable=False),
        sa.Column("mirrored_ms", sa.Double(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.id"],
            name=op.f("fk_mirrored_questions_generation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirrored_questions")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_mirrored_questions_generation_id"), "mirrored_questions", ["generation_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("mirrored_questions")
    op.drop_column("generations", "mirror_share")
    op.drop_table("trace_arms")
