"""Documents: files in a store, their states and the fence around every change of state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest, NotThere, TryLater
from indexes.filters import BOOLEAN, NUMBER, STRING, kind_of
from rag.access import Caller
from rag.catalog import answered, schema, seen
from rag.catalog.paging import page_rows
from rag.catalog.records import ACTIVE, Document, File, Page, PageRequest, State, Store
from rag.catalog.stores import next_seq
from rag.context import Scalar

_documents, _versions = schema.documents.c, schema.versions.c
_INSERT = sa.insert(schema.documents)


@dataclass(frozen=True)
class NamedText:
    """A document by everything that names it, and its text that answers, if any does."""

    document_id: int
    source: str
    file_id: str
    answering_file_id: str | None
    text_blob: str | None
    characters: int | None


def put_document(
    connection: Connection,
    caller: Caller,
    store: Store,
    file: File,
    source: str | None,
    attributes: Mapping[str, Scalar] | None,
    permissions: Sequence[str] | None = None,
    chunking: Mapping[str, Any] | None = None,
) -> Document:
    """Put a file into a store under a source name (None: the one that it has there, else its id), to be ingested.

    A document that already has the source is replaced: its present version answers, with its present attributes, until
    the new one is published; permission tags likewise. With the very same bytes it is left as it is, unless it failed,
    was cancelled or is to be split in another way. `attributes`, `permissions` and `chunking` None leave those that are
    there.

    Raises ChangeRequest: `file_in_store` for a file that stands in the store under another source (a store holds a file
    once, or its id would name two documents), and `source_not_available` where the document is one that the caller may
    not see.
    """
    now = int(time.time())
    _refuse_hidden(connection, caller, store, file, source)
    source = _only_source(connection, store, file, source)
    found = find_document(connection, store.id, source)
    if found is None:
        values = {
            "store_id": store.id,
            "tenant": store.tenant,
            "file_id": file.id,
            "source": source,
            "attributes": dict(attributes or {}),
            "permissions": tags_of(permissions or ()),
            "chunking": _own_chunking(store, chunking),
            "state": "queued",
            "created_at": now,
            "updated_at": now,
        }
        connection.execute(_INSERT, values)
    else:
        own = found.chunking if chunking is None else _own_chunking(store, chunking)
        same = found.blob == file.blob and found.filename == file.filename
        values = {"file_id": file.id, "chunking": own}
        connection.execute(sa.update(schema.documents).where(_documents.id == found.id).values(values))
        if same:
            # What answers goes by the new file too: the old one may be deleted.
            versions = schema.versions
            mine = sa.and_(versions.c.document_id == found.id, versions.c.file_id == found.file_id)
            connection.execute(
                sa.update(versions).where(mine, versions.c.retired_seq.is_(None)).values(file_id=file.id)
            )
        if not same or own != found.chunking or found.state in ("failed", "cancelled"):
            _restart(connection, found.id, "queued")
    document = find_document(connection, store.id, source)
    assert document is not None
    changed: dict[str, Any] = {}
    if attributes is not None and dict(attributes) != dict(document.attributes):
        changed["attributes"] = dict(attributes)
    if permissions is not None and tags_of(permissions) != document.permissions:
        changed["permissions"] = tags_of(permissions)
    if changed:
        set_attributes(connection, document, **changed)
    return replace(document, **changed)


def tags_of(permissions: Iterable[str]) -> list[str]:
    """Permission tags as they are stored: each once, in order."""
    return sorted(set(permissions))


def find_document(connection: Connection, store_id: int, source: str) -> Document | None:
    """The document of a store that has this source name, if any."""
    row = connection.execute(_by_source(), {"store": store_id, "name": source}).first()
    return None if row is None else _document(row)


def get_document(connection: Connection, caller: Caller, store: Store, file_id: str) -> Document:
    """The document of a store that stands on this file (public id). Raises NotThere, also for one that the caller may
    not see.

    Of two files, both name it: the one that is to replace what answers, with the state of its ingestion, and the one
    whose version answers until then, as `completed`.
    """
    mine = _documents.store_id == store.id, schema.files.c.public_id == file_id
    query = _select().where(*mine, seen.newest_documents(connection, caller))
    row = connection.execute(query.order_by(_documents.id.desc()).limit(1)).first()
    if row is None:
        query = _replaced_documents().where(*mine, seen.answering_documents(connection, caller))
        row = connection.execute(query).first()
    document = None if row is None else _document(row)
    if document is None:
        raise NotThere(
            f"The vector store {store.public_id} has no file {file_id!r}.", code="file_not_found", param="file_id"
        )
    return document


def get_documents(connection: Connection, ids: Sequence[int]) -> list[Document]:
    """Documents by number, in order of number; those that are gone are left out."""
    rows = connection.execute(_select().where(_documents.id.in_(ids)).order_by(_documents.id))
    return [_document(row) for row in rows]


def list_documents(
    connection: Connection,
    caller: Caller,
    store: Store,
    page: PageRequest,
    states: Sequence[State] | None = None,
    within: sa.Select[tuple[int]] | None = None,
) -> Page[Document]:
    """A store's documents (of those numbered `within`) that the caller may see, one page of them, in the order in which
    they came."""
    query = _select().where(_documents.store_id == store.id, seen.newest_documents(connection, caller))
    if within is not None:
        query = query.where(_documents.id.in_(within))
    if states is not None:
        query = query.where(_documents.state.in_(states))
    rows, more = page_rows(connection, query, _documents.id, schema.files.c.public_id, page)
    return Page([_document(row) for row in rows], more)


def named_texts(connection: Connection, caller: Caller, store: Store) -> list[NamedText]:
    """Every document of a store that the caller may see, whatever its state."""
    newest, answering = schema.files.alias(), schema.files.alias()
    query = (
        sa.select(
            _documents.id.label("document_id"),
            _documents.source,
            newest.c.public_id.label("file_id"),
            answering.c.public_id.label("answering_file_id"),
            _versions.text_blob,
            _versions.characters,
        )
        .join(newest, newest.c.id == _documents.file_id)
        .outerjoin(schema.versions, sa.and_(_versions.document_id == _documents.id, schema.ANSWERS))
        .outerjoin(answering, answering.c.id == _versions.file_id)
        .where(_documents.store_id == store.id, seen.newest_documents(connection, caller))
    )
    return [NamedText(**row._mapping) for row in connection.execute(query.order_by(_documents.id))]


def find_attribute(
    connection: Connection, caller: Caller, store_id: int, key: str, kind: int | None, document_id: int | None = None
) -> int | None:
    """A document that answers the caller with an attribute of this name and kind (of `indexes.filters`; None: any), if
    there is one; only the document named is looked at, where one is named.
    """
    # By the stored text, which is what `json.dumps` writes: the databases' own functions stumble over some keys.
    text, start = sa.cast(_documents.attributes, sa.Text), f"{json.dumps(key)}: "
    place = (sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos)(text, start)
    query = _answering(connection, caller, store_id, _documents.id).where(place > 0)
    if document_id is not None:
        query = query.where(_documents.id == document_id)
    if kind is not None:
        first = sa.func.substr(text, place + len(start), 1)
        kinds = sa.case((first == '"', STRING), (first.in_(["t", "f"]), BOOLEAN), else_=NUMBER)
        query = query.where(kinds == kind)
    return connection.execute(query.limit(1)).scalar()


def attribute_kinds(connection: Connection, caller: Caller, store_id: int) -> dict[str, set[int]]:
    """The attributes of a store's documents that answer the caller, and which kinds of values each has. Reads them
    all."""
    found: dict[str, set[int]] = {}
    query = _answering(connection, caller, store_id, _documents.attributes).execution_options(yield_per=5_000)
    for attributes in connection.execute(query).scalars():
        for key, value in attributes.items():
            found.setdefault(key, set()).add(kind_of(value))
    return found


def any_answers(connection: Connection, caller: Caller, store_id: int) -> bool:
    """Whether a document of a store answers the caller."""
    return connection.execute(_answering(connection, caller, store_id, _documents.id).limit(1)).first() is not None


def _answering(connection: Connection, caller: Caller, store_id: int, column: sa.ColumnElement[Any]) -> sa.Select[Any]:
    query = sa.select(column).join(schema.versions, _answers(_documents.id)).where(_documents.store_id == store_id)
    return query.where(seen.answering_documents(connection, caller))


def documents_of_file(connection: Connection, caller: Caller, file_id: int) -> list[Document]:
    """Every document that the caller may see and that stands on a file, in any store, as `get_document` tells of it."""
    granted = seen.granted_stores(_documents.store_id, caller)
    newest = _select().where(_documents.file_id == file_id, granted, seen.newest_documents(connection, caller))
    replaced = _replaced_documents().where(
        _versions.file_id == file_id, granted, seen.answering_documents(connection, caller)
    )
    return [
        *(_document(row) for row in connection.execute(newest)),
        *(_document(row) for row in connection.execute(replaced)),
    ]


def documents_of_store(connection: Connection, store_id: int) -> list[Document]:
    """Every document of a store."""
    return [_document(row) for row in connection.execute(_select().where(_documents.store_id == store_id))]


def stands_on(connection: Connection, file_id: int) -> bool:
    """Whether a document of anybody stands on a file, or a version that answers does."""
    newest = sa.select(_documents.id).where(_documents.file_id == file_id).limit(1)
    answering = sa.select(_versions.id).where(_versions.file_id == file_id, schema.ANSWERS).limit(1)
    return any(connection.execute(query).first() is not None for query in (newest, answering))


def set_attributes(
    connection: Connection,
    document: Document,
    attributes: Mapping[str, Scalar] | None = None,
    permissions: Sequence[str] | None = None,
) -> None:
    """Replace a document's attributes, or permission tags: at once where it answers, else from the moment on at which
    it does.

    Views learn it through the change log.
    """
    now = connection.execute(
        sa.select(_documents.state, _documents.file_id).where(_documents.id == document.id)
    ).first()
    at_once = now is None or now.state == "completed" or now.file_id != document.file_id
    begin = "" if at_once else "next_"
    values: dict[str, Any] = {"updated_at": int(time.time())}
    if attributes is not None:
        values[f"{begin}attributes"] = dict(attributes)
    if permissions is not None:
        values[f"{begin}permissions"] = tags_of(permissions)
    connection.execute(sa.update(schema.documents).where(_documents.id == document.id).values(values))
    if at_once:
        seq = next_seq(connection, document.store_id)
        connection.execute(sa.update(schema.versions).where(_answers(document.id)).values(changed_seq=seq))


def retry(connection: Connection, document: Document) -> bool:
    """Queue a failed or cancelled document again. False when it is neither."""
    return document.state in ("failed", "cancelled") and _restart(connection, document.id, "queued", document.attempt)


def cancel(connection: Connection, document: Document) -> bool:
    """Stop work on a document. False when there is none to stop. An earlier version goes on answering."""
    return document.state in ACTIVE and _restart(connection, document.id, "cancelled", document.attempt)


def delete_document(connection: Connection, document: Document) -> None:
    """Forget a document in whatever state it is; what it published is gone from the next query, and so are answers that
    were kept and repeat it.

    Of one that is told of by the file that is to be replaced, only that file goes: its text answers no longer, and
    the work on the newer one goes on.
    """
    by_newest = sa.and_(_documents.id == document.id, _documents.file_id == document.file_id)
    whole = connection.execute(sa.delete(schema.documents).where(by_newest)).rowcount == 1
    gone = _answers(document.id) if whole else sa.and_(_answers(document.id), _versions.file_id == document.file_id)
    _retire(connection, gone, next_seq(connection, document.store_id))
    answered.forget_document(connection, document.id)


def active_of_batch(connection: Connection, batch: str) -> list[Document]:
    """The documents of a batch that still want work, in order of number."""
    query = _select().where(_documents.batch == batch, _documents.state.in_(ACTIVE))
    return [_document(row) for row in connection.execute(query.order_by(_documents.id))]


def count_waiting(connection: Connection, tenant: str | None = None) -> int:
    """Documents that still want work, over all stores of a tenant or of all."""
    query = sa.select(sa.func.count()).where(_documents.state.in_(ACTIVE))
    return connection.execute(query if tenant is None else query.where(_documents.tenant == tenant)).scalar_one()


def advance(connection: Connection, some: Sequence[Document], state: State) -> set[int]:
    """Move documents on. Returns the numbers of those whose attempt is the current one and at work."""
    return _fenced_all(connection, some, {"state": state})


def add_progress(connection: Connection, tally: Mapping[int, Sequence[int]]) -> None:
    """Count vectors that were computed: document to (attempt, vectors, tokens)."""
    made, read = (sa.bindparam(name, type_=sa.Integer) for name in ("made", "read"))
    counted = (
        sa.update(schema.documents)
        .where(_documents.id == sa.bindparam("number"), _documents.attempt == sa.bindparam("of_attempt"))
        .values(
            embedded=_documents.embedded + made,
            embedded_tokens=_documents.embedded_tokens + read,
            chunks_done=_documents.chunks_done + made,
        )
    )
    rows = [
        {"number": number, "of_attempt": attempt, "made": computed, "read": tokens}
        for number, (attempt, computed, tokens) in sorted(tally.items())
    ]
    if rows:
        connection.execute(counted, rows)


def note_chunks(connection: Connection, numbers: Mapping[int, int]) -> None:
    """Write down how many chunks documents have, by number, of which none is embedded."""
    statement = sa.update(schema.documents).where(_documents.id == sa.bindparam("number"))
    rows = [{"number": number, "chunks": chunks} for number, chunks in sorted(numbers.items())]
    connection.execute(statement.values(chunks_total=sa.bindparam("chunks"), chunks_done=0), rows)


def fail(connection: Connection, document_id: int, attempt: int, code: str, message: str) -> bool:
    """End work on a document with a typed error. False when the attempt is not the current one, or not at work."""
    values = {"state": "failed", "error_code": code, "error_message": message[:2000], "batch": None}
    return bool(_fenced(connection, [(document_id, attempt)], values))


def isolate(connection: Connection, document_id: int, attempt: int) -> bool:
    """Queue a document whose batch died, away from the others. False as for `fail`."""
    values = {"state": "queued", "alone": True, "batch": None, "attempt": attempt + 1}
    return bool(_fenced(connection, [(document_id, attempt)], values))


def publish(connection: Connection, versions: Mapping[int, Document]) -> set[int]:
    """The flip: these versions (number to document, all of one store) answer from now on, and those before no longer
    do. All take one number of the change log.

    Returns the numbers of the documents that were flipped: nothing changes for one whose attempt is no longer the
    current one.
    """
    values = {"state": "completed", "batch": None, "alone": False, **_newest()}
    over = {"next_attributes": None, "next_permissions": None}
    done = _fenced_all(connection, list(versions.values()), {**values, **over})
    if not done:
        return done
    seq = next_seq(connection, next(iter(versions.values())).store_id)
    _retire(connection, sa.and_(_versions.document_id.in_(done), schema.ANSWERS), seq)
    mine = [version for version, document in versions.items() if document.id in done]
    flipped = connection.execute(
        sa.update(schema.versions).where(_versions.id.in_(mine)).values(published_seq=seq)
    ).rowcount
    if flipped != len(mine):
        # The caller's transaction is rolled back: nothing has changed.
        raise TryLater("The parsed text of a document is gone; it will be parsed again.", code="conflict")
    return done


def _fenced_all(connection: Connection, some: Sequence[Document], values: Mapping[str, Any]) -> set[int]:
    return _fenced(connection, [(one.id, one.attempt) for one in some], values)


def _fenced(connection: Connection, attempts: Sequence[tuple[int, int]], values: Mapping[str, Any]) -> set[int]:
    """Change documents (by number, with the attempt) whose attempt is the current one and at work; their numbers."""
    statement = (
        sa.update(schema.documents)
        .where(sa.tuple_(_documents.id, _documents.attempt).in_(attempts), _documents.state.in_(ACTIVE))
        .values(updated_at=int(time.time()), **values)
        .returning(_documents.id)
    )
    return set(connection.execute(statement).scalars())


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


def _retire(connection: Connection, which: sa.ColumnElement[bool], seq: int) -> None:
    connection.execute(sa.update(schema.versions).where(which).values(retired_seq=seq))


def _answers(document_id: int | sa.Column[int]) -> sa.ColumnElement[bool]:
    """Of the versions, the one of a document that answers."""
    return sa.and_(_versions.document_id == document_id, schema.ANSWERS)


def _newest() -> dict[str, sa.ColumnElement[Any]]:
    return {
        "attributes": sa.func.coalesce(_documents.next_attributes, _documents.attributes),
        "permissions": sa.func.coalesce(_documents.next_permissions, _documents.permissions),
    }


def _refuse_hidden(connection: Connection, caller: Caller, store: Store, file: File, source: str | None) -> None:
    """That a name is taken by something that one may not see can be learnt; a name is unique in a store."""
    if caller.permissions is None:
        return
    answering = sa.select(_versions.id).where(
        _versions.document_id == _documents.id, _versions.file_id == file.id, schema.ANSWERS
    )
    there = sa.or_(_documents.source == source, _documents.file_id == file.id, answering.exists())
    hidden = ~seen.newest_documents(connection, caller)
    query = sa.select(_documents.id).where(_documents.store_id == store.id, there, hidden).limit(1)
    if connection.execute(query).first() is not None:
        raise ChangeRequest(
            f"The vector store {store.public_id} takes no document of this source from this key. Choose another "
            "'source', or upload the file again.",
            code="source_not_available",
            param="source",
        )


def _own_chunking(store: Store, chunking: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if chunking is None or chunking == store.chunking else dict(chunking)


def _only_source(connection: Connection, store: Store, file: File, source: str | None) -> str:
    place = {"store": store.id, "file": file.id}
    held = next((name for query in _sources_held() for name in connection.execute(query, place).scalars()), None)
    if held is None or source in (None, held):
        return held or source or file.public_id
    raise ChangeRequest(
        f"The file {file.public_id} is in the vector store already, as {held!r}. A store holds a file once: upload it "
        f"again to put it there as {source!r} too.",
        code="file_in_store",
        param="source",
    )


def _replaced_documents() -> sa.Select[Any]:
    """Documents as they were when the version was published that answers until the newest upload takes its place."""
    generations = schema.generations.c
    live = sa.select(generations.chunk_set_id).where(
        generations.store_id == _versions.store_id, generations.state == "live"
    )
    mine = (
        schema.chunks.c.version_id == _versions.id,
        schema.chunks.c.chunk_set_id == live.correlate(schema.versions).scalar_subquery(),
    )
    size = sa.select(sa.func.count()).where(*mine).scalar_subquery()
    then: dict[str, sa.ColumnElement[Any]] = {
        "file_id": _versions.file_id,
        "attributes": _documents.attributes,
        "permissions": _documents.permissions,
        "state": sa.literal("completed"),
        "attempt": _versions.attempt,
        "alone": sa.false(),
        "batch": sa.null(),
        "chunks_total": size,
        "chunks_done": size,
        "embedded": sa.literal(0),
        "embedded_tokens": sa.literal(0),
        "error_code": sa.null(),
        "error_message": sa.null(),
        "created_at": _documents.created_at,
        "updated_at": _versions.created_at,
    }
    return (
        _columns(then)
        .join(schema.versions, _answers(_documents.id))
        .join(schema.files, schema.files.c.id == _versions.file_id)
        .where(_versions.file_id != _documents.file_id)
    )


@cache
def _by_source() -> sa.Select[Any]:
    # Built once: putting it together costs more than running it, and a batch of files asks thousands of times.
    return _select().where(_documents.store_id == sa.bindparam("store"), _documents.source == sa.bindparam("name"))


@cache
def _sources_held() -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Under which source a store holds a file: as the newest upload, or as what answers until that is published."""
    mine = _documents.store_id == sa.bindparam("store")
    newest = sa.select(_documents.source).where(mine, _documents.file_id == sa.bindparam("file"))
    replaced = _replaced_documents().with_only_columns(_documents.source)
    return newest, replaced.where(mine, _versions.file_id == sa.bindparam("file"))


def _select() -> sa.Select[Any]:
    """Documents by their newest upload."""
    return _columns(_newest()).join(schema.files, schema.files.c.id == _documents.file_id)


def _columns(instead: Mapping[str, sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """What a Document is made of, some columns taken from elsewhere."""
    files = schema.files.c
    own = [
        instead.get(column.name, column).label(column.name)
        for column in schema.documents.c
        if column.name not in ("next_attributes", "next_permissions")
    ]
    file = files.public_id.label("file_public_id"), files.filename, files.bytes, files.blob
    return sa.select(*own, *file).select_from(schema.documents)


def _document(row: Row[Any]) -> Document:
    return Document(**row._mapping)
