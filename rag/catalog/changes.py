"""The change log as views read it: what to take in and what to drop between two numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from rag.access import UNTAGGED
from rag.catalog import schema
from rag.catalog.vectors import decode_vectors, is_of_chunk
from rag.context import Scalar

_versions, _chunks, _vectors = schema.versions.c, schema.chunks.c, schema.vectors.c


@dataclass(frozen=True)
class Changes:
    """What happened in a store after one number, up to and with another."""

    through: int
    """The number up to which publishing is told."""
    seq: int
    """And everything else."""
    retired: Sequence[int]
    """Versions that no longer answer."""
    published: Sequence[int]
    """Versions that answer now."""
    attributes: Mapping[int, Mapping[str, Scalar]]
    """Attributes of the documents that were published or whose attributes or tags changed."""
    tags: Mapping[int, frozenset[str]]
    """And their permission tags, as `read_tags` tells them."""


@dataclass(frozen=True)
class ViewRows:
    """A stretch of visible chunks, column by column; `vectors` has shape (n, dimension)."""

    ids: NDArray[np.int64]
    version_ids: NDArray[np.int64]
    document_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]


def read_changes(
    connection: Connection, store_id: int, after: int, *, seen: int | None = None, through: int | None = None
) -> Changes | None:
    """Everything after a number. None when the log no longer reaches back that far, or the store is gone.

    For what is not to have all that is published: `after` and `through` are the numbers up to which it has that, and is
    to have it; `seen` is the one up to which it knows what was retired and changed.
    """
    stores = schema.stores.c
    row = connection.execute(sa.select(stores.seq, stores.pruned_through).where(stores.id == store_id)).first()
    seen = after if seen is None else seen
    if row is None or seen < row.pruned_through:
        return None
    through = row.seq if through is None else min(through, row.seq)
    if (after, seen) == (through, row.seq):
        return Changes(through, row.seq, (), (), {}, {})
    mine = _versions.store_id == store_id
    retired = sa.select(_versions.id).where(mine, _versions.retired_seq > seen, _versions.published_seq <= after)
    published = sa.select(_versions.id, _versions.document_id).where(
        mine, _versions.published_seq > after, _versions.published_seq <= through, _versions.retired_seq.is_(None)
    )
    changed = sa.select(_versions.document_id).where(
        mine, _versions.changed_seq > seen, _versions.published_seq <= through, _versions.retired_seq.is_(None)
    )
    new = list(connection.execute(published))
    document_ids = sorted({r.document_id for r in new} | set(connection.execute(changed).scalars()))
    return Changes(
        through,
        row.seq,
        list(connection.execute(retired).scalars()),
        [r.id for r in new],
        read_attributes(connection, document_ids),
        read_tags(connection, document_ids),
    )


def read_attributes(
    connection: Connection, document_ids: Sequence[int], *, coming: bool = False
) -> dict[int, Mapping[str, Scalar]]:
    """The attributes of these documents; with `coming` those that they have from their next version on."""
    return _of_documents(connection, document_ids, "attributes", coming)


def read_tags(
    connection: Connection, document_ids: Sequence[int], *, coming: bool = False
) -> dict[int, frozenset[str]]:
    """The permission tags of these documents as indexes hold them: UNTAGGED for those that carry none. `coming` as for
    `read_attributes`."""
    found = _of_documents(connection, document_ids, "permissions", coming)
    return {number: frozenset(tags or (UNTAGGED,)) for number, tags in found.items()}


def _of_documents(connection: Connection, document_ids: Sequence[int], name: str, coming: bool) -> dict[int, Any]:
    columns = schema.documents.c
    held = sa.func.coalesce(columns[f"next_{name}"], columns[name]) if coming else columns[name]
    found: dict[int, Any] = {}
    for start in range(0, len(document_ids), 5_000):
        query = sa.select(columns.id, held.label("held")).where(columns.id.in_(document_ids[start : start + 5_000]))
        found.update({row.id: row.held for row in connection.execute(query)})
    return found


def visible_versions(connection: Connection, store_id: int, through: int | None = None) -> list[int]:
    """Every version of a store that answers now, of those published up to a number where one is given."""
    query = sa.select(_versions.id).where(_versions.store_id == store_id, schema.ANSWERS)
    if through is not None:
        query = query.where(_versions.published_seq <= through)
    return list(connection.execute(query.order_by(_versions.id)).scalars())


def kept_versions(connection: Connection, version_ids: Sequence[int]) -> set[int]:
    """Which of these versions the catalog still keeps: visible ones, and those at work."""
    kept: set[int] = set()
    for start in range(0, len(version_ids), 5_000):
        query = sa.select(_versions.id).where(
            _versions.id.in_(version_ids[start : start + 5_000]), _versions.purged == sa.false()
        )
        kept.update(connection.execute(query).scalars())
    return kept


def read_rows(
    connection: Connection,
    version_ids: Sequence[int],
    chunk_set_id: int,
    space_id: int,
    dimension: int,
    size: int = 4_096,
) -> Iterator[ViewRows]:
    """The chunks of these versions with their vectors, at most about `size` at a time."""
    for start in range(0, len(version_ids), 500):
        query = (
            sa.select(_chunks.id, _chunks.version_id, _versions.document_id, _vectors.vector)
            .join(schema.versions, _versions.id == _chunks.version_id)
            .join(schema.vectors, is_of_chunk(space_id))
            .where(_chunks.version_id.in_(version_ids[start : start + 500]), _chunks.chunk_set_id == chunk_set_id)
        )
        for rows in connection.execute(query.execution_options(yield_per=size)).partitions():
            yield _columns(rows, dimension)


def read_texts(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """(number, text, title and headings) of these chunks, ascending."""
    for start in range(0, len(ids), 5_000):
        query = (
            sa.select(_chunks.id, _chunks.text, _versions.title, _chunks.heading_path)
            .join(schema.versions, _versions.id == _chunks.version_id)
            .where(_chunks.id.in_(ids[start : start + 5_000]))
        )
        for row in connection.execute(query.order_by(_chunks.id)):
            # A title that the text begins with counts twice: what a document calls itself weighs more.
            yield row.id, row.text, "\n".join([row.title, *(part for part in row.heading_path if part != row.title)])


def _columns(rows: Sequence[Any], dimension: int) -> ViewRows:
    ids, versions, documents, vectors = zip(*rows, strict=True)
    return ViewRows(
        np.array(ids, dtype=np.int64),
        np.array(versions, dtype=np.int64),
        np.array(documents, dtype=np.int64),
        decode_vectors(vectors, dimension),
    )
