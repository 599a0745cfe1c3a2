"""What is compared on live traffic: A/B tests, and questions mirrored to a generation that is not live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "ab_tests",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arms", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ab_tests")),
        sa.UniqueConstraint("public_id", name=op.f("uq_ab_tests_public_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_ab_tests_tenant"), "ab_tests", ["tenant"])
    op.create_table(
        "trace_arms",
        sa.Column("trace_id", _NUMBER, nullable=False),
        sa.Column("ab_test_id", _NUMBER, nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trace_id"], ["traces.id"], name=op.f("fk_trace_arms_trace_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["ab_test_id"], ["ab_tests.id"], name=op.f("fk_trace_arms_ab_test_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trace_id", "ab_test_id", name=op.f("pk_trace_arms")),
    )
    op.create_index(op.f("ix_trace_arms_ab_test_id"), "trace_arms", ["ab_test_id"])
    op.add_column("generations", sa.Column("mirror_share", sa.Double(), server_default="0", nullable=False))
    op.create_table(
        "mirrored_questions",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("generation_id", _NUMBER, nullable=False),
        sa.Column("live_id", _NUMBER, nullable=False),
        sa.Column("overlap", sa.Double(), nullable=True),
        sa.Column("live_ms", sa.Double(), nullable=False),
        sa.Column("mirrored_ms", sa.Double(), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
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
    op.drop_table("ab_tests")
