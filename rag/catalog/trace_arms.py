"""Which arm of an experiment answers came from, and how they went."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.access import Caller
from rag.catalog import answered, schema
from rag.evaluation.arms import Outcome
from rag.evaluation.feedback import thumb_of

_arms, _traces, _feedback = schema.trace_arms.c, schema.traces.c, schema.feedback.c


def outcomes_of(connection: Connection, caller: Caller, experiment: str, since: int) -> list[Outcome]:
    """How the answers of an experiment went since a second of 1970, those of the tenant that stand on stores which the
    caller may use."""
    body = _traces.body
    query = (
        sa.select(
            _traces.id,
            _traces.stores,
            _arms.arm,
            body["error"].as_string().label("error"),
            body["grounded"].as_boolean().label("grounded"),
            body["groundedness"].label("groundedness"),
        )
        .join(schema.trace_arms, _arms.trace_id == _traces.id)
        .where(_arms.experiment == experiment, _traces.tenant == caller.tenant, _traces.created_at >= since)
    )
    thumbs = _thumbs(connection, experiment)
    return [
        Outcome(row.arm, row.error is not None, not row.grounded, _ungrounded(row.groundedness), thumbs[row.id])
        for row in connection.execute(query)
        if answered.may_use(caller, row.stores)
    ]


def _thumbs(connection: Connection, experiment: str) -> defaultdict[int, tuple[bool, ...]]:
    query = sa.select(_feedback.trace_id, _feedback.body).join(
        schema.trace_arms, sa.and_(_arms.trace_id == _feedback.trace_id, _arms.experiment == experiment)
    )
    found: defaultdict[int, tuple[bool, ...]] = defaultdict(tuple)
    for row in connection.execute(query):
        thumb = thumb_of(row.body)
        if thumb is not None:
            found[row.trace_id] += (thumb,)
    return found


def _ungrounded(found: Any) -> bool | None:
    """Whether a check of the answer's sentences found one that stands on nothing; None where there was none."""
    return bool(found["unsupported"]) if isinstance(found, dict) and "unsupported" in found else None
