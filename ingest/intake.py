"""What a caller may ask of the corpus: take in, replace, retry, cancel, delete.

Everything here is acknowledged only once it is durable, and becomes work for `ingest.runner` through the catalog alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from indexes.errors import ChangeRequest, TryLater
from ingest import indexing
from ingest.split import ChunkSettings
from rag import listing
from rag.backend import Backend
from rag.catalog import documents, files, folders, purge, stores
from rag.catalog.records import Document, File, Folder, Store
from rag.context import Scalar
from rag.embedders import Embedder
from rag.spaces import require_same_space

STORE_ID = re.compile(r"vs_[0-9a-f]{24}")
"""What is no name for a store."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewDocument:
    """A file to put into a store.

    `source` names the document within the store: a second file with the same source replaces the first. None is the
    one that the file has there already, else its id.
    `owned` lets the file go with the last document that stands on it. `attributes` None leaves those that are there.
    """

    file: File
    source: str | None = None
    attributes: Mapping[str, Scalar] | None = None
    owned: bool = False


def create_store(
    backend: Backend,
    name: str,
    *,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
    chunking: Mapping[str, Any] | None = None,
    embedder: str | None = None,
    only_if_absent: bool = False,
) -> Store:
    """Make an empty store with a live generation over the given embedder (an alias; else the configured one).

    With `only_if_absent` a store of this name (or id) that is there already is returned as it is, whatever else is
    asked. Raises ChangeRequest (`space_mismatch`) where it belongs to another space than the given embedder.
    """
    there = _store_there(backend, name) if only_if_absent else None
    if there is not None and embedder is None:
        return there
    alias = embedder or backend.settings.embedder
    opened = backend.embedders.open(alias)
    if there is not None:
        space = backend.space(backend.live_generation(there))
        require_same_space(space, opened.space, f"The vector store {there.name!r}")
        return there
    split = chunk_settings(backend, chunking, opened)
    space_id = backend.ensure_space(opened)
    with backend.database.write() as connection:
        there = stores.store_named(connection, backend.caller.tenant, name) if only_if_absent else None
        if there is not None:
            return there
        store = stores.create_store(
            connection,
            backend.caller.tenant,
            name,
            description=description,
            metadata=metadata,
            chunking=chunking,
        )
        values = {
            "space_id": space_id,
            "chunk_set_id": stores.ensure_chunk_set(connection, store.id, split.fingerprint, asdict(split)),
            "embedder": alias,
            "build": opened.build,
            "vector_index": backend.settings.vector_index,
            "keyword_index": backend.settings.keyword_index,
            "state": "live",
        }
        stores.create_generation(connection, store, values)
    return store


def _store_there(backend: Backend, name: str) -> Store | None:
    with backend.database.read() as connection:
        named = stores.store_named(connection, backend.caller.tenant, name)
        if named is not None or not STORE_ID.fullmatch(name):
            return named
        return stores.get_store(connection, backend.caller.tenant, name)


def update_store(backend: Backend, store: Store, changes: Mapping[str, Any]) -> Store:
    """Change the `name`, `description` or `metadata` of a store."""
    with backend.database.write() as connection:
        return stores.update_store(connection, store, changes)


def chunk_settings(backend: Backend, chunking: Mapping[str, Any] | None, embedder: Embedder) -> ChunkSettings:
    """How a store with this strategy is split. A static size above the embedder's limit is capped to it."""
    configured = backend.settings.ingest
    values: dict[str, Any] = {"max_tokens": configured.chunk_tokens}
    if configured.chunk_overlap_tokens is not None:
        values["overlap_tokens"] = configured.chunk_overlap_tokens
    if chunking is not None and chunking.get("type") == "static":
        static = chunking["static"]
        values["max_tokens"] = min(static["max_chunk_size_tokens"], embedder.limit)
        values["overlap_tokens"] = min(static["chunk_overlap_tokens"], values["max_tokens"] // 2)
    return ChunkSettings(**values)


def upload(backend: Backend, filename: str, purpose: str, pieces: Iterable[bytes]) -> File:
    """Store an original, durably. Raises ChangeRequest (`file_too_large`) and TryLater (`storage_full`)."""
    most = backend.settings.ingest.max_file_mb << 20
    blob = backend.blobs.put(_bounded(pieces, most, filename))
    with backend.database.write(shared=True) as connection:
        # Another caller may have deleted the last file with the same bytes since they were put.
        if not backend.blobs.exists(blob.key):
            raise TryLater("The same file was being deleted; send it again.", code="conflict", retry_after=0.1)
        return files.add_file(connection, backend.caller.tenant, filename, purpose, blob)


def attach(backend: Backend, store: Store, new: Sequence[NewDocument]) -> list[Document]:
    """Put files into a store, all or none, and queue them. Returns their documents in the same order.

    Raises NotThere when the store or a file has been deleted meanwhile, and ChangeRequest (`file_in_store`).
    """
    with backend.database.write() as connection:
        stores.get_store(connection, store.tenant, store.public_id)
        put = []
        for item in new:
            files.get_file(connection, item.file.tenant, item.file.public_id)
            put.append(documents.put_document(connection, store, item.file, item.source, item.attributes))
            if item.owned:
                files.own_file(connection, item.file.id)
    backend.work_waiting.set()
    return put


def remember_folder(backend: Backend, store: Store, folder: Folder, *, replace: bool) -> None:
    """Remember where the documents below a prefix come from. Raises NotThere, and ChangeRequest (`another_folder`)."""
    with backend.database.write() as connection:
        stores.get_store(connection, store.tenant, store.public_id)
        folders.put_folder(connection, store, folder, replace=replace)


def set_attributes(backend: Backend, store: Store, file_id: str, attributes: Mapping[str, Scalar]) -> Document:
    """Replace the attributes of a document; the next search filters by the new ones. Raises NotThere."""
    with backend.database.write() as connection:
        document = documents.get_document(connection, store, file_id)
        documents.set_attributes(connection, document, attributes)
        indexing.note_attributes(connection, store.id, [document.id])
        document = documents.get_document(connection, store, file_id)
    indexing.settle(backend)
    return document


def retry(backend: Backend, document: Document) -> bool:
    """Queue a failed or cancelled document again. False when it is neither."""
    with backend.database.write() as connection:
        done = documents.retry(connection, document)
    backend.work_waiting.set()
    return done


def cancel(backend: Backend, document: Document) -> bool:
    """Stop work on a document. False when there is none."""
    with backend.database.write() as connection:
        done = documents.cancel(connection, document)
    if done:
        sweep(backend)
    return done


def delete_documents(backend: Backend, gone: Sequence[Document]) -> None:
    """Take documents out of their stores, in whatever state they are; then purge what they leave."""
    with backend.database.write() as connection:
        for document in gone:
            documents.delete_document(connection, document)
    sweep(backend)


def delete_file(backend: Backend, file: File) -> None:
    """Forget a file and take it out of every store."""
    with backend.database.write() as connection:
        for document in documents.documents_of_file(connection, file.id):
            documents.delete_document(connection, document)
        files.drop_file(connection, file)
    drop_blobs(backend, [file.blob])
    sweep(backend)


def delete_store(backend: Backend, store: Store) -> None:
    """Forget a store with its documents. Its files stay, except those that came with a document."""
    with backend.database.write() as connection:
        indexing.note_deletion(connection, store.id)
        texts = stores.delete_store(connection, store)
    drop_blobs(backend, texts)
    sweep(backend)
    indexing.settle(backend)


def sweep(backend: Backend) -> None:
    """Purge what no longer answers: retired and abandoned versions, their marks in the change log once they are old,
    and files that came with them."""
    touched: set[int] = set()
    while True:
        with backend.database.read() as connection:
            versions = purge.purgeable_versions(connection)
            store_of = purge.stores_of(connection, versions)
        if not versions:
            break
        try:
            indexing.forget_versions(backend, store_of)
        except TryLater as error:
            log.warning("what no longer answers is purged later: %s", error)
            break
        touched.update(store_of.values())
        texts = []
        for version in versions:
            with backend.database.write() as connection:
                texts.append(purge.purge_version(connection, version))
        drop_blobs(backend, [text for text in texts if text is not None])
    for store_id in sorted(touched):
        _prune_log(backend, store_id)
    while True:
        with backend.database.write() as connection:
            orphans = files.orphans(connection)
            for file in orphans:
                files.drop_file(connection, file)
        if not orphans:
            break
        drop_blobs(backend, [file.blob for file in orphans])


def sweep_blobs(backend: Backend, older_than: float = 3600.0) -> int:
    """Remove blobs that a crash left without a record. Returns how many.

    Only those older than so many seconds: a younger one may be about to be recorded.
    """
    removed = 0
    for keys in backend.blobs.keys(older_than):
        removed += drop_blobs(backend, keys)
    return removed


def current_text(backend: Backend, document: Document) -> str | None:
    """The text that answers now out of the document's file, None when there is none yet."""
    version = listing.published_version(backend, document)
    return None if version is None else backend.texts.read(version.text_blob)


def _bounded(pieces: Iterable[bytes], most: int, filename: str) -> Iterable[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise ChangeRequest(
                f"The file {filename!r} is larger than the limit of {most >> 20} MiB. Split it, or raise "
                "`ingest.max_file_mb`.",
                code="file_too_large",
                param="file",
            )
        yield piece


def drop_blobs(backend: Backend, keys: Sequence[str]) -> int:
    """Remove those of these blobs that no file and no version names. Returns how many.

    Call it after the commit that took the names away: were they unlinked before, a crash between the two would leave
    records without their bytes. A crash in between leaves blobs, for `sweep_blobs`.
    """
    removed = 0
    for start in range(0, len(keys), 500):
        # In a transaction that nobody writes beside: no file or text with the same bytes can be recorded meanwhile.
        with backend.database.write() as connection:
            unknown = purge.unused_texts(connection, files.unknown_blobs(connection, keys[start : start + 500]))
            if unknown:
                backend.blobs.delete(unknown)
        removed += len(unknown)
    return removed


def _prune_log(backend: Backend, store_id: int) -> None:
    """Prune once a good part of the log is over what is kept, so that not each deletion writes."""
    with backend.database.read() as connection:
        store = stores.get_store_by_id(connection, store_id)
    if store is not None and store.seq - store.pruned_through >= purge.KEPT_CHANGES + purge.KEPT_CHANGES // 10:
        with backend.database.write() as connection:
            purge.prune_log(connection, store.id, store.seq, purge.KEPT_CHANGES)
