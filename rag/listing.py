"""What the catalog tells a caller, and the small changes that need no ingestion.

Thin: each function is one transaction. Everything that becomes work is in `ingest.intake`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest
from rag.backend import Backend
from rag.catalog import batches, chunks, documents, files, folders, stores
from rag.catalog.chunks import Version
from rag.catalog.records import Counts, Document, File, Folder, Generation, Page, PageRequest, State, Store


@dataclass(frozen=True)
class StoreSummary:
    """A store with what is in it. `usage_bytes` counts the originals of completed documents."""

    store: Store
    counts: Counts
    usage_bytes: int
    generation: Generation


@dataclass(frozen=True)
class Workload:
    """Documents that still want work and batches at work, over all stores."""

    waiting_documents: int
    open_batches: int


def list_files(backend: Backend, page: PageRequest, purpose: str | None = None) -> Page[File]:
    """Uploaded files, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return files.list_files(connection, backend.caller.tenant, page, purpose)


def get_file(backend: Backend, file_id: str) -> File:
    """A file by its public id. Raises NotThere."""
    with backend.database.read() as connection:
        return files.get_file(connection, backend.caller.tenant, file_id)


def original(backend: Backend, file: File) -> Iterator[bytes]:
    """The bytes of a file, in pieces. Raises NotThere at once when it was deleted meanwhile."""
    return backend.blobs.pieces(file.blob)


def list_stores(backend: Backend, page: PageRequest) -> Page[StoreSummary]:
    """Vector stores, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        found = stores.list_stores(connection, backend.caller.tenant, page)
        return Page(_summaries(connection, found.rows), found.has_more)


def summarise_store(backend: Backend, store: Store) -> StoreSummary:
    """A store as it is now. Raises NotThere when it was deleted meanwhile."""
    with backend.database.read() as connection:
        now = stores.get_store(connection, store.tenant, store.public_id)
        return _summaries(connection, [now])[0]


def only_store(backend: Backend) -> Store:
    """The only store there is. Raises ChangeRequest (`vector_store_required`) when there is none, or several."""
    with backend.database.read() as connection:
        found = stores.list_stores(connection, backend.caller.tenant, PageRequest(limit=5)).rows
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{store.name or '(unnamed)'} ({store.public_id})" for store in found)
    what = f"There are several, among them {known}: name those to use." if found else "There is none: create one first."
    raise ChangeRequest(
        f"The request names no vector store. {what}", code="vector_store_required", param="vector_store_ids"
    )


def list_documents(
    backend: Backend, store: Store, page: PageRequest, states: Sequence[State] | None = None
) -> Page[Document]:
    """The documents of a store, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return documents.list_documents(connection, store, page, states)


def get_document(backend: Backend, store: Store, file_id: str) -> Document:
    """The document of a store that stands on this file. Raises NotThere."""
    with backend.database.read() as connection:
        return documents.get_document(connection, store, file_id)


def published_version(backend: Backend, document: Document) -> Version | None:
    """The version of a document that answers now out of its file, None when there is none yet."""
    with backend.database.read() as connection:
        return chunks.published_version(connection, document)


def list_folders(backend: Backend, store: Store) -> list[Folder]:
    """The folders that were synced into a store."""
    with backend.database.read() as connection:
        return folders.list_folders(connection, store)


def workload(backend: Backend) -> Workload:
    """How much ingestion is still to be done."""
    with backend.database.read() as connection:
        return Workload(documents.count_waiting(connection), batches.count_open(connection))


def _summaries(connection: Connection, found: Sequence[Store]) -> list[StoreSummary]:
    ids = [store.id for store in found]
    counts, usage = stores.count_documents(connection, ids), stores.usage_bytes(connection, ids)
    return [
        StoreSummary(store, counts[store.id], usage[store.id], stores.live_generation(connection, store.id))
        for store in found
    ]
