"""What was answered, and to whom: who may see it again, and how long it is kept.

An answer repeats documents. So a stored response or a trace is there for the key that asked, with the permissions that
it asked with, as long as it may use every store that was searched; and for the operator, who sees all of the tenant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from rag.access import Caller
from rag.catalog import schema

TABLES = (schema.responses, schema.traces)


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


def find(connection: Connection, table: sa.Table, caller: Caller, public_id: str) -> Row[Any] | None:
    """A row by its public id, None when it is not there for this caller."""
    return _first(connection, table, caller, table.c.public_id == public_id)


def find_by_id(connection: Connection, table: sa.Table, caller: Caller, number: int) -> Row[Any] | None:
    """A row by its number, None when it is not there for this caller."""
    return _first(connection, table, caller, table.c.id == number)


def seen_by(table: sa.Table, caller: Caller) -> sa.ColumnElement[bool]:
    """Which rows were answered to this caller, whatever stores they stand on: see `may_use`."""
    conditions = [table.c.tenant == caller.tenant]
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
    for table in (*TABLES, schema.evaluations):
        connection.execute(sa.delete(table).where(table.c.stores.like(f"%,{store_id},%")))


def prune(connection: Connection, table: sa.Table, before: int, most: int, only: Sequence[Any] = ()) -> None:
    """Take out rows made before a second since 1970 and the oldest beyond `most`, of those that meet all of `only`."""
    newest = sa.select(table.c.id).order_by(table.c.id.desc()).offset(most).limit(1).scalar_subquery()
    old = sa.or_(table.c.created_at < before, table.c.id <= newest)
    connection.execute(sa.delete(table).where(old, *only))


def _first(
    connection: Connection, table: sa.Table, caller: Caller, condition: sa.ColumnElement[bool]
) -> Row[Any] | None:
    row = connection.execute(sa.select(table).where(condition, seen_by(table, caller))).first()
    return row if row is not None and may_use(caller, row.stores) else None


def _permissions(caller: Caller) -> str | None:
    return None if caller.permissions is None else json.dumps(sorted(caller.permissions))
