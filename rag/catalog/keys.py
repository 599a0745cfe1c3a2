"""API keys as the catalog keeps them: by the hash of a secret that is nowhere."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import NotThere
from rag.access import Limits, Scope
from rag.catalog import schema
from rag.catalog.paging import page_rows
from rag.catalog.records import Page, PageRequest

_keys = schema.keys.c


@dataclass(frozen=True)
class Key:
    """A key without its secret. Times are seconds since 1970."""

    id: int
    public_id: str
    tenant: str
    name: str
    prefix: str
    hash: bytes
    scopes: Sequence[Scope]
    stores: Sequence[int] | None
    permissions: Sequence[str]
    may_delegate: bool
    limits: Limits
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


def add_key(connection: Connection, tenant: str, prefix: str, hash: bytes, values: Mapping[str, Any]) -> Key:
    """Record a key; `values` are the other columns that `Key` names, as far as whoever makes a key chooses them."""
    row = {
        **_as_columns(values),
        "public_id": f"key_{secrets.token_hex(12)}",
        "tenant": tenant,
        "prefix": prefix,
        "hash": hash,
        "created_at": int(time.time()),
    }
    connection.execute(sa.insert(schema.keys).values(row))
    return get_key(connection, tenant, row["public_id"])


def get_key(connection: Connection, tenant: str | None, public_id: str) -> Key:
    """A key by its public id, of a tenant or of any. Raises NotThere, also for another tenant's."""
    query = sa.select(schema.keys).where(_keys.public_id == public_id, _of(tenant))
    row = connection.execute(query).first()
    if row is None:
        raise NotThere(f"There is no key {public_id!r}.", code="key_not_found", param="key_id")
    return _key(row)


def key_by_hash(connection: Connection, hash: bytes) -> Key | None:
    """The key whose secret has this hash, revoked or not; None when there is none."""
    row = connection.execute(sa.select(schema.keys).where(_keys.hash == hash)).first()
    return None if row is None else _key(row)


def list_keys(connection: Connection, tenant: str | None, page: PageRequest) -> Page[Key]:
    """A tenant's keys, or everybody's, one page of them."""
    query = sa.select(schema.keys).where(_of(tenant))
    rows, more = page_rows(connection, query, _keys.id, _keys.public_id, page)
    return Page([_key(row) for row in rows], more)


def update_key(connection: Connection, key: Key, changes: Mapping[str, Any]) -> Key:
    """Change columns of a key."""
    if changes:
        connection.execute(sa.update(schema.keys).where(_keys.id == key.id).values(_as_columns(changes)))
    return get_key(connection, key.tenant, key.public_id)


def revoke(connection: Connection, key: Key) -> None:
    """Let a key be good for nothing from now on. The first time counts."""
    mine = sa.update(schema.keys).where(_keys.id == key.id, _keys.revoked_at.is_(None))
    connection.execute(mine.values(revoked_at=int(time.time())))


def note_use(connection: Connection, key_id: int, at: int) -> None:
    """Remember when a key was used last."""
    connection.execute(sa.update(schema.keys).where(_keys.id == key_id).values(last_used_at=at))


def _of(tenant: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if tenant is None else _keys.tenant == tenant


def _as_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) if isinstance(value, Limits) else value for name, value in values.items()}


def _key(row: Row[Any]) -> Key:
    return Key(**{**row._mapping, "limits": Limits(**row.limits)})
