"""Documents: files in a store, their states and the fence around every change of state."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere, TryLater
from rag.catalog import schema
from rag.catalog.paging import page_rows
from rag.catalog.records import ACTIVE, Document, File, Page, PageRequest, State, Store
from rag.catalog.stores import next_seq
from rag.context import Scalar

_documents = schema.documents.c


def put_document(
    connection: Connection, store: Store, file: File, source: str, attributes: Mapping[str, Scalar] | None
) -> Document:
    """Put a file into a store under a source name, to be ingested.

    A document that already has the source is replaced: its present version answers until the new one is
    published. With the very same bytes it is left as it is, unless it failed or was cancelled.
    """
    now = int(time.time())
    found = find_document(connection, store.id, source)
    if found is None:
        values = {
            "store_id": store.id,
            "tenant": store.tenant,
            "file_id": file.id,
            "source": source,
            "attributes": dict(attributes or {}),
            "state": "queued",
            "created_at": now,
            "updated_at": now,
        }
        connection.execute(sa.insert(schema.documents).values(values))
    else:
        same = found.blob == file.blob and found.filename == file.filename
        if attributes is not None and dict(attributes) != dict(found.attributes):
            set_attributes(connection, found, attributes)
        connection.execute(sa.update(schema.documents).where(_documents.id == found.id).values(file_id=file.id))
        if same:
            # What answers goes by the new file too: the old one may be deleted.
            versions = schema.versions
            mine = sa.and_(versions.c.document_id == found.id, versions.c.file_id == found.file_id)
            connection.execute(
                sa.update(versions).where(mine, versions.c.retired_seq.is_(None)).values(file_id=file.id)
            )
        if not same or found.state in ("failed", "cancelled"):
            _restart(connection, found.id, "queued")
    document = find_document(connection, store.id, source)
    assert document is not None
    return document


def find_document(connection: Connection, store_id: int, source: str) -> Document | None:
    """The document of a store that has this source name, if any."""
    row = connection.execute(_select().where(_documents.store_id == store_id, _documents.source == source)).first()
    return None if row is None else _document(row)


def get_document(connection: Connection, store: Store, file_id: str) -> Document:
    """The document of a store that stands on this file (public id). Raises NotThere."""
    query = _select().where(_documents.store_id == store.id, schema.files.c.public_id == file_id)
    row = connection.execute(query.order_by(_documents.id.desc()).limit(1)).first()
    if row is None:
        raise NotThere(
            f"The vector store {store.public_id} has no file {file_id!r}.", code="file_not_found", param="file_id"
        )
    return _document(row)


def get_documents(connection: Connection, ids: Sequence[int]) -> list[Document]:
    """Documents by number, in order of number; those that are gone are left out."""
    rows = connection.execute(_select().where(_documents.id.in_(ids)).order_by(_documents.id))
    return [_document(row) for row in rows]


def list_documents(
    connection: Connection, store: Store, page: PageRequest, states: Sequence[State] | None = None
) -> Page[Document]:
    """A store's documents, one page of them, in the order in which they came."""
    query = _select().where(_documents.store_id == store.id)
    if states is not None:
        query = query.where(_documents.state.in_(states))
    rows, more = page_rows(connection, query, _documents.id, schema.files.c.public_id, page)
    return Page([_document(row) for row in rows], more)


def has_attribute(connection: Connection, store_id: int, key: str) -> bool:
    """Whether a document of a store has an attribute of this name."""
    if connection.dialect.name == "sqlite":  # in whose paths a key with a quote cannot be written
        each = sa.func.json_each(_documents.attributes).table_valued("key", joins_implicitly=True)
        has: sa.ColumnElement[bool] = sa.select(each.c.key).where(each.c.key == key).exists()
    else:
        has = _documents.attributes[key].as_string().is_not(None)
    query = sa.select(_documents.id).where(_documents.store_id == store_id, has).limit(1)
    return connection.execute(query).first() is not None


def documents_of_file(connection: Connection, file_id: int) -> list[Document]:
    """Every document that stands on a file, in any store."""
    return [_document(row) for row in connection.execute(_select().where(_documents.file_id == file_id))]


def set_attributes(connection: Connection, document: Document, attributes: Mapping[str, Scalar]) -> None:
    """Replace a document's attributes. Views learn it through the change log."""
    values = {"attributes": dict(attributes), "updated_at": int(time.time())}
    connection.execute(sa.update(schema.documents).where(_documents.id == document.id).values(values))
    connection.execute(
        sa.update(schema.versions)
        .where(
            schema.versions.c.document_id == document.id,
            schema.versions.c.published_seq.is_not(None),
            schema.versions.c.retired_seq.is_(None),
        )
        .values(changed_seq=next_seq(connection, document.store_id))
    )


def retry(connection: Connection, document: Document) -> bool:
    """Queue a failed or cancelled document again. False when it is neither."""
    return document.state in ("failed", "cancelled") and _restart(connection, document.id, "queued", document.attempt)


def cancel(connection: Connection, document: Document) -> bool:
    """Stop work on a document. False when there is none to stop. An earlier version goes on answering."""
    return document.state in ACTIVE and _restart(connection, document.id, "cancelled", document.attempt)


def delete_document(connection: Connection, document: Document) -> None:
    """Forget a document in whatever state it is; what it published is gone from the next query."""
    connection.execute(sa.delete(schema.documents).where(_documents.id == document.id))
    _retire(connection, document.id, next_seq(connection, document.store_id))


def active_of_batch(connection: Connection, batch: str) -> list[Document]:
    """The documents of a batch that still want work, in order of number."""
    query = _select().where(_documents.batch == batch, _documents.state.in_(ACTIVE))
    return [_document(row) for row in connection.execute(query.order_by(_documents.id))]


def count_waiting(connection: Connection) -> int:
    """Documents that still want work, over all stores."""
    return connection.execute(sa.select(sa.func.count()).where(_documents.state.in_(ACTIVE))).scalar_one()


def advance(connection: Connection, document_id: int, attempt: int, state: State, **values: Any) -> bool:
    """Move a document on. False when the attempt is no longer the current one or work on it has ended."""
    return _fenced(connection, document_id, attempt, {"state": state, **values})


def add_progress(connection: Connection, tally: Mapping[int, Sequence[int]]) -> None:
    """Count vectors that were computed: document to (attempt, vectors, tokens)."""
    for document_id, (attempt, computed, tokens) in sorted(tally.items()):
        connection.execute(
            sa.update(schema.documents)
            .where(_documents.id == document_id, _documents.attempt == attempt)
            .values(
                embedded=_documents.embedded + computed,
                embedded_tokens=_documents.embedded_tokens + tokens,
                chunks_done=_documents.chunks_done + computed,
            )
        )


def fail(connection: Connection, document_id: int, attempt: int, code: str, message: str) -> bool:
    """End work on a document with a typed error. False as for `advance`."""
    values = {"state": "failed", "error_code": code, "error_message": message[:2000], "batch": None}
    return _fenced(connection, document_id, attempt, values)


def isolate(connection: Connection, document_id: int, attempt: int) -> bool:
    """Queue a document whose batch died, away from the others. False as for `advance`."""
    values = {"state": "queued", "alone": True, "batch": None, "attempt": attempt + 1}
    return _fenced(connection, document_id, attempt, values)


def publish(connection: Connection, document: Document, version_id: int) -> bool:
    """The flip: this version answers from now on, and the one before no longer does.

    False, and nothing changed, when the attempt is no longer the current one.
    """
    if not _fenced(connection, document.id, document.attempt, {"state": "completed", "batch": None, "alone": False}):
        return False
    seq = next_seq(connection, document.store_id)
    _retire(connection, document.id, seq)
    versions = schema.versions
    flipped = connection.execute(
        sa.update(versions).where(versions.c.id == version_id).values(published_seq=seq)
    ).rowcount
    if flipped != 1:
        # The caller's transaction is rolled back: nothing has changed.
        raise TryLater(f"The parsed text of document {document.id} is gone; it will be parsed again.", code="conflict")
    return True


def _fenced(connection: Connection, document_id: int, attempt: int, values: Mapping[str, Any]) -> bool:
    statement = (
        sa.update(schema.documents)
        .where(_documents.id == document_id, _documents.attempt == attempt, _documents.state.in_(ACTIVE))
        .values(updated_at=int(time.time()), **values)
    )
    return connection.execute(statement).rowcount == 1


def _restart(connection: Connection, document_id: int, state: State, attempt: int | None = None) -> bool:
    values = {
        "state": state,
        "attempt": _documents.attempt + 1,
        "batch": None,
        "alone": False,
        "chunks_total": 0,
        "chunks_done": 0,
        "embedded": 0,
        "embedded_tokens": 0,
        "error_code": None,
        "error_message": None,
        "updated_at": int(time.time()),
    }
    statement = sa.update(schema.documents).where(_documents.id == document_id)
    if attempt is not None:
        statement = statement.where(_documents.attempt == attempt)
    return connection.execute(statement.values(values)).rowcount == 1


def _retire(connection: Connection, document_id: int, seq: int) -> None:
    versions = schema.versions
    connection.execute(
        sa.update(versions)
        .where(
            versions.c.document_id == document_id,
            versions.c.published_seq.is_not(None),
            versions.c.retired_seq.is_(None),
        )
        .values(retired_seq=seq)
    )


def _select() -> sa.Select[Any]:
    files = schema.files.c
    return sa.select(
        schema.documents, files.public_id.label("file_public_id"), files.filename, files.bytes, files.blob
    ).join(schema.files, files.id == _documents.file_id)


def _document(row: Row[Any]) -> Document:
    return Document(**row._mapping)
