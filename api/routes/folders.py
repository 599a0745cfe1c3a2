"""The folders that were synced into a vector store, so that another one of the same name is noticed."""

from __future__ import annotations

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.vector_stores import FolderList, FolderObject, PutFolder
from ingest import intake
from rag import listing
from rag.catalog.records import Folder

router = new_router(tags=["vector store folders"])


@router.get("/v1/vector_stores/{vector_store_id}/folders", dependencies=[requires("ingest")])
def list_folders(store: NamedStore, backend: OpenBackend) -> FolderList:
    """Where the documents below each prefix came from."""
    found = listing.list_folders(backend, store)
    return FolderList(data=[FolderObject.model_validate(folder) for folder in found])


@router.put("/v1/vector_stores/{vector_store_id}/folders", dependencies=[requires("ingest")])
def put_folder(body: PutFolder, store: NamedStore, backend: OpenBackend) -> FolderObject:
    """Remember where the documents below a prefix come from; another folder is replaced only with `replace`."""
    folder = Folder(body.prefix, body.host, body.path)
    intake.remember_folder(backend, store, folder, replace=body.replace)
    return FolderObject.model_validate(folder)
