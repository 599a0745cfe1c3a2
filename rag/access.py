"""Who asks, and what they may do and see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["query", "ingest", "admin"]
"""`query` asks and reads, `ingest` makes stores, puts documents in and takes them out, `admin` also manages keys and
deletes stores, and sees every document."""

SCOPES: frozenset[Scope] = frozenset(get_args(Scope))

UNTAGGED = ""
"""The tag that stands, in the indexes only, for a document without any: every caller holds it. No tag of a document or
of a key is empty."""


@dataclass(frozen=True)
class Limits:
    """How much one key may ask of one process; None is no limit."""

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_request: int | None = None
    """Of prompt and answer together."""


@dataclass(frozen=True)
class Caller:
    """One caller of an installation. Every limit is closed: what is not granted here is not there for them."""

    tenant: str
    """The wall: nothing of another tenant exists for them."""
    scopes: frozenset[Scope] = SCOPES
    stores: frozenset[int] | None = None
    """Numbers of the stores that they may use; None means all of the tenant, also later ones."""
    permissions: frozenset[str] | None = None
    """The tags that they hold: a document without tags is there for everybody, one that carries some for who holds one
    of them. None, for administrators, sees all."""
    key_id: str | None = None
    """The public id of the key that they came with; None for the operator."""
    user: str | None = None
    """On whose behalf the key was used, where a signed claim says so (its `sub`)."""
    limits: Limits = Limits()

    @property
    def sees_all(self) -> bool:
        """Whether nothing of the tenant is hidden from them."""
        return self.stores is None and self.permissions is None

    @property
    def tags(self) -> frozenset[str] | None:
        """What a search is held to (see `indexes.filters.AnyTag`); None for everything."""
        return None if self.permissions is None else self.permissions | {UNTAGGED}

    @property
    def name(self) -> str:
        """What an upload is remembered by, so that it is theirs until it lies in a store."""
        return f"{self.key_id or ''}/{self.user or ''}"
