"""What is still to be told to an engine of its own, written down in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema

_tasks = schema.index_tasks.c


@dataclass(frozen=True)
class IndexTask:
    """A document's attributes to tell; or a store to forget, where no document is named."""

    id: int
    space_id: int
    store_id: int
    document_id: int | None


def add(connection: Connection, space_id: int, store_id: int, document_id: int | None = None) -> None:
    """Write a task down."""
    values = {"space_id": space_id, "store_id": store_id, "document_id": document_id}
    connection.execute(sa.insert(schema.index_tasks).values(values))


def waiting(connection: Connection, most: int = 500) -> list[IndexTask]:
    """The oldest tasks."""
    rows = connection.execute(sa.select(schema.index_tasks).order_by(_tasks.id).limit(most))
    return [IndexTask(**row._mapping) for row in rows]


def forget_all(connection: Connection) -> None:
    """For an engine that is filled anew, or none."""
    connection.execute(sa.delete(schema.index_tasks))


def cross_off(connection: Connection, task_ids: Sequence[int]) -> None:
    """Forget tasks that are done."""
    connection.execute(sa.delete(schema.index_tasks).where(_tasks.id.in_(task_ids)))
