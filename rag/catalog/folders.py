"""Where a store's documents came from: the folders that were synced into it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest
from rag.catalog import schema
from rag.catalog.records import Folder, Store

_folders = schema.folders.c


def list_folders(connection: Connection, store: Store) -> list[Folder]:
    """The folders that were synced into a store, by prefix."""
    query = sa.select(_folders.prefix, _folders.host, _folders.path).where(_folders.store_id == store.id)
    return [Folder(**row._mapping) for row in connection.execute(query.order_by(_folders.prefix))]


def put_folder(connection: Connection, store: Store, folder: Folder, *, replace: bool) -> None:
    """Remember where the documents below a prefix come from.

    Raises ChangeRequest (`another_folder`) where they came from another folder, unless that is to be replaced.
    """
    mine = sa.and_(_folders.store_id == store.id, _folders.prefix == folder.prefix)
    row = connection.execute(sa.select(_folders.host, _folders.path).where(mine)).first()
    if row is not None and tuple(row) != (folder.host, folder.path) and not replace:
        raise ChangeRequest(
            f"The documents below {folder.prefix} came from another folder, {row.path} on {row.host}. Put this one "
            "into another store, or say that it takes that one's place.",
            code="another_folder",
            param="replace",
        )
    connection.execute(sa.delete(schema.folders).where(mine))
    values = {"store_id": store.id, "prefix": folder.prefix, "host": folder.host, "path": folder.path}
    connection.execute(sa.insert(schema.folders).values(values))
