"""What a caller may see, as conditions of a query: the one place where tags and grants become SQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.access import Caller
from rag.catalog import schema

_documents, _files, _versions = schema.documents.c, schema.files.c, schema.versions.c


def may_see(caller: Caller, tags: Iterable[str]) -> bool:
    """Whether a document with these tags is there for a caller."""
    tags = frozenset(tags)
    return caller.permissions is None or not tags or bool(tags & caller.permissions)


def answering_documents(connection: Connection, caller: Caller) -> sa.ColumnElement[bool]:
    """Of documents, those whose version that answers the caller may see."""
    return _carries(connection, _documents.permissions, caller)


def newest_documents(connection: Connection, caller: Caller) -> sa.ColumnElement[bool]:
    """Of documents, those that the caller may see by what answers and by what is to take its place."""
    coming = sa.or_(_documents.next_permissions.is_(None), _carries(connection, _documents.next_permissions, caller))
    return sa.and_(answering_documents(connection, caller), coming)


def granted_stores(column: sa.ColumnElement[int], caller: Caller) -> sa.ColumnElement[bool]:
    """Of numbers of stores, those that the caller may use. Their tenant is for the query to ask."""
    return sa.true() if caller.stores is None else column.in_(caller.stores)


def files(connection: Connection, caller: Caller) -> sa.ColumnElement[bool]:
    """Of files, the tenant's that the caller may see: through a document, or as their own upload while no document of
    anybody stands on it."""
    mine = _files.tenant == caller.tenant
    if caller.sees_all:
        return mine
    granted = granted_stores(_documents.store_id, caller)
    newest = _newest().where(granted, newest_documents(connection, caller)).exists()
    answering = _answering().where(granted, answering_documents(connection, caller)).exists()
    loose = ~sa.or_(_newest().exists(), _answering().exists())
    return sa.and_(mine, sa.or_(newest, answering, sa.and_(loose, _files.uploader == caller.name)))


def _newest() -> sa.Select[Any]:
    return sa.select(_documents.id).where(_documents.file_id == _files.id).correlate(schema.files)


def _answering() -> sa.Select[Any]:
    query = sa.select(_versions.id).join(schema.documents, _documents.id == _versions.document_id)
    return query.where(_versions.file_id == _files.id, schema.ANSWERS).correlate(schema.files)


def _carries(connection: Connection, column: sa.Column[Any], caller: Caller) -> sa.ColumnElement[bool]:
    """Whether a list of tags is empty or holds one of the caller's."""
    if caller.permissions is None:
        return sa.true()
    postgresql = connection.dialect.name == "postgresql"
    each = (sa.func.json_array_elements_text if postgresql else sa.func.json_each)(column).table_valued(
        "value", joins_implicitly=True
    )
    held = sa.select(each.c.value).where(each.c.value.in_(sorted(caller.permissions))).exists()
    return sa.or_(sa.func.json_array_length(column) == 0, held)
