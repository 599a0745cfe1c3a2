"""What is still to be told to an engine of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "index_tasks",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("space_id", number, nullable=False),
        sa.Column("store_id", number, nullable=False),
        sa.Column("document_id", number, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_tasks")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("index_tasks")
