"""The mark of a move, and where the blobs went with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both columns."""
    op.add_column("installation", sa.Column("move", sa.JSON(none_as_null=True)))
    op.add_column("installation", sa.Column("blobs", sa.Text()))


def downgrade() -> None:
    """Drop both columns."""
    op.drop_column("installation", "blobs")
    op.drop_column("installation", "move")
