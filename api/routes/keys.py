"""API keys, for administrators: of the own tenant, for the operator of all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import ListOf, list_of, paging
from api.schemas.keys import CreateKey, DeletedKey, KeyObject, NewKeyObject, UpdateKey, key_fields
from rag import keys
from rag.access import Limits
from rag.backend import Backend
from rag.catalog.keys import Key
from rag.catalog.records import PageRequest

router = new_router(tags=["keys"])


@router.post("/v1/keys", dependencies=[requires("admin")])
def create_key(body: CreateKey, backend: OpenBackend) -> NewKeyObject:
    """Make a key. Its secret is in this answer and nowhere else."""
    key, secret = keys.create_key(backend, body.tenant, _values(body.model_dump(exclude={"tenant"})))
    return NewKeyObject.model_validate({**key_fields(key, keys.store_ids(backend, key)), "secret": secret})


@router.get("/v1/keys", dependencies=[requires("admin")])
def list_keys(backend: OpenBackend, page: Annotated[PageRequest, Depends(paging)]) -> ListOf[KeyObject]:
    """Keys, newest first, revoked ones too."""
    found = keys.list_keys(backend, page)
    return list_of(found, [key.public_id for key in found.rows], [_key_object(backend, key) for key in found.rows])


@router.get("/v1/keys/{key_id}", dependencies=[requires("admin")])
def get_key(key_id: str, backend: OpenBackend) -> KeyObject:
    """One key."""
    return _key_object(backend, keys.get_key(backend, key_id))


@router.post("/v1/keys/{key_id}", dependencies=[requires("admin")])
def update_key(key_id: str, body: UpdateKey, backend: OpenBackend) -> KeyObject:
    """Change what the request names. It holds at once in this process, within a second in others."""
    return _key_object(backend, keys.update_key(backend, key_id, _values(body.model_dump(exclude_unset=True))))


@router.delete("/v1/keys/{key_id}", dependencies=[requires("admin")])
def revoke_key(key_id: str, backend: OpenBackend) -> DeletedKey:
    """Let a key be good for nothing: at once in this process, within a second in others. It stays in the list."""
    return DeletedKey(id=keys.revoke_key(backend, key_id).public_id)


def _values(body: dict[str, Any]) -> dict[str, Any]:
    """A body in the catalog's words."""
    values = {"stores" if name == "vector_store_ids" else name: value for name, value in body.items()}
    if "limits" in values:
        values["limits"] = Limits(**(values["limits"] or {}))
    return values


def _key_object(backend: Backend, key: Key) -> KeyObject:
    return KeyObject.model_validate(key_fields(key, keys.store_ids(backend, key)))
