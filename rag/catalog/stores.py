"""Vector stores, their generations and the spaces that they live in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest, NotThere
from rag.catalog import answered, schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Counts, Generation, Page, PageRequest, Store
from rag.spaces import Space

_NAMED_IDS = 10
"""Ids that the error about an ambiguous name lists at most."""


def create_store(
    connection: Connection,
    tenant: str,
    name: str,
    *,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
    chunking: Mapping[str, Any] | None = None,
) -> Store:
    """Make an empty store. It has no generation yet."""
    now = int(time.time())
    values = {
        "public_id": f"vs_{secrets.token_hex(12)}",
        "tenant": tenant,
        "name": name,
        "description": description,
        "metadata": dict(metadata or {}),
        "chunking": dict(chunking or {"type": "auto"}),
        "created_at": now,
        "last_active_at": now,
    }
    connection.execute(sa.insert(schema.stores).values(values))
    return get_store(connection, tenant, str(values["public_id"]))


def get_store(connection: Connection, tenant: str, public_id: str) -> Store:
    """A store by its public id. Raises NotThere, also for another tenant's."""
    query = sa.select(schema.stores).where(schema.stores.c.tenant == tenant, schema.stores.c.public_id == public_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(
            f"There is no vector store {public_id!r}. `rag stores` lists those that exist.",
            code="vector_store_not_found",
            param="vector_store_id",
        )
    return _store(row)


def get_store_by_id(connection: Connection, store_id: int) -> Store | None:
    """A store by its number, None when it has been deleted."""
    row = connection.execute(sa.select(schema.stores).where(schema.stores.c.id == store_id)).first()
    return None if row is None else _store(row)


def find_store(connection: Connection, tenant: str, name: str) -> Store:
    """A store by its name or its public id.

    Raises NotThere, and ChangeRequest (`ambiguous_name`, with the ids) for a name that several have.
    """
    return store_named(connection, tenant, name) or get_store(connection, tenant, name)


def store_named(connection: Connection, tenant: str, name: str) -> Store | None:
    """The store of this name, None when there is none.

    Raises ChangeRequest (`ambiguous_name`, with the ids) when several have it.
    """
    query = sa.select(schema.stores).where(schema.stores.c.tenant == tenant, schema.stores.c.name == name)
    rows = list(connection.execute(query.order_by(schema.stores.c.id).limit(_NAMED_IDS + 1)))
    if len(rows) > 1:
        ids = ", ".join([row.public_id for row in rows[:_NAMED_IDS]] + ["…"] * (len(rows) > _NAMED_IDS))
        raise ChangeRequest(
            f"Several vector stores are named {name!r}. Name one by its id: {ids}.",
            code="ambiguous_name",
            param="vector_store_id",
        )
    return _store(rows[0]) if rows else None


def list_stores(connection: Connection, tenant: str, page: PageRequest) -> Page[Store]:
    """A tenant's stores, one page of them."""
    query = sa.select(schema.stores).where(schema.stores.c.tenant == tenant)
    rows, more = page_rows(connection, query, schema.stores.c.id, schema.stores.c.public_id, page)
    return Page([_store(row) for row in rows], more)


def update_store(connection: Connection, store: Store, changes: Mapping[str, Any]) -> Store:
    """Change name, description or metadata."""
    if changes:
        connection.execute(sa.update(schema.stores).where(schema.stores.c.id == store.id).values(**changes))
    return get_store(connection, store.tenant, store.public_id)


def delete_store(connection: Connection, store: Store) -> list[str]:
    """Forget a store with everything in it. Returns the keys of its parsed texts, for `purge.unused_texts`."""
    versions, vectors, chunks = schema.versions.c, schema.vectors.c, schema.chunks.c
    texts = list(connection.execute(sa.select(versions.text_blob).where(versions.store_id == store.id)).scalars())
    answered.forget_store(connection, store.id)
    spaces = sa.select(schema.generations.c.space_id).where(schema.generations.c.store_id == store.id)
    space_ids = list(connection.execute(spaces).scalars())
    for table in (schema.generations, schema.documents, schema.folders, schema.versions, schema.chunk_sets):
        connection.execute(sa.delete(table).where(table.c.store_id == store.id))
    connection.execute(sa.delete(schema.stores).where(schema.stores.c.id == store.id))
    in_use = sa.select(chunks.id).where(chunks.embedding_key == vectors.embedding_key, chunks.tenant == vectors.tenant)
    connection.execute(
        sa.delete(schema.vectors).where(
            vectors.tenant == store.tenant, vectors.space_id.in_(space_ids), ~in_use.exists()
        )
    )
    return texts


def next_seq(connection: Connection, store_id: int) -> int:
    """The next number of the store's change log. Taking it makes numbers commit-ordered.

    Raises NotThere when the store is gone.
    """
    statement = (
        sa.update(schema.stores)
        .where(schema.stores.c.id == store_id)
        .values(seq=schema.stores.c.seq + 1, last_active_at=int(time.time()))
        .returning(schema.stores.c.seq)
    )
    seq = connection.execute(statement).scalar()
    if seq is None:
        raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
    return int(seq)


def current_seq(connection: Connection, store_id: int) -> int | None:
    """The newest number of the store's change log, None when the store is gone."""
    found: int | None = connection.execute(_seq_by_id(), {"id": store_id}).scalar()
    return found


def current_seqs(connection: Connection, store_ids: Sequence[int]) -> dict[int, int]:
    """The newest number of each of these stores' change logs; those that are gone are left out."""
    rows = schema.stores.c
    found: dict[int, int] = {}
    for start in range(0, len(store_ids), 5_000):
        query = sa.select(rows.id, rows.seq).where(rows.id.in_(store_ids[start : start + 5_000]))
        found.update({row.id: row.seq for row in connection.execute(query)})
    return found


@cache
def _seq_by_id() -> sa.Select[Any]:
    return sa.select(schema.stores.c.seq).where(schema.stores.c.id == sa.bindparam("id"))


def count_documents(connection: Connection, store_ids: list[int]) -> dict[int, Counts]:
    """How many documents stand where, by store."""
    documents = schema.documents.c
    query = (
        sa.select(documents.store_id, documents.state, sa.func.count())
        .where(documents.store_id.in_(store_ids))
        .group_by(documents.store_id, documents.state)
    )
    tallies: dict[int, dict[str, int]] = {store_id: {} for store_id in store_ids}
    for store_id, state, number in connection.execute(query):
        key = "in_progress" if state in schema.ACTIVE_STATES else state
        tallies[store_id][key] = tallies[store_id].get(key, 0) + number
    return {store_id: Counts(**tally) for store_id, tally in tallies.items()}


def usage_bytes(connection: Connection, store_ids: list[int]) -> dict[int, int]:
    """Bytes of the originals in each store."""
    query = (
        sa.select(schema.documents.c.store_id, sa.func.sum(schema.files.c.bytes))
        .join(schema.files, schema.files.c.id == schema.documents.c.file_id)
        .where(schema.documents.c.store_id.in_(store_ids), schema.documents.c.state == "completed")
        .group_by(schema.documents.c.store_id)
    )
    return dict.fromkeys(store_ids, 0) | {store_id: int(size) for store_id, size in connection.execute(query)}


def live_generation(connection: Connection, store_id: int) -> Generation:
    """The generation that answers. Raises NotThere when the store is gone."""
    row = connection.execute(_live_by_store(), {"id": store_id}).first()
    if row is None:
        raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
    return _generation(row)


@cache
def _live_by_store() -> sa.Select[Any]:
    generations = schema.generations
    mine = generations.c.store_id == sa.bindparam("id")
    return sa.select(generations).where(mine, generations.c.state == "live")


def create_generation(connection: Connection, store: Store, values: Mapping[str, Any]) -> Generation:
    """Make a generation of a store; `values` are the columns that `Generation` names."""
    row = {**values, "store_id": store.id, "tenant": store.tenant, "created_at": int(time.time())}
    made = connection.execute(sa.insert(schema.generations).values(row)).inserted_primary_key
    assert made is not None
    query = sa.select(schema.generations).where(schema.generations.c.id == made[0])
    return _generation(connection.execute(query).one())


def generations_of(connection: Connection, store_id: int) -> list[Generation]:
    """Every generation of a store."""
    query = sa.select(schema.generations).where(schema.generations.c.store_id == store_id)
    return [_generation(row) for row in connection.execute(query.order_by(schema.generations.c.id))]


def all_generations(connection: Connection) -> list[Generation]:
    """Every generation of every store and tenant."""
    return [_generation(row) for row in connection.execute(sa.select(schema.generations))]


def generation_ids(connection: Connection) -> list[int]:
    """The numbers of all generations, of every store and tenant."""
    return list(connection.execute(sa.select(schema.generations.c.id)).scalars())


def ensure_chunk_set(connection: Connection, store_id: int, fingerprint: str, settings: Mapping[str, Any]) -> int:
    """The number of a store's chunk set with these settings, made if it is new."""
    sets = schema.chunk_sets.c
    query = sa.select(sets.id).where(sets.store_id == store_id, sets.fingerprint == fingerprint)
    found = connection.execute(query).scalar()
    if found is not None:
        return int(found)
    values = {"store_id": store_id, "fingerprint": fingerprint, "settings": dict(settings)}
    made = connection.execute(sa.insert(schema.chunk_sets).values(values)).inserted_primary_key
    assert made is not None
    return int(made[0])


def chunk_settings(connection: Connection, chunk_set_id: int) -> dict[str, Any]:
    """The settings that a chunk set was made with."""
    query = sa.select(schema.chunk_sets.c.settings).where(schema.chunk_sets.c.id == chunk_set_id)
    return dict(connection.execute(query).scalar_one())


def chunk_fingerprint(connection: Connection, chunk_set_id: int) -> str:
    """What names a way of splitting: its settings and the splitter's version."""
    query = sa.select(schema.chunk_sets.c.fingerprint).where(schema.chunk_sets.c.id == chunk_set_id)
    return str(connection.execute(query).scalar_one())


def ensure_space(connection: Connection, space: Space, calibration: Mapping[str, Any] | None = None) -> int:
    """The number of a space, made (with its calibration) if it is new."""
    found = find_space(connection, space)
    if found is not None:
        return found
    values = {
        "fingerprint": space.fingerprint,
        "definition": asdict(space),
        "dimension": space.dimension,
        "calibration": dict(calibration) if calibration is not None else None,
    }
    made = connection.execute(sa.insert(schema.spaces).values(values)).inserted_primary_key
    assert made is not None
    return int(made[0])


def find_space(connection: Connection, space: Space) -> int | None:
    """The number of a space, None when it is new here."""
    query = sa.select(schema.spaces.c.id).where(schema.spaces.c.fingerprint == space.fingerprint)
    return connection.execute(query).scalar()


def get_space(connection: Connection, space_id: int) -> tuple[Space, dict[str, Any] | None]:
    """A space and its calibration."""
    row = connection.execute(sa.select(schema.spaces).where(schema.spaces.c.id == space_id)).one()
    return Space(**row.definition), row.calibration


def _store(row: Row[Any]) -> Store:
    return Store(**row._mapping)


def _generation(row: Row[Any]) -> Generation:
    values = {name: value for name, value in row._mapping.items() if name != "created_at"}
    return Generation(**values)
