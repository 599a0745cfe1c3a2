"""What the catalog tells a caller, and the small changes that need no ingestion.

Thin: each function is one transaction. Everything that becomes work is in `ingest.intake`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest
from rag.access import Caller
from rag.ask import Prepared
from rag.backend import Backend
from rag.catalog import batches, chunks, documents, file_batches, files, folders, generations, responses, stores
from rag.catalog.chunks import Version
from rag.catalog.records import (
    Counts,
    Document,
    File,
    FileBatch,
    Folder,
    Generation,
    Page,
    PageRequest,
    State,
    Store,
)
from rag.catalog.responses import Kind, StoredResponse
from rag.keys import is_operator


@dataclass(frozen=True)
class StoreSummary:
    """A store with what is in it. `usage_bytes` counts the originals of completed documents."""

    store: Store
    counts: Counts
    usage_bytes: int
    generation: Generation


@dataclass(frozen=True)
class Workload:
    """Documents that still want work and batches at work, over all stores: of the tenant, for the operator of all."""

    waiting_documents: int
    open_batches: int


def list_files(backend: Backend, page: PageRequest, purpose: str | None = None) -> Page[File]:
    """Uploaded files, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return files.list_files(connection, backend.caller, page, purpose)


def get_file(backend: Backend, file_id: str) -> File:
    """A file by its public id. Raises NotThere."""
    with backend.database.read() as connection:
        return files.get_file(connection, backend.caller, file_id)


def get_files(backend: Backend, file_ids: Sequence[str]) -> list[File]:
    """Files by their public ids, in the same order. Raises NotThere when one of them is not there."""
    with backend.database.read() as connection:
        return [files.get_file(connection, backend.caller, file_id) for file_id in file_ids]


def original(backend: Backend, file: File) -> Iterator[bytes]:
    """The bytes of a file, in pieces. Raises NotThere at once when it was deleted meanwhile."""
    return backend.blobs.pieces(file.blob)


def list_stores(backend: Backend, page: PageRequest) -> Page[StoreSummary]:
    """Vector stores, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        found = stores.list_stores(connection, backend.caller, page)
        return Page(_summaries(connection, backend.caller, found.rows), found.has_more)


def summarise_store(backend: Backend, store: Store) -> StoreSummary:
    """A store as it is now. Raises NotThere when it was deleted meanwhile."""
    with backend.database.read() as connection:
        now = stores.get_store(connection, store.tenant, store.public_id)
        return _summaries(connection, backend.caller, [now])[0]


def only_store(backend: Backend) -> Store:
    """The only store there is. Raises ChangeRequest (`vector_store_required`) when there is none, or several."""
    with backend.database.read() as connection:
        found = stores.list_stores(connection, backend.caller, PageRequest(limit=5)).rows
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
        return documents.list_documents(connection, backend.caller, store, page, states)


def get_document(backend: Backend, store: Store, file_id: str) -> Document:
    """The document of a store that stands on this file. Raises NotThere."""
    with backend.database.read() as connection:
        return documents.get_document(connection, backend.caller, store, file_id)


def get_file_batch(backend: Backend, store: Store, batch_id: str) -> FileBatch:
    """A file batch of a store. Raises NotThere."""
    with backend.database.read() as connection:
        return file_batches.get_batch(connection, store, batch_id)


def count_file_batch(backend: Backend, batch: FileBatch) -> Counts:
    """Where the documents of a file batch stand."""
    with backend.database.read() as connection:
        return file_batches.count_documents(connection, backend.caller, batch)


def list_file_batch(
    backend: Backend, store: Store, batch: FileBatch, page: PageRequest, states: Sequence[State] | None = None
) -> Page[Document]:
    """The documents of a file batch, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return file_batches.list_documents(connection, backend.caller, store, batch, page, states)


def published_version(backend: Backend, document: Document) -> Version | None:
    """The version of a document that answers now out of its file, None when there is none yet."""
    with backend.database.read() as connection:
        return chunks.published_version(connection, document)


def list_folders(backend: Backend, store: Store) -> list[Folder]:
    """The folders that were synced into a store."""
    with backend.database.read() as connection:
        return folders.list_folders(connection, store)


def keep_answer(
    backend: Backend,
    prepared: Prepared,
    kind: Kind,
    body: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    previous: StoredResponse | None = None,
) -> None:
    """Keep an answer as it was sent, with the items that it answers and the response that it goes on from."""
    previous_id = previous.id if previous else None
    with backend.database.write() as connection:
        responses.add_response(connection, backend.caller, prepared.store_ids, kind, body, items, previous_id)


def stored_answer(backend: Backend, kind: Kind, public_id: str) -> StoredResponse:
    """An answer that was kept for this caller. Raises NotThere."""
    with backend.database.read() as connection:
        return responses.get_response(connection, backend.caller, kind, public_id)


def stored_conversation(backend: Backend, last: StoredResponse) -> list[StoredResponse]:
    """A response and those that it goes on from, oldest first."""
    with backend.database.read() as connection:
        return responses.conversation(connection, backend.caller, last)


def stored_answers(backend: Backend, kind: Kind, page: PageRequest, model: str | None = None) -> Page[StoredResponse]:
    """The answers that were kept for this caller, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return responses.list_responses(connection, backend.caller, kind, page, model)


def forget_answer(backend: Backend, kind: Kind, public_id: str) -> None:
    """Forget an answer that was kept. Raises NotThere."""
    with backend.database.write() as connection:
        responses.drop_response(connection, responses.get_response(connection, backend.caller, kind, public_id))


def workload(backend: Backend) -> Workload:
    """How much ingestion is still to be done."""
    tenant = None if is_operator(backend.caller) else backend.caller.tenant
    with backend.database.read() as connection:
        return Workload(documents.count_waiting(connection, tenant), batches.count_open(connection, tenant))


def _summaries(connection: Connection, caller: Caller, found: Sequence[Store]) -> list[StoreSummary]:
    ids = [store.id for store in found]
    counts, usage = stores.count_documents(connection, caller, ids), stores.usage_bytes(connection, caller, ids)
    return [
        StoreSummary(store, counts[store.id], usage[store.id], generations.live_generation(connection, store.id))
        for store in found
    ]
