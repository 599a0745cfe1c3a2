"""Cursors over tables whose rows have an ascending `id` and a public id."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest
from rag.catalog.records import PageRequest


def page_rows(
    connection: Connection,
    query: sa.Select[Any],
    id_column: sa.Column[int],
    public_id: sa.Column[str],
    page: PageRequest,
) -> tuple[list[Row[Any]], bool]:
    """The rows of one page and whether more follow. Raises ChangeRequest for a cursor that names nothing here."""
    ascending = page.order == "asc"
    # `before` walks the other way from its cursor, and the rows are turned round at the end.
    backwards = page.before is not None and page.after is None
    for cursor, beyond in ((page.after, ascending), (page.before, not ascending)):
        if cursor is not None:
            at = _resolve(connection, query, id_column, public_id, cursor)
            query = query.where(id_column > at if beyond else id_column < at)
    upwards = ascending != backwards
    query = query.order_by(id_column.asc() if upwards else id_column.desc()).limit(page.limit + 1)
    rows = list(connection.execute(query))
    has_more = len(rows) > page.limit
    rows = rows[: page.limit]
    return (rows[::-1] if backwards else rows), has_more


def _resolve(
    connection: Connection, query: sa.Select[Any], id_column: sa.Column[int], public_id: sa.Column[str], cursor: str
) -> int:
    found = connection.execute(query.with_only_columns(id_column).where(public_id == cursor)).scalar()
    if found is None:
        raise ChangeRequest(f"The cursor {cursor!r} names nothing in this list.", code="bad_cursor", param="after")
    return int(found)
