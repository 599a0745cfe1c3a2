"""Attributes that wait for the flip, and where the folders of a store came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the table."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("documents", sa.Column("next_attributes", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "folders",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("store_id", number, nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_folders_store_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_folders")),
        sa.UniqueConstraint("store_id", "prefix", name=op.f("uq_folders_store_id_prefix")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Take both away."""
    op.drop_table("folders")
    op.drop_column("documents", "next_attributes")
