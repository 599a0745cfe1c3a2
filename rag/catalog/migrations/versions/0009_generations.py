"""Generations beside the live one: who they are, how far they are filled, and what was done to them."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Add the columns and the table; give every generation an id."""
    for column in (
        sa.Column("public_id", sa.String(40), server_default="", nullable=False),
        sa.Column("settings", _JSON, server_default="{}", nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("error_code", sa.String(32), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("filled_through", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("filled_within", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("characters_per_second", sa.Double(), nullable=True),
        sa.Column("worker_id", _NUMBER, nullable=True),
        sa.Column("changed_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("emptied", sa.Boolean(), server_default=sa.false(), nullable=False),
    ):
        op.add_column("generations", column)
    _name_all()
    op.create_index("uq_generations_public_id", "generations", ["public_id"], unique=True)
    for name in ("store_id", "worker_id"):
        op.create_index(op.f(f"ix_generations_{name}"), "generations", [name])
    op.add_column("chunk_sets", sa.Column("tokenizer", sa.Text(), nullable=True))
    op.add_column("chunk_sets", sa.Column("token_limit", sa.Integer(), nullable=True))
    op.create_table(
        "generation_events",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("store_id", _NUMBER, nullable=False),
        sa.Column("generation_id", _NUMBER, nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("body", _JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["store_id"], ["stores.id"], name=op.f("fk_generation_events_store_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_generation_events_store_id"), "generation_events", ["store_id"])


def downgrade() -> None:
    """Take them away."""
    op.drop_table("generation_events")
    for name in ("token_limit", "tokenizer"):
        op.drop_column("chunk_sets", name)
    for name in ("ix_generations_worker_id", "ix_generations_store_id", "uq_generations_public_id"):
        op.drop_index(name, "generations")
    for name in (
        "emptied",
        "changed_at",
        "worker_id",
        "characters_per_second",
        "filled_within",
        "filled_through",
        "error_message",
        "error_code",
        "paused",
        "settings",
        "public_id",
    ):
        op.drop_column("generations", name)


def _name_all() -> None:
    generations = sa.table("generations", sa.column("id"), sa.column("public_id"), sa.column("changed_at"))
    connection = op.get_bind()
    connection.execute(sa.update(generations).values(changed_at=sa.text("created_at")))
    for number in connection.execute(sa.select(generations.c.id)).scalars().all():
        mine = sa.update(generations).where(generations.c.id == number)
        connection.execute(mine.values(public_id=f"gen_{secrets.token_hex(12)}"))
