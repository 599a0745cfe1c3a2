"""File batches: files that were put into a store together, asked after and cancelled together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import NotThere
from rag.access import Caller
from rag.catalog import documents, schema, seen
from rag.catalog.records import ACTIVE, Counts, Document, FileBatch, Page, PageRequest, State, Store

_batches, _members = schema.file_batches.c, schema.file_batch_documents.c


def create_batch(connection: Connection, store: Store, document_ids: Sequence[int]) -> FileBatch:
    """Remember that these documents were put into the store together."""
    values = {"public_id": f"vsfb_{secrets.token_hex(12)}", "store_id": store.id, "created_at": int(time.time())}
    made = connection.execute(sa.insert(schema.file_batches).values(values)).inserted_primary_key
    assert made is not None
    rows = [{"file_batch_id": made[0], "document_id": number} for number in document_ids]
    connection.execute(sa.insert(schema.file_batch_documents), rows)
    return get_batch(connection, store, str(values["public_id"]))


def get_batch(connection: Connection, store: Store, public_id: str) -> FileBatch:
    """A batch of a store. Raises NotThere."""
    query = sa.select(schema.file_batches).where(_batches.store_id == store.id, _batches.public_id == public_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(
            f"The vector store {store.public_id} has no file batch {public_id!r}.",
            code="file_batch_not_found",
            param="batch_id",
        )
    return FileBatch(**row._mapping)


def count_documents(connection: Connection, caller: Caller, batch: FileBatch) -> Counts:
    """Where the documents of a batch that the caller may see stand."""
    query = (
        sa.select(schema.documents.c.state, sa.func.count().label("number"))
        .where(schema.documents.c.id.in_(_ids(batch)), seen.newest_documents(connection, caller))
        .group_by(schema.documents.c.state)
    )
    return Counts.of_states({row.state: row.number for row in connection.execute(query)})


def list_documents(
    connection: Connection,
    caller: Caller,
    store: Store,
    batch: FileBatch,
    page: PageRequest,
    states: Sequence[State] | None,
) -> Page[Document]:
    """The documents of a batch, one page of them, in the order in which they came into the store."""
    return documents.list_documents(connection, caller, store, page, states, within=_ids(batch))


def cancel(connection: Connection, caller: Caller, batch: FileBatch) -> bool:
    """Stop work on the documents of a batch. False when there is none to stop."""
    query = sa.select(schema.documents.c.id).where(
        schema.documents.c.id.in_(_ids(batch)),
        schema.documents.c.state.in_(ACTIVE),
        seen.newest_documents(connection, caller),
    )
    at_work = list(connection.execute(query).scalars())
    if not at_work:
        return False
    for document in documents.get_documents(connection, at_work):
        documents.cancel(connection, document)
    connection.execute(sa.update(schema.file_batches).where(_batches.id == batch.id).values(cancelled=True))
    return True


def _ids(batch: FileBatch) -> sa.Select[tuple[int]]:
    return sa.select(_members.document_id).where(_members.file_batch_id == batch.id)
