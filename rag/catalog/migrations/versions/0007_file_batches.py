"""Files that were put into a store together, a way of splitting of a document's own, and what expires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("stores", sa.Column("expires_after_days", sa.Integer(), nullable=True))
    op.add_column("files", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_files_expires_at"), "files", ["expires_at"])
    op.add_column("documents", sa.Column("chunking", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "file_batches",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("store_id", number, nullable=False),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_file_batches_store_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file_batches")),
        sa.UniqueConstraint("public_id", name=op.f("uq_file_batches_public_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_file_batches_store_id"), "file_batches", ["store_id"])
    op.create_table(
        "file_batch_documents",
        sa.Column("file_batch_id", number, nullable=False),
        sa.Column("document_id", number, nullable=False),
        sa.ForeignKeyConstraint(
            ["file_batch_id"],
            ["file_batches.id"],
            name=op.f("fk_file_batch_documents_file_batch_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_file_batch_documents_document_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("file_batch_id", "document_id", name=op.f("pk_file_batch_documents")),
    )
    op.create_index(op.f("ix_file_batch_documents_document_id"), "file_batch_documents", ["document_id"])


def downgrade() -> None:
    """Take them away."""
    op.drop_table("file_batch_documents")
    op.drop_table("file_batches")
    op.drop_column("documents", "chunking")
    op.drop_index(op.f("ix_files_expires_at"), "files")
    op.drop_column("files", "expires_at")
    op.drop_column("stores", "expires_after_days")
