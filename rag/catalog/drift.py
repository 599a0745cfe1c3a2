"""What is watched of a store: a sample of its questions' vectors, its canaries, and what each day came to.

A day's row is the queue of record: whoever runs the jobs takes it (`claim`), and a row that is still its worker's is
finished once. A day of a worker that died is taken over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from rag.catalog import batches, schema
from rag.catalog.question_sets import QuestionSet, get_set
from rag.catalog.records import DAY, Store
from rag.evaluation.drift import WATCHES

CRASHES = 3
"""Workers that may die while they look at a day, before it is left alone."""
DAYS_BEFORE = 14
"""Days that a day is compared with."""
VECTOR_DAYS = 2 * DAYS_BEFORE
"""For which vectors of questions are kept: a day that nobody looked at while the server was down can still be."""
STANDS_DAYS = 7
"""For which an alarm stands when no later day was looked at."""
PAGE = 500

_vectors, _canaries, _days = schema.query_vectors, schema.canaries, schema.drift_days


@dataclass(frozen=True)
class Sampled:
    """The vector of a question that was asked of a store."""

    store_id: int
    space_id: int
    vector: NDArray[np.float32]
    rank: float
    """Drawn at random from [0, 1)."""


@dataclass(frozen=True)
class Canaries:
    """Questions of a version of a question set with what they found when they were frozen: `hits` are, by the id of the
    question, the numbers of documents with their relevance, best first."""

    question_set: QuestionSet
    hits: Mapping[str, Mapping[int, float]]
    frozen_at: int

    @property
    def name(self) -> str:
        """The version as name@version."""
        return f"{self.question_set.name}@{self.question_set.version}"


# ---- vectors of questions --------------------------------------------------------------------------------------------


def add_query_vectors(connection: Connection, sampled: Sequence[Sampled], day: int, most: int) -> None:
    """Keep vectors, as far as they are among the `most` of the smallest ranks of their store, space and day. On a day
    that has many already, hardly any is written."""
    known = sa.select(schema.stores.c.id).where(schema.stores.c.id.in_({one.store_id for one in sampled}))
    there = set(connection.execute(known).scalars())
    for store_id, space_id in {(one.store_id, one.space_id) for one in sampled if one.store_id in there}:
        own = {"store_id": store_id, "space_id": space_id, "day": day}
        mine = sa.and_(*(_vectors.c[name] == value for name, value in own.items()))
        ranks = sa.select(_vectors.c.rank).where(mine).order_by(_vectors.c.rank)
        last = connection.execute(ranks.offset(most - 1).limit(1)).scalar()
        rows = [
            {**own, "rank": one.rank, "vector": np.ascontiguousarray(one.vector, dtype="<f4").tobytes()}
            for one in sampled
            if (one.store_id, one.space_id) == (store_id, space_id) and (last is None or one.rank < last)
        ]
        if rows:
            connection.execute(sa.insert(_vectors), rows)
            beyond = ranks.offset(most).limit(1).scalar_subquery()
            connection.execute(sa.delete(_vectors).where(mine, _vectors.c.rank >= beyond))


def query_vectors(
    connection: Connection, store_id: int, space_id: int, first: int, last: int, most: int
) -> NDArray[np.float32]:
    """The kept vectors of these days, both included, one a row; of more than `most` those with the smallest ranks."""
    held = _vectors.c
    query = sa.select(held.vector).where(
        held.store_id == store_id, held.space_id == space_id, held.day.between(first, last)
    )
    found = list(connection.execute(query.order_by(held.rank).limit(most)).scalars())
    return np.stack([np.frombuffer(one, dtype="<f4") for one in found]) if found else np.zeros((0, 0), np.float32)


def forget_vectors(connection: Connection, before: int) -> None:
    """Take out the vectors of days before this one."""
    connection.execute(sa.delete(_vectors).where(_vectors.c.day < before))


# ---- canaries --------------------------------------------------------------------------------------------------------


def freeze(
    connection: Connection, store: Store, question_set: QuestionSet, hits: Mapping[str, Mapping[int, float]]
) -> None:
    """Let these be the canaries of a store, in place of those before."""
    thaw(connection, store)
    values = {
        "store_id": store.id,
        "question_set_id": question_set.id,
        "hits": {question: list(found.items()) for question, found in hits.items()},
        "frozen_at": int(time.time()),
    }
    connection.execute(sa.insert(_canaries).values(values))


def thaw(connection: Connection, store: Store) -> None:
    """Take a store's canaries away."""
    connection.execute(sa.delete(_canaries).where(_canaries.c.store_id == store.id))


def canaries(connection: Connection, store: Store) -> Canaries | None:
    """The canaries of a store, None without any."""
    query = sa.select(_canaries, schema.question_sets.c.public_id).join(schema.question_sets)
    row = connection.execute(query.where(_canaries.c.store_id == store.id)).first()
    if row is None:
        return None
    hits = {question: {int(number): float(score) for number, score in found} for question, found in row.hits.items()}
    return Canaries(get_set(connection, store.tenant, row.public_id), hits, row.frozen_at)


# ---- days ------------------------------------------------------------------------------------------------------------


def due(connection: Connection, today: int, worker: int) -> list[tuple[int, int]]:
    """Stores, of whatever tenant, and days before `today` to be looked at: questions were asked then, or it is
    yesterday and there are canaries; nobody has finished it, and no other living worker is at it. The oldest first."""
    asked = sa.select(_vectors.c.store_id, _vectors.c.day).where(_vectors.c.day.between(today - VECTOR_DAYS, today - 1))
    watched = sa.select(_canaries.c.store_id, sa.literal(today - 1, sa.Integer).label("day"))
    wanted = sa.union(asked, watched).subquery()
    mine = sa.and_(_days.c.store_id == wanted.c.store_id, _days.c.day == wanted.c.day)
    taken = sa.select(_days.c.id).where(mine, ~_to_claim(worker))
    query = sa.select(wanted.c.store_id, wanted.c.day).where(~taken.exists())
    found = connection.execute(query.order_by(wanted.c.day, wanted.c.store_id))
    return [(row.store_id, row.day) for row in found]


def claim(connection: Connection, store_id: int, day: int, worker: int) -> bool:
    """Give a day of a store to a worker. False where somebody else has it, or has finished it, or the store is gone."""
    mine = sa.and_(_days.c.store_id == store_id, _days.c.day == day)
    if connection.execute(sa.select(_days.c.id).where(mine)).first() is None:
        if connection.execute(sa.select(schema.stores.c.id).where(schema.stores.c.id == store_id)).first() is None:
            return False
        connection.execute(sa.insert(_days).values(store_id=store_id, day=day, worker_id=worker))
        return True
    values = {"worker_id": worker, "crashes": _days.c.crashes + 1}
    return connection.execute(sa.update(_days).where(mine, _to_claim(worker)).values(values)).rowcount == 1


def finish(connection: Connection, store_id: int, day: int, worker: int, body: Mapping[str, Any], kept: int) -> bool:
    """Write down what a worker's day came to, and forget all but the newest `kept` days of the store. False where the
    day is not that worker's any more."""
    of_store = _days.c.store_id == store_id
    mine = sa.and_(of_store, _days.c.day == day, _days.c.worker_id == worker, _days.c.body.is_(None))
    done = connection.execute(sa.update(_days).where(mine).values(body=dict(body), worker_id=None)).rowcount == 1
    connection.execute(sa.delete(_days).where(of_store, _days.c.day <= day - kept))
    return done


def let_go(connection: Connection, store_id: int, day: int, worker: int) -> None:
    """Leave a day to whoever comes next: it was not a crash."""
    mine = sa.and_(_days.c.store_id == store_id, _days.c.day == day, _days.c.worker_id == worker)
    connection.execute(sa.update(_days).where(mine).values(worker_id=None, crashes=_days.c.crashes - 1))


def days(connection: Connection, store_id: int, first: int, last: int) -> dict[int, dict[str, Any]]:
    """What the finished ones of these days came to, both included, in order."""
    query = sa.select(_days.c.day, _days.c.body).where(
        _days.c.store_id == store_id, _days.c.day.between(first, last), _days.c.body.is_not(None)
    )
    return {row.day: row.body for row in connection.execute(query.order_by(_days.c.day))}


def standing_alarms(connection: Connection, today: int) -> dict[str, int]:
    """Stores, of all tenants, whose newest finished day gave an alarm, by what is watched."""
    newest = sa.select(_days.c.store_id, sa.func.max(_days.c.day).label("day")).where(_days.c.body.is_not(None))
    last = newest.where(_days.c.day >= today - STANDS_DAYS).group_by(_days.c.store_id).subquery()
    query = sa.select(_days.c.body).join(last, sa.and_(last.c.store_id == _days.c.store_id, last.c.day == _days.c.day))
    alarms = Counter(name for body in connection.execute(query).scalars() for name in body["alarms"])
    return dict.fromkeys(WATCHES, 0) | alarms


def _to_claim(worker: int) -> sa.ColumnElement[bool]:
    free = ~batches.with_another(_days.c.worker_id, worker)
    return sa.and_(_days.c.body.is_(None), free, _days.c.crashes < CRASHES)


# ---- what was answered on a day --------------------------------------------------------------------------------------


def traces_of(connection: Connection, store: Store, day: int, most: int) -> Iterator[Mapping[str, Any]]:
    """The bodies of the newest traces of a day that stand on a store, `most` of them at most."""
    traces = schema.traces.c
    on_day = sa.and_(traces.created_at >= day * DAY, traces.created_at < (day + 1) * DAY)
    mine = sa.and_(traces.tenant == store.tenant, traces.stores.like(f"%,{store.id},%"), on_day)
    below: int | None = None
    while most > 0:
        query = sa.select(traces.id, traces.body).where(mine).order_by(traces.id.desc()).limit(min(PAGE, most))
        page = list(connection.execute(query if below is None else query.where(traces.id < below)))
        if not page:
            return
        yield from (row.body for row in page)
        most, below = most - len(page), page[-1].id


def feedback_of(connection: Connection, store: Store, day: int) -> Iterator[Mapping[str, Any]]:
    """The bodies of the feedback of a day to answers that stand on a store."""
    given, traces = schema.feedback.c, schema.traces.c
    query = (
        sa.select(given.body)
        .join(schema.traces, traces.id == given.trace_id)
        .where(given.created_at >= day * DAY, given.created_at < (day + 1) * DAY, given.tenant == store.tenant)
        .where(traces.stores.like(f"%,{store.id},%"))
    )
    yield from connection.execute(query).scalars()
