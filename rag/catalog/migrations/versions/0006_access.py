"""API keys, permission tags of documents, and who uploaded a file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TELL_ENGINES = """
INSERT INTO index_tasks (space_id, store_id, document_id)
SELECT generations.space_id, documents.store_id, documents.id
FROM documents JOIN generations ON generations.store_id = documents.store_id
WHERE generations.vector_index = 'qdrant'
"""
"""Points that were written before carry no tag, not even the one of documents without tags: only administrators would
find them."""


def upgrade() -> None:
    """Add the table and the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    json = sa.JSON(none_as_null=True)
    op.create_table(
        "keys",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", json, nullable=False),
        sa.Column("stores", json, nullable=True),
        sa.Column("permissions", json, nullable=False),
        sa.Column("may_delegate", sa.Boolean(), nullable=False),
        sa.Column("limits", json, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_keys_public_id")),
        sa.UniqueConstraint("hash", name=op.f("uq_keys_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_keys_tenant"), "keys", ["tenant"])
    op.add_column("documents", sa.Column("permissions", json, server_default="[]", nullable=False))
    op.add_column("documents", sa.Column("next_permissions", json, nullable=True))
    op.add_column("files", sa.Column("uploader", sa.Text(), nullable=True))
    op.execute(TELL_ENGINES)


def downgrade() -> None:
    """Take them away."""
    op.drop_column("files", "uploader")
    op.drop_column("documents", "next_permissions")
    op.drop_column("documents", "permissions")
    op.drop_index(op.f("ix_keys_tenant"), "keys")
    op.drop_table("keys")
