"""A store's rows for an archive, and an archive's rows into a store that nobody sees before it is whole.

What is being imported belongs to a store of a tenant that nobody is (`importing:…`), its versions are not published,
and its documents are in a batch that no worker has, so that neither a worker nor a sweep touches them. `reveal` gives
it all to its tenant in one transaction. Whoever imports says with each transaction that it lives (`keep_alive`); what
has not been heard of for long was left by a crash, and is dropped.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import TryLater
from rag.access import Caller
from rag.catalog import schema
from rag.catalog.generations import create_generation, live_generation
from rag.catalog.records import Generation, Store
from rag.catalog.stores import create_store, delete_store, make_chunk_set, next_seq, store_named
from rag.catalog.vectors import is_of_chunk

IMPORTING = "importing:"
PAGE = 1_000
"""Rows that are held at once."""
ENDS = {"completed": "c", "cancelled": "x", "failed": "f", "queued": "q"}
"""The last letter of the batch of a document that is being imported: the state that it is to have."""

Rows = Sequence[Mapping[str, Any]]
_files, _documents, _versions, _chunks, _vectors = (
    schema.files.c,
    schema.documents.c,
    schema.versions.c,
    schema.chunks.c,
    schema.vectors.c,
)


# ---- out -------------------------------------------------------------------------------------------------------------


def files_of(connection: Connection, store: Store) -> Iterator[Rows]:
    """The files that the store's documents and visible versions stand on, ascending."""
    of_documents = sa.select(_documents.file_id).where(_documents.store_id == store.id)
    of_versions = sa.select(_versions.file_id).where(*_visible(store))
    query = sa.select(schema.files).where(_files.id.in_(sa.union(of_documents, of_versions)))
    return _paged(connection, query.order_by(_files.id))


def documents_of(connection: Connection, store: Store) -> Iterator[Rows]:
    """The store's documents, ascending."""
    query = sa.select(schema.documents).where(_documents.store_id == store.id)
    return _paged(connection, query.order_by(_documents.id))


def versions_of(connection: Connection, store: Store) -> Iterator[Rows]:
    """The versions that answer, ascending."""
    return _paged(connection, sa.select(schema.versions).where(*_visible(store)).order_by(_versions.id))


def chunks_of(connection: Connection, store: Store, generation: Generation) -> Iterator[Rows]:
    """The chunks of the versions that answer, version by version and in order."""
    query = sa.select(schema.chunks).join(schema.versions, _versions.id == _chunks.version_id)
    mine = query.where(*_visible(store), _chunks.chunk_set_id == generation.chunk_set_id)
    return _paged(connection, mine.order_by(_chunks.version_id, _chunks.ordinal))


def vectors_of(connection: Connection, store: Store, generation: Generation) -> Iterator[Rows]:
    """The vectors of these chunks, once each, ascending."""
    keys = sa.select(_chunks.embedding_key).join(schema.versions, _versions.id == _chunks.version_id)
    query = sa.select(_vectors.embedding_key, _vectors.vector).where(
        _vectors.space_id == generation.space_id,
        _vectors.tenant == generation.tenant,
        _vectors.embedding_key.in_(keys.where(*_visible(store), _chunks.chunk_set_id == generation.chunk_set_id)),
    )
    return _paged(connection, query.order_by(_vectors.embedding_key))


def _visible(store: Store) -> tuple[sa.ColumnElement[bool], ...]:
    return _versions.store_id == store.id, schema.ANSWERS


def _paged(connection: Connection, query: sa.Select[Any]) -> Iterator[Rows]:
    streamed = connection.execute(query.execution_options(yield_per=PAGE))
    return ([dict(row._mapping) for row in rows] for rows in streamed.partitions())


# ---- in --------------------------------------------------------------------------------------------------------------


def begin(connection: Connection, tenant: str, name: str, generation: Mapping[str, Any], **values: Any) -> Store:
    """A store for this tenant that nobody sees. `generation` is as `generations.create_generation` takes it, with
    `chunking` (fingerprint and settings) in place of the number of a chunk set; `values` as `create_store` does."""
    store = create_store(connection, f"{IMPORTING}{secrets.token_hex(16)}", name, **values)
    chunk_set_id = make_chunk_set(connection, store.id, *generation["chunking"])
    rest = {name: value for name, value in generation.items() if name != "chunking"}
    create_generation(connection, replace(store, tenant=tenant), {**rest, "chunk_set_id": chunk_set_id})
    return store


def keep_alive(connection: Connection, store: Store) -> None:
    """Say that the import goes on. Raises TryLater when it was given up as dead meanwhile."""
    mine = sa.update(schema.stores).where(schema.stores.c.id == store.id).values(last_active_at=int(time.time()))
    if connection.execute(mine).rowcount != 1:
        raise TryLater("The import stood still for so long that it was given up. Begin again.", code="conflict")


def put_files(connection: Connection, store: Store, rows: Rows) -> list[int]:
    """Write files that nobody sees yet. Returns their numbers, in order.

    They are `owned` only from `reveal` on: a sweep takes an owned one on which no document stands yet.
    """
    values = [{**row, "tenant": store.tenant, "public_id": f"file-{secrets.token_hex(12)}"} for row in rows]
    return _put(connection, schema.files, values)


def put_documents(connection: Connection, store: Store, tenant: str, rows: Rows) -> list[int]:
    """Write documents, each with the `state` that it is to have in the end. Returns their numbers, in order."""
    values = [
        {**row, "store_id": store.id, "tenant": tenant, "state": "embedding", "batch": _batch(store, row["state"])}
        for row in rows
    ]
    return _put(connection, schema.documents, values)


def put_versions(connection: Connection, store: Store, rows: Rows) -> list[int]:
    """Write versions that are not published yet. Returns their numbers, in order."""
    return _put(connection, schema.versions, [{**row, "store_id": store.id, "attempt": 1} for row in rows])


def put_chunks(connection: Connection, chunk_set_id: int, tenant: str, rows: Rows) -> None:
    """Write chunks of such versions."""
    if rows:
        values = [{**row, "chunk_set_id": chunk_set_id, "tenant": tenant} for row in rows]
        connection.execute(sa.insert(schema.chunks), values)


def count_chunks(connection: Connection, totals: Mapping[int, int]) -> None:
    """Say of documents how many chunks they have."""
    mine = sa.update(schema.documents).where(_documents.id == sa.bindparam("number"))
    values = mine.values(chunks_total=sa.bindparam("total"), chunks_done=sa.bindparam("total"))
    if totals:
        connection.execute(values, [{"number": number, "total": total} for number, total in totals.items()])


def lacking_vectors(connection: Connection, store: Store, space_id: int) -> int:
    """How many of the store's chunks have no vector."""
    query = (
        sa.select(sa.func.count())
        .select_from(schema.chunks)
        .join(schema.versions, _versions.id == _chunks.version_id)
        .outerjoin(schema.vectors, is_of_chunk(space_id))
        .where(_versions.store_id == store.id, _vectors.space_id.is_(None))
    )
    return int(connection.execute(query).scalar_one())


def reveal(
    connection: Connection,
    store: Store,
    tenant: str,
    owned: Sequence[int],
    failures: Mapping[int, tuple[str, str]],
) -> bool:
    """Give an imported store to its tenant: from this commit on it answers.

    `owned` are the files that came with a document, `failures` the codes and messages of the documents that failed.
    False, and nothing changed, when the tenant has a store of its name by now.
    """
    keep_alive(connection, store)
    if store_named(connection, Caller(tenant), store.name) is not None:
        return False
    seq = next_seq(connection, store.id)
    connection.execute(sa.update(schema.versions).where(_versions.store_id == store.id).values(published_seq=seq))
    for state in ("completed", "cancelled", "queued"):
        mine = _documents.batch == _batch(store, state)
        # What is to be ingested again goes by the next attempt: the first has a version already.
        attempt = 2 if state == "queued" else 1
        values = {"state": state, "batch": None, "attempt": attempt}
        connection.execute(sa.update(schema.documents).where(mine).values(values))
    for number, (code, message) in failures.items():
        values = {"state": "failed", "batch": None, "error_code": code, "error_message": message}
        connection.execute(sa.update(schema.documents).where(_documents.id == number).values(values))
    for start in range(0, len(owned), PAGE):
        mine = _files.id.in_(owned[start : start + PAGE])
        connection.execute(sa.update(schema.files).where(mine).values(owned=True))
    for table in (schema.files, schema.stores):
        connection.execute(sa.update(table).where(table.c.tenant == store.tenant).values(tenant=tenant))
    return True


def abandoned(connection: Connection, older_than: float) -> list[Store]:
    """Imports that have not been heard of for so many seconds."""
    stores = schema.stores.c
    silent = stores.last_active_at <= int(time.time()) - older_than
    query = sa.select(schema.stores).where(stores.tenant.startswith(IMPORTING, autoescape=True), silent)
    return [Store(**row._mapping) for row in connection.execute(query)]


def drop(connection: Connection, store: Store) -> list[str]:
    """Take an import out again. Returns the keys of its originals and texts, for `ingest.intake.drop_blobs`."""
    originals = connection.execute(sa.select(_files.blob).where(_files.tenant == store.tenant)).scalars().all()
    tenant = live_generation(connection, store.id).tenant
    texts = delete_store(connection, replace(store, tenant=tenant))
    connection.execute(sa.delete(schema.files).where(_files.tenant == store.tenant))
    return [*originals, *texts]


def _put(connection: Connection, table: sa.Table, rows: Rows) -> list[int]:
    if not rows:
        return []
    statement = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return [int(number) for number in connection.execute(statement, list(rows)).scalars()]


def _batch(store: Store, state: str) -> str:
    return f"{store.tenant[-30:]}{ENDS[state]}"
