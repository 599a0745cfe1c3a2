"""Evaluations: what is to be compared, who is at it, and what came of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.catalog import answered, batches, schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Page, PageRequest

State = Literal["queued", "running", "completed", "failed"]

_table = schema.evaluations


@dataclass(frozen=True)
class Evaluation:
    """One evaluation; `request` and `result` are what `ingest.evaluations` writes. `done` of `total` questions;
    `crashes` counts how often whoever was at it did not come to an end."""

    id: int
    public_id: str
    tenant: str
    state: State
    worker_id: int | None
    crashes: int
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None
    done: int
    total: int
    error_code: str | None
    error_message: str | None
    created_at: int
    ended_at: int | None


def add_evaluation(
    connection: Connection, tenant: str, store_ids: Sequence[int], request: Mapping[str, Any], total: int
) -> Evaluation:
    """Queue an evaluation of so many questions over these stores."""
    values = {
        "public_id": f"eval_{secrets.token_hex(12)}",
        "tenant": tenant,
        "stores": answered.as_text(store_ids),
        "state": "queued",
        "request": dict(request),
        "total": total,
        "created_at": int(time.time()),
    }
    connection.execute(sa.insert(_table).values(values))
    return get_evaluation(connection, tenant, str(values["public_id"]))


def get_evaluation(connection: Connection, tenant: str, public_id: str) -> Evaluation:
    """An evaluation. Raises NotThere, also for another tenant's."""
    query = sa.select(_table).where(_table.c.tenant == tenant, _table.c.public_id == public_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(f"There is no evaluation {public_id!r}.", code="evaluation_not_found", param="evaluation_id")
    return _evaluation(row)


def list_evaluations(connection: Connection, tenant: str, page: PageRequest) -> Page[Evaluation]:
    """A tenant's evaluations, one page of them."""
    query = sa.select(_table).where(_table.c.tenant == tenant)
    rows, more = page_rows(connection, query, _table.c.id, _table.c.public_id, page)
    return Page([_evaluation(row) for row in rows], more)


def comparison_of(
    connection: Connection, tenant: str, store_id: int, generations: tuple[str, str], question_set: str | None
) -> Mapping[str, Any] | None:
    """The newest comparison of the second of two generations of a store (public ids) with the first, on this question
    set (public id; None: on any)."""
    query = sa.select(_table).where(
        _table.c.tenant == tenant, _table.c.state == "completed", _table.c.stores.like(f"%,{store_id},%")
    )
    for row in connection.execute(query.order_by(_table.c.id.desc()).execution_options(yield_per=10)):
        of_arm = {arm["name"]: arm.get("generation") for arm in row.request["arms"]}
        for comparison in row.result["comparisons"]:
            pair = of_arm[comparison["a"]], of_arm[comparison["b"]]
            if pair == generations and question_set in (None, row.request["question_set"]):
                found: Mapping[str, Any] = comparison
                return found
    return None


def delete_evaluation(connection: Connection, evaluation: Evaluation) -> None:
    """Forget an evaluation; whoever is at it notices and stops."""
    connection.execute(sa.delete(_table).where(_table.c.id == evaluation.id))


def anything_waiting(connection: Connection, worker: int) -> bool:
    """Whether there is an evaluation to claim."""
    return connection.execute(sa.select(_table.c.id).where(_to_claim(worker)).limit(1)).first() is not None


def claim(connection: Connection, worker: int) -> Evaluation | None:
    """Give a worker the oldest evaluation that is nobody's, or that it did not bring to an end itself; None when there
    is none."""
    query = sa.select(_table.c.id).where(_to_claim(worker)).order_by(_table.c.id).limit(1)
    number = connection.execute(query).scalar()
    if number is None:
        return None
    crashes = sa.case((_table.c.state == "running", _table.c.crashes + 1), else_=_table.c.crashes)
    values = {"state": "running", "worker_id": worker, "done": 0, "crashes": crashes}
    connection.execute(sa.update(_table).where(_table.c.id == number).values(values))
    return _evaluation(connection.execute(sa.select(_table).where(_table.c.id == number)).one())


def advance(connection: Connection, evaluation: Evaluation, **changes: Any) -> bool:
    """Note progress (`done`) or another state of a worker's evaluation, which is then nobody's. False where it is not
    that worker's any more."""
    if "state" in changes:
        ended = None if changes["state"] == "queued" else int(time.time())
        changes = {**changes, "worker_id": None, "ended_at": ended}
    mine = (
        _table.c.id == evaluation.id,
        _table.c.state == "running",
        _table.c.worker_id == evaluation.worker_id,
    )
    return connection.execute(sa.update(_table).where(*mine).values(**changes)).rowcount == 1


def _to_claim(worker: int) -> sa.ColumnElement[bool]:
    free = ~batches.with_another(_table.c.worker_id, worker)
    return sa.or_(_table.c.state == "queued", sa.and_(_table.c.state == "running", free))


def _evaluation(row: Row[Any]) -> Evaluation:
    return Evaluation(**{name: row._mapping[name] for name in Evaluation.__dataclass_fields__})
