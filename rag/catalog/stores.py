"""Vector stores, their ways of splitting and the spaces that their vectors live in."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest, NotThere
from rag.access import Caller
from rag.catalog import answered, schema, seen
from rag.catalog.paging import page_rows
from rag.catalog.records import DAY, ChunkSet, Counts, Page, PageRequest, Store
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
    expires_after_days: int | None = None,
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
        "expires_after_days": expires_after_days,
    }
    connection.execute(sa.insert(schema.stores).values(values))
    return get_store(connection, tenant, str(values["public_id"]))


def get_store(connection: Connection, tenant: str, public_id: str) -> Store:
    """A store by its public id. Raises NotThere, also for another tenant's."""
    query = sa.select(schema.stores).where(schema.stores.c.tenant == tenant, schema.stores.c.public_id == public_id)
    row = connection.execute(query).first()
    if row is None:
        raise _no_store(public_id)
    return _store(row)


def get_store_by_id(connection: Connection, store_id: int) -> Store | None:
    """A store by its number, None when it has been deleted."""
    row = connection.execute(sa.select(schema.stores).where(schema.stores.c.id == store_id)).first()
    return None if row is None else _store(row)


def find_store(connection: Connection, caller: Caller, name: str) -> Store:
    """A store by its name or its public id.

    Raises NotThere, also for one that the caller may not use, and ChangeRequest (`ambiguous_name`, with the ids) for a
    name that several have.
    """
    rows = _named(connection, caller, name, or_id=True)
    found = _only([row for row in rows if row.name == name], name) or (rows[0] if rows else None)
    if found is None:
        raise _no_store(name)
    return _store(found)


def store_named(connection: Connection, caller: Caller, name: str) -> Store | None:
    """The store of this name among those that the caller may use, None when there is none.

    Raises ChangeRequest (`ambiguous_name`, with the ids) when several have it.
    """
    found = _only(_named(connection, caller, name, or_id=False), name)
    return None if found is None else _store(found)


def _only(rows: Sequence[Row[Any]], name: str) -> Row[Any] | None:
    if len(rows) > 1:
        ids = ", ".join([row.public_id for row in rows[:_NAMED_IDS]] + ["…"] * (len(rows) > _NAMED_IDS))
        raise ChangeRequest(
            f"Several vector stores are named {name!r}. Name one by its id: {ids}.",
            code="ambiguous_name",
            param="vector_store_id",
        )
    return rows[0] if rows else None


def _named(connection: Connection, caller: Caller, name: str, *, or_id: bool) -> Sequence[Row[Any]]:
    """The stores of a name, or of an id, among those that the caller may use; some more than an error shows."""
    query = _by_name(or_id=or_id)
    if caller.stores is not None:
        query = query.where(seen.granted_stores(schema.stores.c.id, caller))
    return connection.execute(query, {"tenant": caller.tenant, "name": name}).all()


@cache
def _by_name(*, or_id: bool) -> sa.Select[Any]:
    # Built once: putting the statement together costs more than running it.
    stores = schema.stores.c
    name: sa.BindParameter[str] = sa.bindparam("name")
    mine = sa.or_(stores.name == name, stores.public_id == name) if or_id else stores.name == name
    query = sa.select(schema.stores).where(stores.tenant == sa.bindparam("tenant"), mine)
    return query.order_by(stores.id).limit(_NAMED_IDS + 2)


def list_stores(connection: Connection, caller: Caller, page: PageRequest) -> Page[Store]:
    """The stores that a caller may use, one page of them."""
    query = sa.select(schema.stores).where(_usable(caller))
    rows, more = page_rows(connection, query, schema.stores.c.id, schema.stores.c.public_id, page)
    return Page([_store(row) for row in rows], more)


def update_store(connection: Connection, store: Store, changes: Mapping[str, Any]) -> Store:
    """Change name, description, metadata or `expires_after_days`, which is a use of the store."""
    mine = sa.update(schema.stores).where(schema.stores.c.id == store.id)
    connection.execute(mine.values(**changes, last_active_at=_used_now()))
    return get_store(connection, store.tenant, store.public_id)


def touch_store(connection: Connection, store_id: int) -> None:
    """Note that a store is used now."""
    mine = schema.stores.c.id == store_id
    connection.execute(sa.update(schema.stores).where(mine).values(last_active_at=_used_now()))


def require_active(store: Store) -> None:
    """Raises ChangeRequest (`vector_store_expired`) for a store that was not used for longer than it may be."""
    if store.expired:
        raise ChangeRequest(
            f"The vector store {store.public_id} has expired: it was not used for {store.expires_after_days} days. "
            "Make another one.",
            code="vector_store_expired",
            param="vector_store_id",
        )


def expired_stores(connection: Connection) -> list[Store]:
    """Expired stores, of every tenant, that still hold something."""
    holds = sa.select(schema.documents.c.id).where(schema.documents.c.store_id == schema.stores.c.id).exists()
    query = sa.select(schema.stores).where(_expired(), holds)
    return [_store(row) for row in connection.execute(query)]


def _expired() -> sa.ColumnElement[bool]:
    stores = schema.stores.c
    return stores.last_active_at + stores.expires_after_days * DAY <= int(time.time())


def _used_now() -> sa.ColumnElement[int]:
    """When a store that is used now was last active; one that has expired stays so."""
    return sa.case((_expired(), schema.stores.c.last_active_at), else_=int(time.time()))


def delete_store(connection: Connection, store: Store) -> list[str]:
    """Forget a store with everything in it. Returns the keys of its parsed texts, for `purge.unused_texts`."""
    versions, vectors, chunks = schema.versions.c, schema.vectors.c, schema.chunks.c
    texts = list(connection.execute(sa.select(versions.text_blob).where(versions.store_id == store.id)).scalars())
    answered.forget_store(connection, store.id)
    spaces = sa.select(schema.generations.c.space_id).where(schema.generations.c.store_id == store.id)
    space_ids = list(connection.execute(spaces).scalars())
    for table in (
        schema.query_vectors,
        schema.canaries,
        schema.drift_days,
        schema.generation_events,
        schema.generations,
        schema.file_batches,
        schema.documents,
        schema.folders,
        schema.versions,
        schema.chunk_sets,
    ):
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
        .values(seq=schema.stores.c.seq + 1, last_active_at=_used_now())
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


@cache
def _seq_by_id() -> sa.Select[Any]:
    return sa.select(schema.stores.c.seq).where(schema.stores.c.id == sa.bindparam("id"))


def count_documents(connection: Connection, caller: Caller, store_ids: list[int]) -> dict[int, Counts]:
    """How many documents that the caller may see stand where, by store."""
    documents = schema.documents.c
    query = (
        sa.select(documents.store_id, documents.state, sa.func.count())
        .where(documents.store_id.in_(store_ids), seen.newest_documents(connection, caller))
        .group_by(documents.store_id, documents.state)
    )
    tallies: dict[int, dict[str, int]] = {store_id: {} for store_id in store_ids}
    for store_id, state, number in connection.execute(query):
        tallies[store_id][state] = number
    return {store_id: Counts.of_states(tally) for store_id, tally in tallies.items()}


def usage_bytes(connection: Connection, caller: Caller, store_ids: list[int]) -> dict[int, int]:
    """Bytes of the originals in each store that the caller may see."""
    query = (
        sa.select(schema.documents.c.store_id, sa.func.sum(schema.files.c.bytes))
        .join(schema.files, schema.files.c.id == schema.documents.c.file_id)
        .where(
            schema.documents.c.store_id.in_(store_ids),
            schema.documents.c.state == "completed",
            seen.newest_documents(connection, caller),
        )
        .group_by(schema.documents.c.store_id)
    )
    return dict.fromkeys(store_ids, 0) | {store_id: int(size) for store_id, size in connection.execute(query)}


def make_chunk_set(
    connection: Connection,
    store_id: int,
    fingerprint: str,
    settings: Mapping[str, Any],
    tokenizer: str | None = None,
    token_limit: int | None = None,
) -> int:
    """The number of a store's chunk set with these settings, tokenizer and limit, made if it is new.

    `fingerprint` names the settings; of several sets that share them, the later ones add their tokenizer and limit.
    """
    there = chunk_sets_of(connection, store_id, fingerprint)
    for found in there:
        if (found.tokenizer, found.token_limit) == (tokenizer, token_limit):
            return found.id
    own = hashlib.sha256(f"{tokenizer} {token_limit}".encode()).hexdigest()[:16]
    values = {
        "store_id": store_id,
        "fingerprint": f"{fingerprint}:{own}" if there else fingerprint,
        "settings": dict(settings),
        "tokenizer": tokenizer,
        "token_limit": token_limit,
    }
    made = connection.execute(sa.insert(schema.chunk_sets).values(values)).inserted_primary_key
    assert made is not None
    return int(made[0])


def chunk_sets_of(connection: Connection, store_id: int, fingerprint: str) -> list[ChunkSet]:
    """The chunk sets of a store with the settings that this names, oldest first."""
    sets = schema.chunk_sets.c
    named = sa.or_(sets.fingerprint == fingerprint, sets.fingerprint.startswith(f"{fingerprint}:", autoescape=True))
    query = sa.select(schema.chunk_sets).where(sets.store_id == store_id, named).order_by(sets.id)
    return [ChunkSet(**row._mapping) for row in connection.execute(query)]


def get_chunk_set(connection: Connection, chunk_set_id: int) -> ChunkSet:
    """A way of splitting."""
    row = connection.execute(sa.select(schema.chunk_sets).where(schema.chunk_sets.c.id == chunk_set_id)).one()
    return ChunkSet(**row._mapping)


def fix_chunk_set(connection: Connection, chunk_set_id: int, tokenizer: str, token_limit: int) -> None:
    """Hold a chunk set that says nothing of them to the tokenizer and the limit of the embedder that has used it."""
    mine = sa.and_(schema.chunk_sets.c.id == chunk_set_id, schema.chunk_sets.c.tokenizer.is_(None))
    values = {"tokenizer": tokenizer, "token_limit": token_limit}
    connection.execute(sa.update(schema.chunk_sets).where(mine).values(values))


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


def knows_build(connection: Connection, space_id: int, build: str) -> bool:
    """Whether a space's vectors were ever computed in this way here."""
    builds = schema.encoder_builds.c
    query = sa.select(builds.id).where(builds.space_id == space_id, builds.build == build)
    return connection.execute(query).first() is not None


def note_build(connection: Connection, space_id: int, build: str, agreement: Mapping[str, Any] | None) -> bool:
    """Note how a space's vectors are computed. False when that was known."""
    if knows_build(connection, space_id, build):
        return False
    values = {"space_id": space_id, "build": build, "agreement": agreement, "created_at": int(time.time())}
    connection.execute(sa.insert(schema.encoder_builds).values(values))
    return True


def get_space(connection: Connection, space_id: int) -> tuple[Space, dict[str, Any] | None]:
    """A space and its calibration."""
    row = connection.execute(sa.select(schema.spaces).where(schema.spaces.c.id == space_id)).one()
    return Space(**row.definition), row.calibration


def _usable(caller: Caller) -> sa.ColumnElement[bool]:
    stores = schema.stores.c
    return sa.and_(stores.tenant == caller.tenant, seen.granted_stores(stores.id, caller))


def _no_store(name: str) -> NotThere:
    return NotThere(
        f"There is no vector store {name!r}. `rag stores` lists those that exist.",
        code="vector_store_not_found",
        param="vector_store_id",
    )


def _store(row: Row[Any]) -> Store:
    return Store(*tuple(row))
