"""File batches: many files put into a vector store at once, asked after and cancelled together."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.common import ListOf, NotNull, list_of, paging
from api.schemas.vector_stores import (
    STATES,
    CreateFileBatch,
    FileBatchObject,
    Status,
    StoreFileObject,
    file_batch_object,
    store_file_object,
)
from indexes.errors import ChangeRequest
from ingest import intake
from rag import listing
from rag.backend import Backend
from rag.catalog.records import FileBatch, PageRequest, Store

router = new_router(tags=["vector store file batches"])


@router.post("/v1/vector_stores/{vector_store_id}/file_batches", dependencies=[requires("ingest")])
def create_file_batch(body: CreateFileBatch, store: NamedStore, backend: OpenBackend) -> FileBatchObject:
    """Put files into the store, all or none. They are ingested in the background: watch the batch's `file_counts`."""
    wanted = body.each()
    files = listing.get_files(backend, [file.file_id for file in wanted])
    new = [said.to_new(file) for said, file in zip(wanted, files, strict=True)]
    return _object(backend, store, intake.attach_batch(backend, store, new))


@router.get("/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}", dependencies=[requires("query", "ingest")])
def get_file_batch(batch_id: str, store: NamedStore, backend: OpenBackend) -> FileBatchObject:
    """Where the files of a batch stand. One that is taken out of the store is no longer counted."""
    return _object(backend, store, listing.get_file_batch(backend, store, batch_id))


@router.post("/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", dependencies=[requires("ingest")])
def cancel_file_batch(batch_id: str, store: NamedStore, backend: OpenBackend) -> FileBatchObject:
    """Stop work on the files of a batch. What is complete stays."""
    batch = listing.get_file_batch(backend, store, batch_id)
    cancelled = intake.cancel_batch(backend, store, batch)
    if cancelled is None and not batch.cancelled:
        raise ChangeRequest(
            f"Nothing of the file batch {batch_id} is in progress: there is no work on it to stop.",
            code="nothing_to_cancel",
            param="batch_id",
        )
    return _object(backend, store, cancelled or batch)


@router.get(
    "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/files", dependencies=[requires("query", "ingest")]
)
def list_batch_files(
    batch_id: str,
    store: NamedStore,
    backend: OpenBackend,
    page: Annotated[PageRequest, Depends(paging)],
    status: Annotated[NotNull[Status], Query(alias="filter")] = None,
) -> ListOf[StoreFileObject]:
    """The files of a batch, newest first."""
    batch = listing.get_file_batch(backend, store, batch_id)
    found = listing.list_file_batch(backend, store, batch, page, None if status is None else STATES[status])
    ids = [document.file_public_id for document in found.rows]
    return list_of(found, ids, [store_file_object(backend.caller, store, document) for document in found.rows])


def _object(backend: Backend, store: Store, batch: FileBatch) -> FileBatchObject:
    return file_batch_object(store, batch, listing.count_file_batch(backend, batch))
