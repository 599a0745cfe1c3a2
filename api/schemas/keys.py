"""The shapes of API keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import Identifier, Name, NotNull, RequestModel, ResponseModel, Tags
from rag.access import Scope
from rag.catalog.keys import Key

Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3)]
Stores = Annotated[list[Identifier], Field(max_length=500)]
Moment = Annotated[int, Field(ge=1, lt=1 << 40)]
Number = Annotated[int, Field(ge=1, le=1_000_000_000)]
_QUERY: list[Scope] = ["query"]


class LimitsObject(RequestModel):
    """What a key may ask of each server process; null is no limit. `tokens_per_request` counts prompt and answer."""

    requests_per_minute: Number | None = None
    concurrent_requests: Number | None = None
    tokens_per_request: Number | None = None


class CreateKey(RequestModel):
    """A key to make. Without `vector_store_ids` it is good for every store of its tenant, also for later ones; it sees
    documents that carry no permission tag or one of its `permissions`. `expires_at` is in seconds since 1970. Only the
    operator names another `tenant` than the own one."""

    name: Name
    scopes: Scopes = Field(default_factory=lambda: _QUERY.copy())
    tenant: Tenant | None = None
    vector_store_ids: Stores | None = None
    permissions: Tags = Field(default_factory=list)
    may_delegate: bool = False
    expires_at: Moment | None = None
    limits: LimitsObject = LimitsObject()


class UpdateKey(RequestModel):
    """What is not named stays; null takes a list of stores, an end or the limits away."""

    name: NotNull[Name] = None
    scopes: NotNull[Scopes] = None
    vector_store_ids: Stores | None = None
    permissions: NotNull[Tags] = None
    may_delegate: NotNull[bool] = None
    expires_at: Moment | None = None
    limits: LimitsObject | None = None


class KeyObject(ResponseModel):
    """A key, known by the first characters of its secret. `last_used_at` is right to a minute."""

    id: str
    object: Literal["key"] = "key"
    name: str
    tenant: str
    prefix: str
    scopes: list[Scope]
    vector_store_ids: list[str] | None
    permissions: list[str]
    may_delegate: bool
    limits: LimitsObject
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


class NewKeyObject(KeyObject):
    """A key that was just made, with its secret: it is told this once."""

    secret: str


class DeletedKey(ResponseModel):
    """A key that opens nothing any more."""

    id: str
    object: Literal["key.deleted"] = "key.deleted"
    deleted: Literal[True] = True


def key_fields(key: Key, store_ids: list[str] | None) -> dict[str, object]:
    """What `KeyObject` says of a key that is good for these stores."""
    told = ("name", "tenant", "prefix", "may_delegate", "created_at", "expires_at", "revoked_at", "last_used_at")
    return {
        "id": key.public_id,
        "scopes": list(key.scopes),
        "vector_store_ids": store_ids,
        "permissions": list(key.permissions),
        "limits": LimitsObject.model_validate(key.limits, from_attributes=True),
        **{name: getattr(key, name) for name in told},
    }
