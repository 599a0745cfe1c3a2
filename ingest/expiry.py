"""Taking out what has expired: files, and what expired vector stores hold. A store itself stays, as `expired`."""

from __future__ import annotations

from ingest.intake import delete_documents, delete_file
from rag.backend import Backend
from rag.catalog import files, stores
from rag.catalog.documents import documents_of_store


def expire(backend: Backend) -> None:
    """Take out whatever's time has come. Harmless to repeat, and beside others who do it too."""
    while True:
        with backend.database.read() as connection:
            found = files.expired_files(connection)
        for file in found:
            delete_file(backend, file)
        if not found:
            break
    with backend.database.read() as connection:
        held = [documents_of_store(connection, store.id) for store in stores.expired_stores(connection)]
    for documents in held:
        delete_documents(backend, documents)
