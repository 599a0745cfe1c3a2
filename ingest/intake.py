"""What a caller may ask of the corpus: take in, replace, retry, cancel, delete.

Everything here is acknowledged only once it is durable, and becomes work for `ingest.runner` through the catalog alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, TryLater
from ingest import indexing
from ingest.split import ChunkSettings
from rag import generations, listing
from rag.access import Caller
from rag.backend import Backend
from rag.catalog import documents, file_batches, files, folders, purge, stores
from rag.catalog import generations as catalog
from rag.catalog.records import Document, File, FileBatch, Folder, Store
from rag.context import Scalar
from rag.embedders import Embedder
from rag.generations import GenerationSummary, Splitting
from rag.spaces import require_same_space

STORE_ID = re.compile(r"vs_[0-9a-f]{24}")
"""What is no name for a store."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewDocument:
    """A file to put into a store.

    `source` names the document within the store: a second file with the same source replaces the first. None is the
    one that the file has there already, else its id.
    `owned` lets the file go with the last document that stands on it. `attributes` and `permissions` (tags) None leave
    those that are there.
    `chunking` is a strategy of the document's own, in the shape of a store's; None leaves the one that is there.
    """

    file: File
    source: str | None = None
    attributes: Mapping[str, Scalar] | None = None
    owned: bool = False
    permissions: Sequence[str] | None = None
    chunking: Mapping[str, Any] | None = None


def create_store(
    backend: Backend,
    name: str,
    *,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
    chunking: Mapping[str, Any] | None = None,
    embedder: str | None = None,
    expires_after_days: int | None = None,
    only_if_absent: bool = False,
) -> Store:
    """Make an empty store with a live generation over the given embedder (an alias; else the configured one).

    With `only_if_absent` a store of this name (or id) that is there already is returned as it is, whatever else is
    asked. Raises ChangeRequest (`space_mismatch`) where it belongs to another space than the given embedder.
    """
    there = _store_there(backend, name) if only_if_absent else None
    if there is None and backend.caller.stores is not None:
        raise ChangeRequest(
            "This key is for certain vector stores: it makes none. Use a key without a list of stores.",
            code="insufficient_scope",
        )
    if there is not None and embedder is None:
        return there
    alias = embedder or backend.settings.embedder
    opened = backend.embedders.open(alias)
    if there is not None:
        space = backend.space(backend.live_generation(there))
        require_same_space(space, opened.space, f"The vector store {there.name!r}")
        return there
    chunking = None if chunking is None else effective_chunking(chunking, opened)
    split = chunk_settings(backend, chunking, opened)
    space_id = backend.ensure_space(opened)
    with backend.database.write() as connection:
        there = stores.store_named(connection, backend.caller, name) if only_if_absent else None
        if there is not None:
            return there
        store = stores.create_store(
            connection,
            backend.caller.tenant,
            name,
            description=description,
            metadata=metadata,
            chunking=chunking,
            expires_after_days=expires_after_days,
        )
        values = {
            "space_id": space_id,
            "chunk_set_id": stores.make_chunk_set(
                connection, store.id, split.fingerprint, asdict(split), opened.tokenizer.name, opened.limit
            ),
            "embedder": alias,
            "build": opened.build,
            "vector_index": backend.settings.vector_index,
            "keyword_index": backend.settings.keyword_index,
            "state": "live",
        }
        catalog.create_generation(connection, store, values)
    return store


def create_generation(
    backend: Backend,
    store: Store,
    *,
    embedder: str | None = None,
    chunking: Mapping[str, Any] | None = None,
    vector_index: str | None = None,
    keyword_index: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> GenerationSummary:
    """Make a generation beside the live one, over an embedder (an alias; else the live one's) and with a strategy (else
    the live one's way of splitting). Raises as `rag.generations.create` does, and ChangeRequest
    (`vector_store_expired`)."""
    stores.require_active(store)
    live = backend.live_generation(store)
    alias = embedder or live.embedder
    opened = backend.embedders.open(alias)
    if chunking is None:
        with backend.database.read() as connection:
            split = ChunkSettings(**stores.get_chunk_set(connection, live.chunk_set_id).settings)
    else:
        split = chunk_settings(backend, chunking, opened)
    size = min(split.max_tokens or opened.limit, opened.limit)
    split = replace(split, overlap_tokens=min(split.overlap_tokens, size // 2))
    splitting = Splitting(split.fingerprint, asdict(split), split.max_tokens, as_before=chunking is None)
    return generations.create(
        backend,
        store,
        alias,
        splitting,
        vector_index=vector_index,
        keyword_index=keyword_index,
        settings=settings,
    )


def _store_there(backend: Backend, name: str) -> Store | None:
    with backend.database.read() as connection:
        if STORE_ID.fullmatch(name):
            return stores.find_store(connection, backend.caller, name)
        return stores.store_named(connection, backend.caller, name)


def update_store(backend: Backend, store: Store, changes: Mapping[str, Any]) -> Store:
    """Change the `name`, `description`, `metadata` or `expires_after_days` (None: never) of a store.

    Raises ChangeRequest (`vector_store_expired`) where it is too late for the last of these.
    """
    if "expires_after_days" in changes:
        stores.require_active(store)
    with backend.database.write() as connection:
        return stores.update_store(connection, store, changes)


def chunk_settings(backend: Backend, chunking: Mapping[str, Any] | None, embedder: Embedder) -> ChunkSettings:
    """How documents with this strategy are split."""
    configured = backend.settings.ingest
    values: dict[str, Any] = {"max_tokens": configured.chunk_tokens}
    if configured.chunk_overlap_tokens is not None:
        values["overlap_tokens"] = configured.chunk_overlap_tokens
    if chunking is not None and chunking.get("type") == "static":
        static = effective_chunking(chunking, embedder)["static"]
        values["max_tokens"] = static["max_chunk_size_tokens"]
        values["overlap_tokens"] = static["chunk_overlap_tokens"]
    return ChunkSettings(**values)


def effective_chunking(chunking: Mapping[str, Any], embedder: Embedder) -> Mapping[str, Any]:
    """A strategy as it can be carried out. A static size, which the heading in front of a chunk is part of, is at most
    what the embedder reads."""
    if chunking["type"] != "static":
        return chunking
    size = min(chunking["static"]["max_chunk_size_tokens"], embedder.limit)
    overlap = min(chunking["static"]["chunk_overlap_tokens"], size // 2)
    return {**chunking, "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}}


def document_settings(
    backend: Backend, of_set: ChunkSettings, chunking: Mapping[str, Any] | None, embedder: Embedder
) -> ChunkSettings:
    """How a document is split within a chunk set: with the set's sizes, or with its own."""
    if chunking is None:
        return of_set
    own = chunk_settings(backend, chunking, embedder)
    return replace(of_set, max_tokens=own.max_tokens, overlap_tokens=own.overlap_tokens)


def upload(
    backend: Backend, filename: str, purpose: str, pieces: Iterable[bytes], expires_after: int | None = None
) -> File:
    """Store an original, durably; for so many seconds where a time is given.

    Raises ChangeRequest (`file_too_large`) and TryLater (`storage_full`)."""
    most = backend.settings.ingest.max_file_mb << 20
    blob = backend.blobs.put(_bounded(pieces, most, filename))
    with backend.database.write(shared=True) as connection:
        # Another caller may have deleted the last file with the same bytes since they were put.
        if not backend.blobs.exists(blob.key):
            raise TryLater("The same file was being deleted; send it again.", code="conflict", retry_after=0.1)
        return files.add_file(connection, backend.caller, filename, purpose, blob, expires_after)


def attach(backend: Backend, store: Store, new: Sequence[NewDocument]) -> list[Document]:
    """Put files into a store, all or none, and queue them. Returns their documents in the same order.

    Raises NotThere when the store or a file has been deleted meanwhile, and ChangeRequest (`file_in_store`,
    `vector_store_expired`).
    """
    new = _as_effective(backend, store, new)
    with backend.database.write() as connection:
        put = _put(backend, connection, store, new)
    backend.work_waiting.set()
    return put


def attach_batch(backend: Backend, store: Store, new: Sequence[NewDocument]) -> FileBatch:
    """The same for files that are to be asked after and cancelled together."""
    new = _as_effective(backend, store, new)
    with backend.database.write() as connection:
        put = _put(backend, connection, store, new)
        batch = file_batches.create_batch(connection, store, [document.id for document in put])
    backend.work_waiting.set()
    return batch


def cancel_batch(backend: Backend, store: Store, batch: FileBatch) -> FileBatch | None:
    """Stop work on the documents of a batch. None when there is none to stop."""
    with backend.database.write() as connection:
        if not file_batches.cancel(connection, backend.caller, batch):
            return None
    sweep(backend)
    with backend.database.read() as connection:
        return file_batches.get_batch(connection, store, batch.public_id)


def _as_effective(backend: Backend, store: Store, new: Sequence[NewDocument]) -> list[NewDocument]:
    if all(item.chunking is None for item in new):
        return list(new)
    embedder = backend.embedder(backend.live_generation(store))
    return [
        item if item.chunking is None else replace(item, chunking=effective_chunking(item.chunking, embedder))
        for item in new
    ]


def _put(backend: Backend, connection: Connection, store: Store, new: Sequence[NewDocument]) -> list[Document]:
    stores.require_active(stores.get_store(connection, store.tenant, store.public_id))
    stores.touch_store(connection, store.id)
    put = []
    for item in new:
        files.get_file(connection, backend.caller, item.file.public_id)
        named = item.file, item.source, item.attributes, item.permissions, item.chunking
        put.append(documents.put_document(connection, backend.caller, store, *named))
        if item.owned:
            files.own_file(connection, item.file.id)
    return put


def remember_folder(backend: Backend, store: Store, folder: Folder, *, replace: bool) -> None:
    """Remember where the documents below a prefix come from. Raises NotThere, and ChangeRequest (`another_folder`)."""
    with backend.database.write() as connection:
        stores.get_store(connection, store.tenant, store.public_id)
        folders.put_folder(connection, store, folder, replace=replace)


def set_attributes(
    backend: Backend,
    store: Store,
    file_id: str,
    attributes: Mapping[str, Scalar] | None = None,
    permissions: Sequence[str] | None = None,
) -> Document:
    """Replace the attributes of a document, or its permission tags; the next search goes by the new ones.

    Returns it as it is then, also where the caller may no longer see it. Raises NotThere.
    """
    everybody = Caller(store.tenant)
    with backend.database.write() as connection:
        document = documents.get_document(connection, backend.caller, store, file_id)
        documents.set_attributes(connection, document, attributes, permissions)
        indexing.note_attributes(connection, store.id, [document.id])
        document = documents.get_document(connection, everybody, store, file_id)
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
    """Forget a file and take it out of every store; of what the caller may not see, nothing is touched, and a file that
    such a document stands on stays."""
    with backend.database.write() as connection:
        for document in documents.documents_of_file(connection, backend.caller, file.id):
            documents.delete_document(connection, document)
        if not documents.stands_on(connection, file.id):
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
    try:
        indexing.settle(backend)
    except TryLater as error:
        log.warning("an engine forgets the store %s later: %s", store.public_id, error)


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
