"""Traces and the feedback to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest, NotThere
from rag.access import Caller
from rag.catalog import ab_tests, answered, schema

MOST_FEEDBACK = 100
"""Pieces of feedback to one trace, at most."""

_traces, _feedback = schema.traces, schema.feedback


@dataclass(frozen=True)
class Trace:
    """How an answer came about; `body` is what `rag.traces` notes."""

    id: int
    public_id: str
    created_at: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Feedback:
    """What somebody, or something, thought of an answer; `body` is as it was given."""

    public_id: str
    body: Mapping[str, Any]
    created_at: int


def add_traces(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep traces; each row has `public_id`, `created_at`, `body`, the columns of `answered.owner`, the numbers of the
    `documents` whose words stand in it, and `arms`, the arm of each A/B test by its public id."""
    beside = {"documents", "arms"}
    connection.execute(sa.insert(_traces), [{name: row[name] for name in row.keys() - beside} for row in rows])
    linked = {row["public_id"]: row for row in rows if row["documents"] or row["arms"]}
    if linked:
        query = sa.select(_traces.c.id, _traces.c.public_id).where(_traces.c.public_id.in_(linked))
        made = [(row.id, linked[row.public_id]) for row in connection.execute(query)]
        used = ((number, document) for number, row in made for document in row["documents"])
        answered.note_documents(connection, _traces, used)
        ab_tests.note_arms(connection, [(number, row["arms"]) for number, row in made if row["arms"]])


def get_trace(connection: Connection, caller: Caller, public_id: str) -> Trace:
    """A trace. Raises NotThere, also for another caller's."""
    row = answered.find(connection, _traces, caller, public_id)
    if row is None:
        raise NotThere(
            f"There is no trace {public_id!r}. Traces are kept for a while, and no longer.",
            code="trace_not_found",
            param="trace_id",
        )
    return Trace(row.id, row.public_id, row.created_at, row.body)


def feedback_of(connection: Connection, trace: Trace) -> list[Feedback]:
    """What was thought of a trace's answer, oldest first."""
    query = sa.select(_feedback).where(_feedback.c.trace_id == trace.id).order_by(_feedback.c.id)
    return [_one(row) for row in connection.execute(query)]


def judged_traces(connection: Connection, tenant: str, store_id: int) -> Iterator[tuple[Trace, list[Feedback]]]:
    """A tenant's traces of questions to this store that somebody judged, oldest first, with the judgements."""
    query = (
        sa.select(
            _traces,
            _feedback.c.public_id.label("feedback_id"),
            _feedback.c.body.label("said"),
            _feedback.c.created_at.label("said_at"),
        )
        .join(_feedback, _feedback.c.trace_id == _traces.c.id)
        .where(_traces.c.tenant == tenant, _traces.c.stores.like(f"%,{store_id},%"))
        .order_by(_traces.c.id, _feedback.c.id)
    )
    for _, rows in groupby(connection.execute(query), key=lambda row: row.id):
        row, *others = rows
        said = [Feedback(one.feedback_id, one.said, one.said_at) for one in (row, *others)]
        yield Trace(row.id, row.public_id, row.created_at, row.body), said


def add_feedback(
    connection: Connection, tenant: str, trace: Trace, body: Mapping[str, Any], idempotency_key: str | None
) -> tuple[Feedback, bool]:
    """Keep feedback to a trace, or find what was kept with the same key before; and whether it is new.

    Raises ChangeRequest when the key was used for other feedback (`idempotency_key_reused`), or there is as much as is
    kept (`too_much_feedback`).
    """
    given = _feedback.c.trace_id == trace.id
    if idempotency_key is not None:
        query = sa.select(_feedback).where(given, _feedback.c.idempotency_key == idempotency_key)
        row = connection.execute(query).first()
        if row is not None:
            return _same(_one(row), body, idempotency_key), False
    if connection.execute(sa.select(sa.func.count()).where(given)).scalar_one() >= MOST_FEEDBACK:
        raise ChangeRequest(
            f"The trace {trace.public_id!r} has {MOST_FEEDBACK} pieces of feedback, as many as are kept.",
            code="too_much_feedback",
            param="trace_id",
        )
    made = Feedback(f"fb_{secrets.token_hex(12)}", dict(body), int(time.time()))
    values = {
        "public_id": made.public_id,
        "tenant": tenant,
        "trace_id": trace.id,
        "idempotency_key": idempotency_key,
        "body": made.body,
        "created_at": made.created_at,
    }
    connection.execute(sa.insert(_feedback).values(values))
    return made, True


def prune_traces(connection: Connection, before: int, judged_before: int, most: int) -> None:
    """Forget traces made before a second since 1970 and the oldest ones beyond `most`; those that somebody has judged
    only by their own age, together with what was thought of them."""
    judged = sa.select(_feedback.c.id).where(_feedback.c.trace_id == _traces.c.id).exists()
    answered.prune(connection, _traces, before, most, [~judged])
    connection.execute(sa.delete(_traces).where(_traces.c.created_at < judged_before))


def _same(kept: Feedback, body: Mapping[str, Any], key: str) -> Feedback:
    if dict(kept.body) != dict(body):
        raise ChangeRequest(
            f"The idempotency key {key!r} was used for other feedback to this trace. Choose a new one.",
            code="idempotency_key_reused",
            param="idempotency_key",
        )
    return kept


def _one(row: Row[Any]) -> Feedback:
    return Feedback(row.public_id, row.body, row.created_at)
