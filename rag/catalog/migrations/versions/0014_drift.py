"""What is watched from day to day: a sample of the questions' vectors, canaries, and what each day came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Make the tables."""
    _of_store(
        "query_vectors",
        sa.Column("space_id", _NUMBER, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_query_vectors_space_id")),
    )
    op.create_index(op.f("ix_query_vectors_store_id_day"), "query_vectors", ["store_id", "day"])
    _of_store(
        "canaries",
        sa.Column("question_set_id", _NUMBER, nullable=False),
        sa.Column("hits", _JSON, nullable=False),
        sa.Column("frozen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["question_set_id"], ["question_sets.id"], name=op.f("fk_canaries_question_set_id")),
        sa.UniqueConstraint("store_id", name=op.f("uq_canaries_store_id")),
    )
    _of_store(
        "drift_days",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("worker_id", _NUMBER, nullable=True),
        sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("body", _JSON, nullable=True),
        sa.UniqueConstraint("store_id", "day", name=op.f("uq_drift_days_store_id_day")),
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("drift_days", "canaries", "query_vectors"):
        op.drop_table(name)


def _of_store(name: str, *items: sa.schema.SchemaItem) -> None:
    op.create_table(
        name,
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("store_id", _NUMBER, nullable=False),
        *items,
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f(f"fk_{name}_store_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sqlite_autoincrement=True,
    )
