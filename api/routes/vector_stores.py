"""Vector stores."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.common import ListOf, list_of, paging
from api.schemas.vector_stores import (
    CreateVectorStore,
    DeletedStore,
    UpdateVectorStore,
    VectorStoreObject,
    store_object,
)
from indexes.errors import ChangeRequest
from ingest import intake
from ingest.intake import NewDocument
from rag import listing
from rag.catalog.records import PageRequest

router = new_router(tags=["vector stores"])


@router.post("/v1/vector_stores", dependencies=[requires("ingest")])
def create_vector_store(body: CreateVectorStore, backend: OpenBackend) -> VectorStoreObject:
    """Make a store, and put files into it where the request names some."""
    if not body.only_if_absent:
        _refuse_id(body.name)
    files = listing.get_files(backend, list(dict.fromkeys(body.file_ids or [])))
    store = intake.create_store(
        backend,
        body.name or "",
        description=body.description,
        metadata=body.metadata,
        chunking=body.chunking_strategy.model_dump() if body.chunking_strategy else None,
        embedder=body.embedder,
        expires_after_days=body.expires_after.days if body.expires_after else None,
        only_if_absent=body.only_if_absent,
    )
    if files:
        intake.attach(backend, store, [NewDocument(file) for file in files])
    return store_object(listing.summarise_store(backend, store))


@router.get("/v1/vector_stores", dependencies=[requires("query", "ingest")])
def list_vector_stores(
    backend: OpenBackend, page: Annotated[PageRequest, Depends(paging)]
) -> ListOf[VectorStoreObject]:
    """Vector stores, newest first."""
    found = listing.list_stores(backend, page)
    return list_of(found, [row.store.public_id for row in found.rows], [store_object(row) for row in found.rows])


@router.get("/v1/vector_stores/{vector_store_id}", dependencies=[requires("query", "ingest")])
def get_vector_store(store: NamedStore, backend: OpenBackend) -> VectorStoreObject:
    """One store."""
    return store_object(listing.summarise_store(backend, store))


@router.post("/v1/vector_stores/{vector_store_id}", dependencies=[requires("ingest")])
def update_vector_store(body: UpdateVectorStore, store: NamedStore, backend: OpenBackend) -> VectorStoreObject:
    """Change what the request names."""
    _refuse_id(body.name)
    changed = intake.update_store(backend, store, body.changes())
    return store_object(listing.summarise_store(backend, changed))


@router.delete("/v1/vector_stores/{vector_store_id}", dependencies=[requires("admin")])
def delete_vector_store(store: NamedStore, backend: OpenBackend) -> DeletedStore:
    """Forget a store. Its files stay, except those that came with a document."""
    intake.delete_store(backend, store)
    return DeletedStore(id=store.public_id)


def _refuse_id(name: str | None) -> None:
    if intake.STORE_ID.fullmatch(name or ""):
        raise ChangeRequest(f"The name {name!r} looks like an id. Choose another.", code="invalid_value", param="name")
