"""Uploaded originals."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.access import Caller
from rag.blobs import StoredBlob
from rag.catalog import schema, seen
from rag.catalog.paging import page_rows
from rag.catalog.records import File, Page, PageRequest

# Made once: putting it together costs more than running it.
_INSERT = sa.insert(schema.files)


def add_file(
    connection: Connection,
    caller: Caller,
    filename: str,
    purpose: str,
    blob: StoredBlob,
    expires_after: int | None = None,
) -> File:
    """Record an original whose bytes are in the blob store. It expires after so many seconds."""
    now = int(time.time())
    values = {
        "public_id": f"file-{secrets.token_hex(12)}",
        "tenant": caller.tenant,
        "filename": filename,
        "purpose": purpose,
        "bytes": blob.size,
        "blob": blob.key,
        "owned": False,
        "uploader": caller.name,
        "created_at": now,
        "expires_at": None if expires_after is None else now + expires_after,
    }
    made = connection.execute(_INSERT, values).inserted_primary_key
    assert made is not None
    return File(id=made[0], **values)  # type: ignore[arg-type]


def get_file(connection: Connection, caller: Caller, public_id: str) -> File:
    """A file by its public id. Raises NotThere, also for one that the caller may not see and for one that has
    expired."""
    query = _by_public_id() if caller.sees_all else _by_public_id().where(seen.files(connection, caller))
    values = {"tenant": caller.tenant, "public_id": public_id, "now": int(time.time())}
    row = connection.execute(query, values).first()
    if row is None:
        raise NotThere(f"There is no file {public_id!r}.", code="file_not_found", param="file_id")
    return _file(row)


def list_files(connection: Connection, caller: Caller, page: PageRequest, purpose: str | None = None) -> Page[File]:
    """The files that a caller may see, one page of them."""
    query = sa.select(schema.files).where(seen.files(connection, caller), ~_expired())
    if purpose is not None:
        query = query.where(schema.files.c.purpose == purpose)
    rows, more = page_rows(connection, query, schema.files.c.id, schema.files.c.public_id, page)
    return Page([_file(row) for row in rows], more)


def drop_file(connection: Connection, file: File) -> bool:
    """Forget a file's row. True when no other file has the same bytes, so that they may go too."""
    connection.execute(sa.delete(schema.files).where(schema.files.c.id == file.id))
    query = sa.select(sa.func.count()).where(schema.files.c.blob == file.blob)
    return connection.execute(query).scalar_one() == 0


def own_file(connection: Connection, file_id: int) -> None:
    """Let a file go with the last document that stands on it."""
    connection.execute(sa.update(schema.files).where(schema.files.c.id == file_id).values(owned=True))


def orphans(connection: Connection, most: int = 256) -> list[File]:
    """Owned files that no document and no unpurged version stands on."""
    documents, versions, files = schema.documents.c, schema.versions.c, schema.files.c
    query = sa.select(schema.files).where(
        files.owned == sa.true(),
        ~sa.select(documents.id).where(documents.file_id == files.id).exists(),
        ~sa.select(versions.id).where(versions.file_id == files.id, versions.purged == sa.false()).exists(),
    )
    return [_file(row) for row in connection.execute(query.limit(most))]


def expired_files(connection: Connection, most: int = 256) -> list[File]:
    """Files of every tenant whose time has come."""
    return [_file(row) for row in connection.execute(sa.select(schema.files).where(_expired()).limit(most))]


def unknown_blobs(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Which of these blobs are no file's bytes."""
    query = sa.select(schema.files.c.blob).where(schema.files.c.blob.in_(keys))
    return sorted(set(keys) - set(connection.execute(query).scalars()))


@cache
def _by_public_id() -> sa.Select[Any]:
    # Built once, as a batch of files asks thousands of times.
    files = schema.files.c
    mine = files.tenant == sa.bindparam("tenant"), files.public_id == sa.bindparam("public_id")
    return sa.select(schema.files).where(*mine, ~_expired(sa.bindparam("now")))


def _expired(now: sa.ColumnElement[int] | int | None = None) -> sa.ColumnElement[bool]:
    expires = schema.files.c.expires_at
    return sa.and_(expires.is_not(None), expires <= (int(time.time()) if now is None else now))


def _file(row: Row[Any]) -> File:
    return File(**row._mapping)
