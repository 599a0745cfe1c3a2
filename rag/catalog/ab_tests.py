"""A/B tests: their arms, and how the answers went that came from each."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.access import Caller
from rag.catalog import answered, schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Page, PageRequest
from rag.evaluation.feedback import thumb_of
from rag.evaluation.outcomes import Outcome

_table, _arms, _traces, _feedback = schema.ab_tests, schema.trace_arms.c, schema.traces.c, schema.feedback.c


@dataclass(frozen=True)
class Arm:
    """One way of answering; what is None is as without the test."""

    name: str
    share: float
    """Of the users."""
    prompt: str | None
    model: str | None
    """An alias."""


@dataclass(frozen=True)
class ABTest:
    """Arms that users are spread over; the others are compared with the first. It runs until it was ended."""

    id: int
    public_id: str
    name: str
    arms: tuple[Arm, ...]
    created_at: int
    ended_at: int | None


def add_test(connection: Connection, tenant: str, name: str, arms: Sequence[Arm]) -> ABTest:
    """Begin a test."""
    values = {
        "public_id": f"ab_{secrets.token_hex(12)}",
        "tenant": tenant,
        "name": name,
        "arms": [asdict(arm) for arm in arms],
        "created_at": int(time.time()),
    }
    connection.execute(sa.insert(_table).values(values))
    return get_test(connection, tenant, str(values["public_id"]))


def get_test(connection: Connection, tenant: str, public_id: str) -> ABTest:
    """A test. Raises NotThere, also for another tenant's."""
    query = sa.select(_table).where(_table.c.tenant == tenant, _table.c.public_id == public_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(f"There is no A/B test {public_id!r}.", code="ab_test_not_found", param="ab_test_id")
    return _test(row)


def list_tests(connection: Connection, tenant: str, page: PageRequest) -> Page[ABTest]:
    """A tenant's tests, one page of them."""
    query = sa.select(_table).where(_table.c.tenant == tenant)
    rows, more = page_rows(connection, query, _table.c.id, _table.c.public_id, page)
    return Page([_test(row) for row in rows], more)


def running(connection: Connection, tenant: str) -> list[ABTest]:
    """A tenant's tests that were not ended."""
    query = sa.select(_table).where(_table.c.tenant == tenant, _table.c.ended_at.is_(None)).order_by(_table.c.id)
    return [_test(row) for row in connection.execute(query)]


def end_test(connection: Connection, test: ABTest) -> None:
    """Let nobody take part any more; harmless when repeated."""
    mine = sa.update(_table).where(_table.c.id == test.id, _table.c.ended_at.is_(None))
    connection.execute(mine.values(ended_at=int(time.time())))


def delete_test(connection: Connection, test: ABTest) -> None:
    """Forget a test, and which answers came from its arms."""
    connection.execute(sa.delete(_table).where(_table.c.id == test.id))


def note_arms(connection: Connection, arms: Sequence[tuple[int, Mapping[str, str]]]) -> None:
    """Keep which arms traces (by number) came from. Tests (by public id) that were deleted meanwhile are left out."""
    named = {public_id for _, of_trace in arms for public_id in of_trace}
    query = sa.select(_table.c.public_id, _table.c.id).where(_table.c.public_id.in_(named))
    numbers = {row.public_id: row.id for row in connection.execute(query)} if named else {}
    rows = [
        {"trace_id": trace, "ab_test_id": numbers[public_id], "arm": arm}
        for trace, of_trace in arms
        for public_id, arm in of_trace.items()
        if public_id in numbers
    ]
    if rows:
        connection.execute(sa.insert(schema.trace_arms), rows)


def outcomes_of(connection: Connection, caller: Caller, test: ABTest, since: int) -> list[Outcome]:
    """How the answers of a test went since a second of 1970, those that stand on stores which the caller may use."""
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
        .where(_arms.ab_test_id == test.id, _traces.created_at >= since)
    )
    thumbs = _thumbs(connection, test)
    return [
        Outcome(row.arm, row.error is not None, not row.grounded, _ungrounded(row.groundedness), thumbs[row.id])
        for row in connection.execute(query)
        if answered.may_use(caller, row.stores)
    ]


def _thumbs(connection: Connection, test: ABTest) -> defaultdict[int, tuple[bool, ...]]:
    """What people thought of the answers of a test, by the number of the trace."""
    query = sa.select(_feedback.trace_id, _feedback.body).join(
        schema.trace_arms, sa.and_(_arms.trace_id == _feedback.trace_id, _arms.ab_test_id == test.id)
    )
    found: defaultdict[int, tuple[bool, ...]] = defaultdict(tuple)
    for row in connection.execute(query):
        thumb = thumb_of(row.body)
        if thumb is not None and row.body.get("source", "human") == "human":
            found[row.trace_id] += (thumb,)
    return found


def _ungrounded(found: Any) -> bool | None:
    """Whether a check of the answer's sentences found one that stands on nothing; None where there was none."""
    return bool(found["unsupported"]) if found else None


def _test(row: Row[Any]) -> ABTest:
    arms = tuple(Arm(**arm) for arm in row.arms)
    return ABTest(row.id, row.public_id, row.name, arms, row.created_at, row.ended_at)
