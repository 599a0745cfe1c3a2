"""Question sets, and the evaluations made with them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "question_sets",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("dev_share", sa.Double(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_question_sets")),
        sa.UniqueConstraint("public_id", name=op.f("uq_question_sets_public_id")),
        sa.UniqueConstraint("tenant", "name", "version", name=op.f("uq_question_sets_tenant_name_version")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "questions",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("question_set_id", _NUMBER, nullable=False),
        sa.Column("split", sa.String(length=8), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.CheckConstraint("split IN ('dev','test')", name=op.f("ck_questions_split")),
        sa.ForeignKeyConstraint(
            ["question_set_id"], ["question_sets.id"], name=op.f("fk_questions_question_set_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_questions")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_questions_question_set_id_split"), "questions", ["question_set_id", "split"])
    op.create_table(
        "evaluations",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("stores", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("worker_id", _NUMBER, nullable=True),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('queued','running','completed','failed')", name=op.f("ck_evaluations_state")),
        sa.CheckConstraint(
            "(state = 'failed') = (error_code IS NOT NULL)", name=op.f("ck_evaluations_failed_says_why")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("public_id", name=op.f("uq_evaluations_public_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_evaluations_tenant"), "evaluations", ["tenant"])
    op.create_index(op.f("ix_evaluations_state"), "evaluations", ["state"])


def downgrade() -> None:
    """Drop the tables."""
    for name in ("evaluations", "questions", "question_sets"):
        op.drop_table(name)
