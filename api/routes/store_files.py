"""The files of a vector store, and where their ingestion stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.common import ListOf, NotNull, list_of, paging
from api.schemas.vector_stores import (
    STATES,
    CreateStoreFile,
    DeletedStoreFile,
    FileContentPage,
    FileText,
    Status,
    StoreFileObject,
    UpdateStoreFile,
    store_file_object,
)
from indexes.errors import ChangeRequest, NotThere
from ingest import intake
from rag import listing
from rag.catalog.records import PageRequest

router = new_router(tags=["vector store files"])


@router.post("/v1/vector_stores/{vector_store_id}/files", dependencies=[requires("ingest")])
def add_file(body: CreateStoreFile, store: NamedStore, backend: OpenBackend) -> StoreFileObject:
    """Put a file into the store. It is ingested in the background: watch its `status`."""
    new = body.to_new(listing.get_file(backend, body.file_id))
    return store_file_object(backend.caller, store, intake.attach(backend, store, [new])[0])


@router.get("/v1/vector_stores/{vector_store_id}/files", dependencies=[requires("query", "ingest")])
def list_store_files(
    store: NamedStore,
    backend: OpenBackend,
    page: Annotated[PageRequest, Depends(paging)],
    status: Annotated[NotNull[Status], Query(alias="filter")] = None,
) -> ListOf[StoreFileObject]:
    """The files of the store, newest first."""
    found = listing.list_documents(backend, store, page, None if status is None else STATES[status])
    ids = [document.file_public_id for document in found.rows]
    return list_of(found, ids, [store_file_object(backend.caller, store, document) for document in found.rows])


@router.get("/v1/vector_stores/{vector_store_id}/files/{file_id}", dependencies=[requires("query", "ingest")])
def get_store_file(file_id: str, store: NamedStore, backend: OpenBackend) -> StoreFileObject:
    """One file of the store. While a file is being replaced both are there: the one that still answers, completed, and
    the one that is to take its place."""
    return store_file_object(backend.caller, store, listing.get_document(backend, store, file_id))


@router.post("/v1/vector_stores/{vector_store_id}/files/{file_id}", dependencies=[requires("ingest")])
def update_store_file(file_id: str, body: UpdateStoreFile, store: NamedStore, backend: OpenBackend) -> StoreFileObject:
    """Replace the attributes of a file, or its permission tags; the next search goes by the new ones."""
    given = body.model_fields_set
    attributes = (body.attributes or {}) if "attributes" in given else None
    permissions = (body.permissions or []) if "permissions" in given else None
    document = intake.set_attributes(backend, store, file_id, attributes, permissions)
    return store_file_object(backend.caller, store, document)


@router.delete("/v1/vector_stores/{vector_store_id}/files/{file_id}", dependencies=[requires("ingest")])
def delete_store_file(file_id: str, store: NamedStore, backend: OpenBackend) -> DeletedStoreFile:
    """Take a file out of the store, in whatever state it is, with what it was to replace. The upload stays, unless it
    is owned."""
    document = listing.get_document(backend, store, file_id)
    intake.delete_documents(backend, [document])
    return DeletedStoreFile(id=document.file_public_id)


@router.get("/v1/vector_stores/{vector_store_id}/files/{file_id}/content", dependencies=[requires("query")])
def get_store_file_content(file_id: str, store: NamedStore, backend: OpenBackend) -> FileContentPage:
    """The text that was read from the file, the one that citations point into."""
    document = listing.get_document(backend, store, file_id)
    text = intake.current_text(backend, document)
    if text is None:
        raise NotThere(
            f"The file {file_id} has no text: it is {document.state}.", code="content_not_available", param="file_id"
        )
    return FileContentPage(data=[FileText(type="text", text=text)], next_page=None)


@router.post("/v1/vector_stores/{vector_store_id}/files/{file_id}/retry", dependencies=[requires("ingest")])
def retry_store_file(file_id: str, store: NamedStore, backend: OpenBackend) -> StoreFileObject:
    """Queue a failed or cancelled file again."""
    document = listing.get_document(backend, store, file_id)
    if not intake.retry(backend, document):
        raise ChangeRequest(
            f"The file {file_id} is {document.state}: only what failed or was cancelled is tried again.",
            code="nothing_to_retry",
            param="file_id",
        )
    return store_file_object(backend.caller, store, listing.get_document(backend, store, file_id))


@router.post("/v1/vector_stores/{vector_store_id}/files/{file_id}/cancel", dependencies=[requires("ingest")])
def cancel_store_file(file_id: str, store: NamedStore, backend: OpenBackend) -> StoreFileObject:
    """Stop work on a file. An earlier version of it goes on answering."""
    document = listing.get_document(backend, store, file_id)
    if not intake.cancel(backend, document):
        raise ChangeRequest(
            f"The file {file_id} is {document.state}: there is no work on it to stop.",
            code="nothing_to_cancel",
            param="file_id",
        )
    return store_file_object(backend.caller, store, listing.get_document(backend, store, file_id))
