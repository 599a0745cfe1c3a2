"""Document versions and their chunks: written invisible, made visible by the flip."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import NotThere
from rag.catalog import schema
from rag.catalog.records import Document
from rag.context import Scalar

_chunks, _versions = schema.chunks.c, schema.versions.c


@dataclass(frozen=True)
class Version:
    """The parsed text of a document at one attempt."""

    id: int
    document_id: int
    attempt: int
    title: str
    text_blob: str


@dataclass(frozen=True)
class NewVersion:
    """The parsed text of a document's present attempt, to be recorded."""

    document: Document
    title: str
    media_type: str
    text_blob: str
    characters: int


@dataclass(frozen=True)
class NewChunk:
    """A chunk to write. `embedding_key` (16 bytes) names the text that is embedded for it."""

    ordinal: int
    start: int
    end: int
    page: int | None
    tokens: int
    heading_path: tuple[str, ...]
    header: str
    text: str
    embedding_key: bytes


@dataclass(frozen=True)
class SplitAgain:
    """A version whose stored text is to be split in another way; `chunking` is its document's own, if it has one."""

    id: int
    title: str
    media_type: str
    text_blob: str
    chunking: Mapping[str, Any] | None


@dataclass(frozen=True)
class StoredChunk:
    """A visible chunk, with the document that it belongs to. `permissions` are its tags: see `seen.may_see`."""

    chunk_id: int
    version_id: int
    document_id: int
    chunk_set_id: int
    ordinal: int
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    header: str
    text: str
    title: str
    text_blob: str
    file_id: str
    filename: str
    attributes: Mapping[str, Scalar]
    permissions: Sequence[str]


_HEADING_PATH = list(StoredChunk.__dataclass_fields__).index("heading_path")


def put_versions(connection: Connection, parsed: Sequence[NewVersion]) -> dict[int, int]:
    """Record the parsed texts of documents' present attempts; a repeat replaces what a crash left.

    Returns the numbers of the versions, by document.
    """
    clear_attempts(connection, [one.document for one in parsed])
    documents = schema.documents.c
    # Not the file that the caller read: one with the same bytes may have taken its place meanwhile.
    query = sa.select(documents.id, documents.file_id).where(documents.id.in_([one.document.id for one in parsed]))
    file_of = {row.id: row.file_id for row in connection.execute(query)}
    rows = [
        {
            "document_id": one.document.id,
            "store_id": one.document.store_id,
            "file_id": file_of[one.document.id],
            "attempt": one.document.attempt,
            "title": one.title,
            "media_type": one.media_type,
            "text_blob": one.text_blob,
            "characters": one.characters,
            "created_at": int(time.time()),
        }
        for one in parsed
    ]
    made = connection.execute(sa.insert(schema.versions).returning(_versions.document_id, _versions.id), rows)
    return {row.document_id: row.id for row in made}


def clear_attempts(connection: Connection, some: Sequence[Document]) -> None:
    """Remove the unpublished versions of documents' present attempts, with their chunks."""
    connection.execute(sa.delete(schema.versions).where(_of_attempts(some), _versions.published_seq.is_(None)))


def versions_of(connection: Connection, some: Sequence[Document]) -> dict[int, Document]:
    """The versions that documents' attempts have parsed, each with its document; none for one that has not."""
    by_id = {one.id: one for one in some}
    query = sa.select(_versions.id, _versions.document_id).where(_of_attempts(some))
    return {row.id: by_id[row.document_id] for row in connection.execute(query.order_by(_versions.id))}


def _of_attempts(some: Sequence[Document]) -> sa.ColumnElement[bool]:
    return sa.tuple_(_versions.document_id, _versions.attempt).in_([(one.id, one.attempt) for one in some])


def published_version(connection: Connection, document: Document) -> Version | None:
    """The version of a document that answers now, if it stands on the document's file."""
    query = sa.select(
        _versions.id, _versions.document_id, _versions.attempt, _versions.title, _versions.text_blob
    ).where(
        _versions.document_id == document.id,
        _versions.file_id == document.file_id,
        schema.ANSWERS,
    )
    row = connection.execute(query).first()
    return None if row is None else Version(**row._mapping)


def put_chunks(
    connection: Connection,
    chunk_set_id: int,
    tenant: str,
    chunks: Mapping[int, Sequence[NewChunk]],
    *,
    more: bool = False,
) -> None:
    """Write versions' chunks, by the version's number. Those of an earlier try are replaced, unless these are `more` of
    the same try."""
    if not more:
        mine = _chunks.version_id.in_(list(chunks)), _chunks.chunk_set_id == chunk_set_id
        connection.execute(sa.delete(schema.chunks).where(*mine))
    rows = [
        {
            "version_id": version_id,
            "chunk_set_id": chunk_set_id,
            "tenant": tenant,
            "ordinal": chunk.ordinal,
            "start": chunk.start,
            "end": chunk.end,
            "page": chunk.page,
            "tokens": chunk.tokens,
            "heading_path": list(chunk.heading_path),
            "header": chunk.header,
            "text": chunk.text,
            "embedding_key": chunk.embedding_key,
        }
        for version_id, of_version in chunks.items()
        for chunk in of_version
    ]
    if rows:
        connection.execute(sa.insert(schema.chunks), rows)


def without_chunks(connection: Connection, version_ids: Sequence[int], chunk_set_id: int) -> list[SplitAgain]:
    """Of these versions, those that have no chunks in this set, and whose text is kept."""
    documents = schema.documents.c
    split = sa.select(_chunks.id).where(_chunks.version_id == _versions.id, _chunks.chunk_set_id == chunk_set_id)
    query = (
        sa.select(_versions.id, _versions.title, _versions.media_type, _versions.text_blob, documents.chunking)
        .join(schema.documents, documents.id == _versions.document_id)
        .where(_versions.id.in_(version_ids), _versions.purged == sa.false(), ~split.exists())
    )
    return [SplitAgain(**row._mapping) for row in connection.execute(query.order_by(_versions.id))]


def is_kept(connection: Connection, version_id: int) -> bool:
    """Whether a version is there and not purged."""
    query = sa.select(_versions.id).where(_versions.id == version_id, _versions.purged == sa.false())
    return connection.execute(query).first() is not None


def version_texts(
    connection: Connection, version_ids: Sequence[int], chunk_set_id: int, first: int, last: int
) -> list[tuple[int, bytes, str, str, int]]:
    """(version, embedding key, header, text, tokens) of the chunks of these versions with ordinals from `first` to
    `last`."""
    query = (
        sa.select(_chunks.version_id, _chunks.embedding_key, _chunks.header, _chunks.text, _chunks.tokens)
        .where(
            _chunks.version_id.in_(version_ids),
            _chunks.chunk_set_id == chunk_set_id,
            _chunks.ordinal.between(first, last),
        )
        .order_by(_chunks.id)
    )
    return [tuple(row) for row in connection.execute(query)]


def visible_chunks(connection: Connection, ids: Sequence[int]) -> dict[int, StoredChunk]:
    """Chunks by number, those that are published, not retired and whose document is still there."""
    rows = connection.execute(_visible_by_id(), {"ids": list(ids)}).all()
    return {chunk.chunk_id: chunk for chunk in map(_stored, rows)}


def count_by_version(connection: Connection, version_ids: Sequence[int], chunk_set_id: int) -> dict[int, int]:
    """How many chunks each of these versions has."""
    found: dict[int, int] = {}
    for start in range(0, len(version_ids), 5_000):
        some = _chunks.version_id.in_(version_ids[start : start + 5_000])
        query = sa.select(_chunks.version_id, sa.func.count()).where(some, _chunks.chunk_set_id == chunk_set_id)
        found.update((version, number) for version, number in connection.execute(query.group_by(_chunks.version_id)))
    return found


def count_visible(connection: Connection, store_id: int, chunk_set_id: int) -> int:
    """How many chunks of a store answer now."""
    query = (
        sa.select(sa.func.count())
        .select_from(schema.chunks)
        .join(schema.versions, _versions.id == _chunks.version_id)
        .where(_versions.store_id == store_id, schema.ANSWERS, _chunks.chunk_set_id == chunk_set_id)
    )
    return int(connection.execute(query).scalar_one())


def unpublished(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Which of these chunks belong to versions that are not published yet."""
    query = sa.select(_chunks.id).join(schema.versions, _versions.id == _chunks.version_id)
    return set(connection.execute(query.where(_chunks.id.in_(ids), _versions.published_seq.is_(None))).scalars())


def neighbours(connection: Connection, version_id: int, chunk_set_id: int, first: int, last: int) -> list[StoredChunk]:
    """The visible chunks of a version with ordinals from `first` to `last`, in order."""
    query = _visible().where(
        _chunks.version_id == version_id, _chunks.chunk_set_id == chunk_set_id, _chunks.ordinal.between(first, last)
    )
    return [_stored(row) for row in connection.execute(query.order_by(_chunks.ordinal))]


def text_key(connection: Connection, version_id: int) -> str:
    """The key of a version's parsed text. Raises NotThere when the version is gone."""
    key = connection.execute(sa.select(_versions.text_blob).where(_versions.id == version_id)).scalar()
    if key is None:
        raise NotThere("The document was replaced or deleted meanwhile. Ask again.", code="version_not_found")
    return str(key)


@cache
def _visible_by_id() -> sa.Select[Any]:
    # Built once: putting the statement together costs more than running it.
    return _visible().where(_chunks.id.in_(sa.bindparam("ids", expanding=True)))


def _visible() -> sa.Select[Any]:
    documents, files = schema.documents.c, schema.files.c
    return (
        sa.select(
            _chunks.id.label("chunk_id"),
            _chunks.version_id,
            _versions.document_id,
            _chunks.chunk_set_id,
            _chunks.ordinal,
            _chunks.start,
            _chunks.end,
            _chunks.page,
            _chunks.heading_path,
            _chunks.header,
            _chunks.text,
            _versions.title,
            _versions.text_blob,
            files.public_id.label("file_id"),
            files.filename,
            documents.attributes,
            documents.permissions,
        )
        .join(schema.versions, _versions.id == _chunks.version_id)
        .join(schema.documents, documents.id == _versions.document_id)
        .join(schema.files, files.id == _versions.file_id)
        .where(schema.ANSWERS)
    )


def _stored(row: sa.Row[Any]) -> StoredChunk:
    """A row of `_visible`, whose columns stand in the order of the fields."""
    values = list(row)
    values[_HEADING_PATH] = tuple(values[_HEADING_PATH])
    return StoredChunk(*values)
