"""Who asks, and what they may do and see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["query", "ingest", "admin"]
"""`query` asks and reads, `ingest` puts documents in and takes them out, `admin` manages stores and keys."""

SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Caller:
    """One caller of an installation. Every limit is closed: what is not granted here is not there for them."""

    tenant: str
    """The wall: nothing of another tenant exists for them."""
    scopes: frozenset[Scope] = SCOPES
    stores: frozenset[int] | None = None
    """Numbers of the stores that they may use; None means all of the tenant, also later ones."""
    permissions: frozenset[str] | None = None
    """The tags that they hold: a document that carries tags is there for who holds one of them. None sees all."""
    key_id: str | None = None
    """The public id of the key that they came with; None for the operator."""
