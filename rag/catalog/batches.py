"""Who works on what: workers with their heartbeats, and the batches of documents that each has claimed.

A batch belongs to one worker. When that worker leaves or has not been heard of for a while, its batches have no owner,
and a living worker adopts them: the batch gets a new name and its documents the next attempt, so that the old owner,
should it wake up, finds nothing under the old name, and what it has in hand is refused.

Time is the database's own, so that workers on machines whose clocks differ agree on who is silent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema
from rag.catalog.documents import active_of_batch
from rag.catalog.records import ACTIVE, Document

_documents, _batches, _workers, _versions = (
    schema.documents.c,
    schema.batches.c,
    schema.workers.c,
    schema.versions.c,
)


@dataclass(frozen=True)
class Batch:
    """A claimed batch; `crashes` counts the workers that died while they had it."""

    name: str
    crashes: int


# ---- workers --------------------------------------------------------------------------------------------------------


def join(connection: Connection, name: str) -> int:
    """Enter a worker. Returns its number."""
    now = _now(connection)
    made = connection.execute(sa.insert(schema.workers).values(name=name, started_at=now, beat_at=now))
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def beat(connection: Connection, worker: int) -> bool:
    """Say that a worker lives. False when it was given up as dead meanwhile: it has to join again."""
    statement = sa.update(schema.workers).where(_workers.id == worker).values(beat_at=_now(connection))
    return connection.execute(statement).rowcount == 1


def leave(connection: Connection, worker: int) -> None:
    """Take a worker out; what it leaves unfinished can be adopted at once."""
    connection.execute(sa.update(schema.batches).where(_batches.worker_id == worker).values(worker_id=None))
    _release_generations(connection, [worker])
    connection.execute(sa.delete(schema.workers).where(_workers.id == worker))


def bury(connection: Connection, silent_seconds: float) -> list[str]:
    """Give up the workers that have been silent for so long (0: all of them). Returns their names.

    The batches that they had are without an owner then, and remember that their worker died.
    """
    dead = list(connection.execute(_silent(connection, silent_seconds)))
    if dead:
        numbers = [row.id for row in dead]
        connection.execute(
            sa.update(schema.batches)
            .where(_batches.worker_id.in_(numbers))
            .values(worker_id=None, crashes=_batches.crashes + 1)
        )
        _release_generations(connection, numbers)
        connection.execute(sa.delete(schema.workers).where(_workers.id.in_(numbers)))
    return [str(row.name) for row in dead]


def _release_generations(connection: Connection, workers: Sequence[int]) -> None:
    """What they were filling may be filled by others."""
    mine = schema.generations.c.worker_id.in_(workers)
    connection.execute(sa.update(schema.generations).where(mine).values(worker_id=None))


def with_another(holder: sa.ColumnElement[Any], worker: int) -> sa.ColumnElement[bool]:
    """Of rows that `holder` gives to a worker, those that another one has who is still entered here."""
    others = sa.and_(_workers.id == holder, _workers.id != worker)
    return sa.select(_workers.id).where(others).exists()


def anyone_silent(connection: Connection, silent_seconds: float) -> bool:
    """Whether there is somebody to bury."""
    return connection.execute(_silent(connection, silent_seconds).limit(1)).first() is not None


# ---- batches --------------------------------------------------------------------------------------------------------


def anything_waiting(connection: Connection) -> bool:
    """Whether a queued document belongs to no batch yet."""
    query = sa.select(_documents.id).where(_documents.state == "queued", _documents.batch.is_(None)).limit(1)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection, worker: int, name: str, most: int, most_bytes: int, most_of_store: int | None = None
) -> list[int]:
    """Give waiting documents of one store to a new batch of a worker. Returns their numbers, none when none wait.

    The store with the fewest batches at work comes first, then the one that has waited longest, so that a large upload
    does not hold up the others; a store that has `most_of_store` batches at work gets no more. Of a store the oldest
    documents come first; one over `most_bytes`, or marked `alone`, goes by itself.
    """
    connection.execute(
        sa.delete(schema.batches).where(_batches.worker_id == worker, ~_active_in(_batches.name).exists())
    )
    store = _next_store(connection, most_of_store)
    if store is None:
        return []
    waiting = (
        sa.select(_documents.id, _documents.alone, schema.files.c.bytes)
        .join(schema.files, schema.files.c.id == _documents.file_id)
        .where(_documents.state == "queued", _documents.batch.is_(None), _documents.store_id == store)
        .order_by(_documents.id)
        .limit(most * 4)
    )
    taken: list[int] = []
    size = 0
    for row in connection.execute(waiting):
        if taken and row.alone:
            continue
        if taken and size + row.bytes > most_bytes:
            break
        taken.append(row.id)
        size += row.bytes
        if row.alone or len(taken) == most:
            break
    connection.execute(sa.update(schema.documents).where(_documents.id.in_(taken)).values(batch=name))
    connection.execute(sa.insert(schema.batches).values(name=name, worker_id=worker))
    return taken


def open_batches(connection: Connection, worker: int) -> list[str]:
    """A worker's batches with documents that still want work, in the order in which it got them."""
    query = sa.select(_batches.name).where(_batches.worker_id == worker, _active_in(_batches.name).exists())
    return [str(name) for name in connection.execute(query.order_by(_batches.id)).scalars()]


def count_open(connection: Connection, tenant: str | None = None) -> int:
    """Batches with documents that still want work, of a tenant or of all, over all workers."""
    query = sa.select(sa.func.count(sa.distinct(_documents.batch))).where(_documents.state.in_(ACTIVE))
    return int(connection.execute(query if tenant is None else query.where(_documents.tenant == tenant)).scalar_one())


def release_all(connection: Connection) -> None:
    """Take every batch from its worker, so that it is adopted and begun again."""
    connection.execute(sa.update(schema.batches).values(worker_id=None))


def anything_ownerless(connection: Connection) -> bool:
    """Whether a batch is to be adopted."""
    query = sa.select(_batches.id).where(_batches.worker_id.is_(None)).limit(1)
    return connection.execute(query).first() is not None


def adopt(connection: Connection, worker: int, name: str) -> tuple[str, Batch] | None:
    """Give the oldest batch without an owner to a worker, under a new name. Returns the old name and the batch.

    What was parsed for its documents is kept: it counts as the work of their next attempt. None when there is none.
    """
    query = sa.select(_batches.id, _batches.name, _batches.crashes).where(_batches.worker_id.is_(None))
    row = connection.execute(query.order_by(_batches.id).limit(1)).first()
    if row is None:
        return None
    connection.execute(sa.delete(schema.batches).where(_batches.id == row.id))
    left = active_of_batch(connection, row.name)
    if not left:
        return adopt(connection, worker, name)
    for document in left:
        _next_attempt(connection, document, name)
    connection.execute(sa.insert(schema.batches).values(name=name, worker_id=worker, crashes=row.crashes))
    return str(row.name), Batch(name, row.crashes)


def _next_attempt(connection: Connection, document: Document, batch: str) -> None:
    mine = sa.and_(_versions.document_id == document.id, _versions.attempt == document.attempt)
    connection.execute(
        sa.update(schema.versions).where(mine, _versions.published_seq.is_(None)).values(attempt=document.attempt + 1)
    )
    connection.execute(
        sa.update(schema.documents)
        .where(_documents.id == document.id)
        .values(attempt=document.attempt + 1, batch=batch)
    )


def _next_store(connection: Connection, most_of_store: int | None) -> int | None:
    at_work = sa.select(_documents.store_id, sa.func.count(sa.distinct(_documents.batch)).label("number")).where(
        _documents.state.in_(ACTIVE), _documents.batch.is_not(None)
    )
    working = {row.store_id: row.number for row in connection.execute(at_work.group_by(_documents.store_id))}
    waiting = sa.select(_documents.store_id, sa.func.min(_documents.id).label("oldest")).where(
        _documents.state == "queued", _documents.batch.is_(None)
    )
    found = [
        (working.get(row.store_id, 0), row.oldest, row.store_id)
        for row in connection.execute(waiting.group_by(_documents.store_id))
        if most_of_store is None or working.get(row.store_id, 0) < most_of_store
    ]
    return int(min(found)[2]) if found else None


def _silent(connection: Connection, seconds: float) -> sa.Select[tuple[int, str]]:
    return sa.select(_workers.id, _workers.name).where(_workers.beat_at <= _now(connection) - seconds)


def _active_in(batch: sa.ColumnElement[str]) -> sa.Select[tuple[int]]:
    return sa.select(_documents.id).where(_documents.batch == batch, _documents.state.in_(ACTIVE))


def _now(connection: Connection) -> float:
    """Seconds since 1970 by the clock of the database."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar_one())
