"""What was answered, and to whom: who may see it again, and how long it is kept.

An answer repeats documents. So a stored response or a trace is there for the key that asked, with the permissions that
it asked with, as long as it may use every store that was searched and see every document whose words are repeated; and
for the operator, who sees all of the tenant. It goes when one of these documents, or a store, is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from rag.access import Caller
from rag.catalog import schema, seen

DOCUMENTS: Mapping[sa.Table, sa.Table] = {
    schema.responses: schema.responses_documents,
    schema.traces: schema.traces_documents,
}
"""What was answered, and whose words stand in it."""


def owner(caller: Caller, store_ids: Iterable[int]) -> dict[str, Any]:
    """The columns of a row that say who it is for."""
    return {
        "tenant": caller.tenant,
        "key_id": caller.key_id,
        "permissions": _permissions(caller),
        "stores": as_text(store_ids),
    }


def as_text(store_ids: Iterable[int]) -> str:
    """Numbers of stores as a row holds them: ",1,2,"."""
    return "," + "".join(f"{number}," for number in sorted(set(store_ids)))


def note_documents(connection: Connection, table: sa.Table, used: Iterable[tuple[int, int]]) -> None:
    """Keep whose words stand in some rows, as pairs of the row's number and the document's. A row goes at once whose
    document went before it was written."""
    rows = [{"answer_id": answer, "document_id": document} for answer, document in sorted(set(used))]
    if not rows:
        return
    connection.execute(sa.insert(DOCUMENTS[table]), rows)
    wanted = {row["document_id"] for row in rows}
    documents = schema.documents.c
    there = set(connection.execute(sa.select(documents.id).where(documents.id.in_(wanted))).scalars())
    for document in wanted - there:
        forget_document(connection, document)


def documents_of(connection: Connection, table: sa.Table, number: int) -> set[int]:
    """The documents whose words stand in a row."""
    links = DOCUMENTS[table].c
    return set(connection.execute(sa.select(links.document_id).where(links.answer_id == number)).scalars())


def find(connection: Connection, table: sa.Table, caller: Caller, public_id: str) -> Row[Any] | None:
    """A row by its public id, None when it is not there for this caller."""
    return _first(connection, table, caller, table.c.public_id == public_id)


def find_by_id(connection: Connection, table: sa.Table, caller: Caller, number: int) -> Row[Any] | None:
    """A row by its number, None when it is not there for this caller."""
    return _first(connection, table, caller, table.c.id == number)


def seen_by(connection: Connection, table: sa.Table, caller: Caller) -> sa.ColumnElement[bool]:
    """Which rows were answered to this caller and repeat nothing that they may not see now, whatever stores they stand
    on: see `may_use`."""
    links = DOCUMENTS[table].c
    there = sa.select(schema.documents.c.id).where(
        schema.documents.c.id == links.document_id, seen.answering_documents(connection, caller)
    )
    hidden = sa.select(links.document_id).where(links.answer_id == table.c.id, ~there.exists())
    conditions = [table.c.tenant == caller.tenant, ~hidden.exists()]
    if caller.key_id is not None:
        conditions.append(table.c.key_id == caller.key_id)
    if caller.permissions is not None:
        conditions.append(table.c.permissions == _permissions(caller))
    return sa.and_(*conditions)


def may_use(caller: Caller, stores: str) -> bool:
    """Whether a caller may use every store that a row stands on."""
    numbers = {int(number) for number in stores.split(",") if number}
    return caller.stores is None or numbers <= caller.stores


def forget_store(connection: Connection, store_id: int) -> None:
    """Take out whatever stands on a store."""
    for table in (*DOCUMENTS, schema.evaluations):
        connection.execute(sa.delete(table).where(table.c.stores.like(f"%,{store_id},%")))


def forget_document(connection: Connection, document_id: int) -> None:
    """Take out whatever repeats words of a document."""
    for table, links in DOCUMENTS.items():
        used = sa.select(links.c.answer_id).where(links.c.document_id == document_id)
        connection.execute(sa.delete(table).where(table.c.id.in_(used)))


def prune(connection: Connection, table: sa.Table, before: int, most: int, only: Sequence[Any] = ()) -> None:
    """Take out rows made before a second since 1970 and the oldest beyond `most`, of those that meet all of `only`."""
    newest = sa.select(table.c.id).order_by(table.c.id.desc()).offset(most).limit(1).scalar_subquery()
    old = sa.or_(table.c.created_at < before, table.c.id <= newest)
    connection.execute(sa.delete(table).where(old, *only))


def _first(
    connection: Connection, table: sa.Table, caller: Caller, condition: sa.ColumnElement[bool]
) -> Row[Any] | None:
    row = connection.execute(sa.select(table).where(condition, seen_by(connection, table, caller))).first()
    return row if row is not None and may_use(caller, row.stores) else None


def _permissions(caller: Caller) -> str | None:
    return None if caller.permissions is None else json.dumps(sorted(caller.permissions))
