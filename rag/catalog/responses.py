"""Stored responses and chat completions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.access import Caller
from rag.catalog import answered, schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Page, PageRequest

Kind = Literal["response", "chat.completion"]

LONGEST_CHAIN = 200
"""Responses that a conversation is followed back over, at most."""

_table = schema.responses


@dataclass(frozen=True)
class StoredResponse:
    """An answer as it was sent, and the items that it answers."""

    id: int
    public_id: str
    kind: Kind
    model: str
    metadata: Mapping[str, str]
    previous_id: int | None
    input: Sequence[Mapping[str, Any]]
    body: Mapping[str, Any]
    created_at: int


def add_response(
    connection: Connection,
    caller: Caller,
    store_ids: Sequence[int],
    kind: Kind,
    body: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    documents: Iterable[int],
    previous_id: int | None = None,
) -> None:
    """Keep an answer; `body` is what was sent, with its `id` and `model`. Words of `documents` stand in it, and
    maybe some of the answer that it goes on from."""
    values = {
        **answered.owner(caller, store_ids),
        "public_id": body["id"],
        "kind": kind,
        "model": body["model"],
        "metadata": dict(body.get("metadata") or {}),
        "previous_id": previous_id,
        "input": [dict(item) for item in items],
        "body": dict(body),
        "created_at": int(time.time()),
    }
    made = connection.execute(sa.insert(_table).values(values)).inserted_primary_key
    assert made is not None
    used = set(documents) | (answered.documents_of(connection, _table, previous_id) if previous_id else set())
    answered.note_documents(connection, _table, ((made[0], document) for document in used))


def get_response(connection: Connection, caller: Caller, kind: Kind, public_id: str) -> StoredResponse:
    """A stored answer. Raises NotThere, also for another caller's."""
    row = answered.find(connection, _table, caller, public_id)
    if row is None or row.kind != kind:
        noun = kind.replace(".", " ")
        raise NotThere(
            f"There is no stored {noun} {public_id!r}. Only those that were made with `store` are kept, for a while.",
            code=f"{noun.replace(' ', '_')}_not_found",
            param="response_id" if kind == "response" else "completion_id",
        )
    return _response(row)


def conversation(connection: Connection, caller: Caller, last: StoredResponse) -> list[StoredResponse]:
    """A response and those that it goes on from, oldest first, as far back as they are still kept."""
    found = [last]
    while found[-1].previous_id is not None and len(found) < LONGEST_CHAIN:
        row = answered.find_by_id(connection, _table, caller, found[-1].previous_id)
        if row is None:
            break
        found.append(_response(row))
    return found[::-1]


def list_responses(
    connection: Connection, caller: Caller, kind: Kind, page: PageRequest, model: str | None = None
) -> Page[StoredResponse]:
    """A caller's stored answers of one kind, one page of them."""
    query = sa.select(_table).where(_table.c.kind == kind, answered.seen_by(connection, _table, caller))
    if model is not None:
        query = query.where(_table.c.model == model)
    rows, more = page_rows(connection, query, _table.c.id, _table.c.public_id, page)
    return Page([_response(row) for row in rows if answered.may_use(caller, row.stores)], more)


def drop_response(connection: Connection, stored: StoredResponse) -> None:
    """Forget a stored answer."""
    connection.execute(sa.delete(_table).where(_table.c.id == stored.id))


def prune_responses(connection: Connection, before: int, most: int) -> None:
    """Forget those made before a second since 1970, and the oldest ones beyond `most`."""
    answered.prune(connection, _table, before, most)


def _response(row: Row[Any]) -> StoredResponse:
    return StoredResponse(**{name: row._mapping[name] for name in StoredResponse.__dataclass_fields__})
