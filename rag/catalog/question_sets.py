"""Question sets: versions under a name, none of which is ever changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.catalog import schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Page, PageRequest
from rag.evaluation.questions import Question, Split, as_line, read_lines

_sets, _questions = schema.question_sets, schema.questions


@dataclass(frozen=True)
class QuestionSet:
    """One version of a set; `size` is its number of questions."""

    id: int
    public_id: str
    tenant: str
    name: str
    version: int
    dev_share: float
    size: int
    created_at: int


def add_set(
    connection: Connection, tenant: str, name: str, questions: Sequence[Question], dev_share: float
) -> QuestionSet:
    """Keep questions as the next version of the set of this name."""
    mine = sa.and_(_sets.c.tenant == tenant, _sets.c.name == name)
    newest = connection.execute(sa.select(sa.func.max(_sets.c.version)).where(mine)).scalar()
    values = {
        "public_id": f"qs_{secrets.token_hex(12)}",
        "tenant": tenant,
        "name": name,
        "version": (newest or 0) + 1,
        "dev_share": dev_share,
        "size": len(questions),
        "created_at": int(time.time()),
    }
    made = connection.execute(sa.insert(_sets).values(values)).inserted_primary_key
    assert made is not None
    rows = [{"question_set_id": made[0], "split": one.split, "line": as_line(one)} for one in questions]
    connection.execute(sa.insert(_questions), rows)
    return get_set(connection, tenant, str(values["public_id"]))


def get_set(connection: Connection, tenant: str, name: str) -> QuestionSet:
    """A version by its public id, as `name@version`, or the newest one of a name. Raises NotThere, also for another
    tenant's."""
    plain, _, version = name.rpartition("@")
    named = [_sets.c.public_id == name, _sets.c.name == name]
    if plain and version.isdecimal() and len(version) < 10:
        named.append(sa.and_(_sets.c.name == plain, _sets.c.version == int(version)))
    query = sa.select(_sets).where(_there(tenant), sa.or_(*named)).order_by(_sets.c.version.desc()).limit(1)
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(
            f"There is no question set {name!r}. `rag eval questions list` shows those that exist.",
            code="question_set_not_found",
            param="question_set_id",
        )
    return _set(row)


def list_sets(connection: Connection, tenant: str, page: PageRequest) -> Page[QuestionSet]:
    """A tenant's question sets in all their versions, one page of them."""
    rows, more = page_rows(connection, sa.select(_sets).where(_there(tenant)), _sets.c.id, _sets.c.public_id, page)
    return Page([_set(row) for row in rows], more)


def delete_set(connection: Connection, question_set: QuestionSet) -> None:
    """Forget a version with its questions, also where they are canaries."""
    connection.execute(sa.delete(schema.canaries).where(schema.canaries.c.question_set_id == question_set.id))
    connection.execute(sa.delete(_questions).where(_questions.c.question_set_id == question_set.id))
    mine = _sets.c.id == question_set.id
    connection.execute(sa.update(_sets).where(mine).values(deleted_at=int(time.time())))


def read_questions(connection: Connection, question_set: QuestionSet, split: Split | None = None) -> list[Question]:
    """The questions of a version, or of one of its splits, in the order in which they came."""
    query = sa.select(_questions.c.line).where(_questions.c.question_set_id == question_set.id)
    if split is not None:
        query = query.where(_questions.c.split == split)
    lines = list(connection.execute(query.order_by(_questions.c.id)).scalars())
    return read_lines(lines) if lines else []


def _there(tenant: str) -> sa.ColumnElement[bool]:
    return sa.and_(_sets.c.tenant == tenant, _sets.c.deleted_at.is_(None))


def _set(row: Row[Any]) -> QuestionSet:
    return QuestionSet(**{name: row._mapping[name] for name in QuestionSet.__dataclass_fields__})
