"""Whose words stand in what was answered, so that it goes with them. What was answered before goes by its age alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    for answers in ("responses", "traces"):
        name = f"{answers}_documents"
        op.create_table(
            name,
            sa.Column("answer_id", _NUMBER, nullable=False),
            sa.Column("document_id", _NUMBER, nullable=False),
            sa.ForeignKeyConstraint(
                ["answer_id"], [f"{answers}.id"], name=op.f(f"fk_{name}_answer_id"), ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint("answer_id", "document_id", name=op.f(f"pk_{name}")),
        )
        op.create_index(op.f(f"ix_{name}_document_id"), name, ["document_id"])


def downgrade() -> None:
    """Drop the tables."""
    for answers in ("responses", "traces"):
        op.drop_table(f"{answers}_documents")
