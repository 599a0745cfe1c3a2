"""Vectors, kept so that no text is ever embedded twice in one space for one tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from rag.catalog import schema

KEYS_A_QUERY = 5_000
_vectors = schema.vectors.c


def embedding_key(text: str) -> bytes:
    """What names a text that is embedded: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:16]


def is_of_chunk(space_id: int) -> sa.ColumnElement[bool]:
    """Of pairs of a chunk and a vector, those where the vector is the chunk's in this space."""
    chunks = schema.chunks.c
    return sa.and_(
        _vectors.space_id == space_id,
        _vectors.tenant == chunks.tenant,
        _vectors.embedding_key == chunks.embedding_key,
    )


def missing_keys(connection: Connection, space_id: int, tenant: str, keys: Sequence[bytes]) -> set[bytes]:
    """Which of these texts have no vector yet."""
    missing = set(keys)
    for start in range(0, len(keys), KEYS_A_QUERY):
        query = sa.select(_vectors.embedding_key).where(
            _vectors.space_id == space_id,
            _vectors.tenant == tenant,
            _vectors.embedding_key.in_(keys[start : start + KEYS_A_QUERY]),
        )
        missing.difference_update(connection.execute(query).scalars())
    return missing


def wanted_keys(connection: Connection, tenant: str, keys: Sequence[bytes]) -> set[bytes]:
    """Which of these texts a chunk still holds."""
    chunks = schema.chunks.c
    wanted: set[bytes] = set()
    for start in range(0, len(keys), KEYS_A_QUERY):
        query = sa.select(chunks.embedding_key).where(
            chunks.tenant == tenant, chunks.embedding_key.in_(keys[start : start + KEYS_A_QUERY])
        )
        wanted.update(connection.execute(query).scalars())
    return wanted


def put_vectors(
    connection: Connection, space_id: int, tenant: str, keys: Sequence[bytes], rows: NDArray[np.float32]
) -> None:
    """Keep vectors, shape (len(keys), dimension). One that is already there stays.

    They are written in the order of their keys, so that two writers beside each other do not wait for each other.
    """
    from sqlalchemy.dialects import postgresql, sqlite

    values = [
        {"space_id": space_id, "tenant": tenant, "embedding_key": key, "vector": row.astype("<f4").tobytes()}
        for key, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])
    ]
    if not values:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(schema.vectors).on_conflict_do_nothing(), values)


def decode_vectors(blobs: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Stored vectors as a matrix, shape (len(blobs), dimension)."""
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dimension).astype(np.float32, copy=False)
