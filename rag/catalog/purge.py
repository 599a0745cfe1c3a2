"""Taking out what no longer answers: chunks first, then the vectors and texts that nothing else uses."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema
from rag.catalog.records import Generation

KEPT_CHANGES = 10_000
"""Marks in the change log that stay for views that lag."""

_versions, _chunks, _vectors, _documents, _generations = (
    schema.versions.c,
    schema.chunks.c,
    schema.vectors.c,
    schema.documents.c,
    schema.generations.c,
)


def purgeable_versions(connection: Connection, most: int = 64) -> list[int]:
    """Versions to purge: retired ones, and unpublished ones whose attempt is over."""
    query = sa.select(_versions.id).where(_versions.purged == sa.false(), _over()).order_by(_versions.id).limit(most)
    return list(connection.execute(query).scalars())


def over_or_gone(connection: Connection, version_ids: Sequence[int]) -> set[int]:
    """Which of these versions are to be purged, or have been."""
    kept: set[int] = set()
    for start in range(0, len(version_ids), 5_000):
        some = _versions.id.in_(version_ids[start : start + 5_000])
        kept.update(connection.execute(sa.select(_versions.id).where(some, ~_over())).scalars())
    return set(version_ids) - kept


def stores_of(connection: Connection, version_ids: Sequence[int]) -> dict[int, int]:
    """The number of the store that each of these versions belongs to."""
    query = sa.select(_versions.id, _versions.store_id).where(_versions.id.in_(version_ids))
    return {row.id: row.store_id for row in connection.execute(query)}


def purge_version(connection: Connection, version_id: int) -> str | None:
    """Remove a version's chunks and the vectors that nothing else uses.

    Returns the key of its text, for `unused_texts`. An unpublished version goes whole; a published one
    leaves its mark in the change log.
    """
    row = connection.execute(
        sa.select(_versions.text_blob, _versions.published_seq).where(_versions.id == version_id)
    ).first()
    if row is None:
        return None
    held = sa.select(_chunks.tenant, _chunks.embedding_key).where(_chunks.version_id == version_id)
    keys = {(row.tenant, row.embedding_key) for row in connection.execute(held)}
    connection.execute(sa.delete(schema.chunks).where(_chunks.version_id == version_id))
    _drop_unused_vectors(connection, keys)
    if row.published_seq is None:
        connection.execute(sa.delete(schema.versions).where(_versions.id == version_id))
    else:
        connection.execute(sa.update(schema.versions).where(_versions.id == version_id).values(purged=True))
    return str(row.text_blob)


def empty_page(connection: Connection, generation: Generation, after: int, most: int = 64) -> int | None:
    """Remove what only a retired generation used of so many versions with numbers behind `after`: chunks whose set no
    other generation has, and vectors of its space that none in that space needs.

    Returns the last number, None when there were no more. Safe to repeat.
    """
    mine = sa.select(_versions.id).where(_versions.store_id == generation.store_id, _versions.id > after)
    versions = list(connection.execute(mine.order_by(_versions.id).limit(most)).scalars())
    if not versions:
        return None
    of_set = sa.and_(_chunks.version_id.in_(versions), _chunks.chunk_set_id == generation.chunk_set_id)
    keys = set(connection.execute(sa.select(_chunks.embedding_key).where(of_set)).scalars())
    used = sa.select(_generations.id).where(
        _generations.chunk_set_id == generation.chunk_set_id, _generations.state != "retired"
    )
    if connection.execute(used.limit(1)).first() is None:
        connection.execute(sa.delete(schema.chunks).where(of_set))
        _drop_unused_vectors(connection, {(generation.tenant, key) for key in keys})
    _drop_vectors_of_space(connection, generation, sorted(keys))
    return int(versions[-1])


def unused_texts(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Which of these parsed texts no version needs any more."""
    unused = set(keys)
    for start in range(0, len(keys), 5_000):
        query = sa.select(_versions.text_blob).where(
            _versions.text_blob.in_(keys[start : start + 5_000]), _versions.purged == sa.false()
        )
        unused.difference_update(connection.execute(query).scalars())
    return sorted(unused)


def prune_log(connection: Connection, store_id: int, seq: int, kept: int = KEPT_CHANGES) -> None:
    """Forget purged marks that are more than `kept` changes old. Views further behind rebuild."""
    through = seq - kept
    if through <= 0:
        return
    connection.execute(
        sa.delete(schema.versions).where(
            _versions.store_id == store_id, _versions.purged == sa.true(), _versions.retired_seq <= through
        )
    )
    stores = schema.stores
    connection.execute(
        sa.update(stores)
        .where(stores.c.id == store_id, stores.c.pruned_through < through)
        .values(pruned_through=through)
    )


def _over() -> sa.ColumnElement[bool]:
    at_work = sa.select(_documents.id).where(
        _documents.id == _versions.document_id,
        _documents.attempt == _versions.attempt,
        _documents.state.in_(schema.ACTIVE_STATES),
    )
    return sa.or_(_versions.retired_seq.is_not(None), sa.and_(_versions.published_seq.is_(None), ~at_work.exists()))


def _drop_vectors_of_space(connection: Connection, generation: Generation, keys: Sequence[bytes]) -> None:
    """Remove the vectors of these texts in a retired generation's space that no other generation in it needs."""
    mine = sa.and_(_vectors.space_id == generation.space_id, _vectors.tenant == generation.tenant)
    for start in range(0, len(keys), 5_000):
        some = keys[start : start + 5_000]
        needed = (
            sa.select(_chunks.embedding_key)
            .join(schema.generations, _generations.chunk_set_id == _chunks.chunk_set_id)
            .where(
                _generations.space_id == generation.space_id,
                _generations.state != "retired",
                _chunks.tenant == generation.tenant,
                _chunks.embedding_key.in_(some),
            )
        )
        unused = sorted(set(some) - set(connection.execute(needed).scalars()))
        connection.execute(sa.delete(schema.vectors).where(mine, _vectors.embedding_key.in_(unused)))


def _drop_unused_vectors(connection: Connection, keys: set[tuple[str, bytes]]) -> None:
    for tenant in {tenant for tenant, _ in keys}:
        mine = [key for owner, key in keys if owner == tenant]
        for start in range(0, len(mine), 5_000):
            some = mine[start : start + 5_000]
            used = sa.select(_chunks.embedding_key).where(_chunks.tenant == tenant, _chunks.embedding_key.in_(some))
            unused = sorted(set(some) - set(connection.execute(used).scalars()))
            connection.execute(
                sa.delete(schema.vectors).where(_vectors.tenant == tenant, _vectors.embedding_key.in_(unused))
            )
