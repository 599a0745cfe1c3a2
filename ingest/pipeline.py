"""What is done for a batch of documents: parse and split, embed, publish.

Every step asks the catalog what is left to do, so that repeating one after a crash does no harm and loses
little: parsing resumes at the first document that has no chunks, embedding at the first text that has no vector.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

from indexes.errors import ChangeRequest, RagError, TryLater
from ingest import indexing
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.intake import document_settings, drop_blobs, sweep
from ingest.sandbox import ParserPool
from ingest.split import ChunkSettings, ChunkSpan, embedding_text, split_document
from rag.backend import Backend
from rag.blobs import StoredBlob
from rag.catalog import chunks, documents, generations, stores, vectors
from rag.catalog.chunks import NewChunk
from rag.catalog.records import Document, Generation, State
from rag.embedders import Embedder
from rag.remote import is_remote
from rag.texts import encode_text

EMBED_AT_ONCE = 256
"""Texts between two commits of vectors."""
PUBLISH_AT_ONCE = 16
"""Flips in one transaction."""

PARSING_FAILED = (
    "Parsing failed unexpectedly. Try again; the log of the server says more, or, where there is none, a run with "
    "RAG_LOG_LEVEL=debug."
)
log = logging.getLogger(__name__)


class Stopped(Exception):
    """Work was left where it was because this process is to end."""


class Pipeline:
    """The steps of ingestion over one backend. Safe to use from several threads."""

    def __init__(self, backend: Backend, parsers: ParserPool, stopping: Event | None = None) -> None:
        """`stopping` asks for an end at the next border: what is unfinished stays as it is, to be resumed."""
        self._backend = backend
        self._parsers = parsers
        self._stopping = stopping or Event()
        # One batch embeds at a time: the model takes every core anyway, and no text is embedded twice.
        self._embedding = Lock()

    def prepare(self, batch: str) -> None:
        """Parse and split every document of a batch that has not been yet."""
        waiting = [d for d in self._documents(batch) if d.state != "embedding"]
        if not waiting:
            return
        generation = self._generation(waiting[0])
        embedder = self._backend.embedder(generation)
        with self._backend.database.read() as connection:
            settings = ChunkSettings(**stores.chunk_settings(connection, generation.chunk_set_id))
        with ThreadPoolExecutor(self._backend.settings.ingest.parser_processes, "parse") as threads:
            list(threads.map(lambda d: self._prepare_one(d, generation, embedder, settings), waiting))

    def embed(self, batch: str) -> None:
        """Compute the vectors that the batch's chunks lack. Raises TryLater when the embedder is out of reach."""
        ready = [d for d in self._documents(batch) if d.state == "embedding"]
        if not ready:
            return
        generation = self._generation(ready[0])
        embedder = self._backend.embedder(generation)
        with self._embedding:
            self._embed(ready, generation, embedder)

    def index(self, batch: str) -> None:
        """Write the batch's chunks to the engine that serves their store, where it has one of its own.

        Raises TryLater when that is out of reach.
        """
        ready = [d for d in self._documents(batch) if d.state == "embedding"]
        if not ready:
            return
        generation = self._generation(ready[0])
        if not is_remote(generation):
            return
        with self._backend.database.read() as connection:
            versions = [chunks.get_version(connection, d.id, d.attempt) for d in ready]
        indexing.write_versions(self._backend, generation, [v.id for v in versions if v is not None], coming=True)

    def publish(self, batch: str) -> None:
        """Flip every finished document of a batch, then purge what was replaced."""
        ready = [d for d in self._documents(batch) if d.state == "embedding"]
        for start in range(0, len(ready), PUBLISH_AT_ONCE):
            with self._backend.database.write(shared=True) as connection:
                some = ready[start : start + PUBLISH_AT_ONCE]
                for document in some:
                    version = chunks.get_version(connection, document.id, document.attempt)
                    if version is not None:
                        documents.publish(connection, document, version.id)
                # Of a change that came between the points and the flip, the points may know nothing.
                indexing.note_attributes(connection, some[0].store_id, [document.id for document in some])
        indexing.settle(self._backend)
        sweep(self._backend)

    def give_up(self, batch: str, error: RagError) -> None:
        """End every document of a batch that an error keeps from going on."""
        with self._backend.database.write() as connection:
            for document in documents.active_of_batch(connection, batch):
                documents.fail(connection, document.id, document.attempt, "server_error", error.message)

    def _documents(self, batch: str) -> list[Document]:
        with self._backend.database.read() as connection:
            return documents.active_of_batch(connection, batch)

    def _generation(self, document: Document) -> Generation:
        with self._backend.database.read() as connection:
            return generations.live_generation(connection, document.store_id)

    def _prepare_one(
        self, document: Document, generation: Generation, embedder: Embedder, settings: ChunkSettings
    ) -> None:
        self._go_on()
        try:
            if not self._advance(document, "parsing"):
                return
            parsed = self._parse(document)
            if not self._advance(document, "splitting"):
                return
            own = document_settings(self._backend, settings, document.chunking, embedder)
            self._write_chunks(document, generation, parsed, _split(parsed, embedder, own))
        except DocumentFailure as failure:
            # A parser that was stopped says so as a failure of the file.
            self._go_on(failure)
            self._fail(document, failure.code, failure.message)
        except TryLater:
            raise  # the step is repeated: a catalog or a blob store that is out of reach is no fault of the file's
        except RagError as error:
            self._go_on(error)
            self._fail(document, "server_error", error.message)
        except Exception as error:  # whatever one document does, the others go on and it ends
            self._go_on(error)
            log.exception("preparing document %d failed", document.id)
            self._fail(document, "server_error", PARSING_FAILED)

    def _parse(self, document: Document) -> ParsedDocument:
        if document.bytes == 0:
            raise DocumentFailure("empty", "The file is empty (0 bytes).")
        with self._backend.blobs.local(document.blob) as path:
            parsed = self._parsers.parse(path, document.filename)
        if not parsed.text.strip():
            raise DocumentFailure("no_text", "The file holds no text.")
        return parsed

    def _write_chunks(
        self, document: Document, generation: Generation, parsed: ParsedDocument, spans: Sequence[ChunkSpan]
    ) -> None:
        structure = {"blocks": [[b.start, b.end, b.kind, b.level, b.page] for b in parsed.blocks]}
        encoded = {**structure, "metadata": dict(parsed.metadata)}
        new = [_new_chunk(number, span, parsed.text) for number, span in enumerate(spans)]
        while not self._record(
            document, generation, parsed, self._backend.blobs.put(encode_text(encoded, parsed.text)), new
        ):
            log.info("the text of document %d was purged with another's; it is written again", document.id)

    def _record(
        self, document: Document, generation: Generation, parsed: ParsedDocument, blob: StoredBlob, new: list[NewChunk]
    ) -> bool:
        """Record a stored text and its chunks. False when the text is gone, purged with another document's."""
        with self._backend.database.write(shared=True) as connection:
            if not self._backend.blobs.exists(blob.key):
                return False
            ours = documents.advance(
                connection, document.id, document.attempt, "embedding", chunks_total=len(new), chunks_done=0
            )
            if ours:
                version = chunks.put_version(
                    connection,
                    document,
                    title=parsed.title,
                    media_type=parsed.media_type,
                    text_blob=blob.key,
                    characters=len(parsed.text),
                )
                chunks.put_chunks(connection, version.id, generation.chunk_set_id, generation.tenant, new)
        if not ours:
            drop_blobs(self._backend, [blob.key])
        return True

    def _embed(self, ready: Sequence[Document], generation: Generation, embedder: Embedder) -> None:
        space, tenant = generation.space_id, generation.tenant
        with self._backend.database.read() as connection:
            owner = {}
            for document in ready:
                version = chunks.get_version(connection, document.id, document.attempt)
                if version is not None:
                    owner[version.id] = document
            texts = chunks.version_texts(connection, sorted(owner), generation.chunk_set_id)
            missing = vectors.missing_keys(connection, space, tenant, [key for _, key, _, _, _ in texts])
        wanted: dict[bytes, tuple[str, int, Document]] = {}
        for version_id, key, header, text, tokens in texts:
            if key in missing and key not in wanted:
                wanted[key] = embedding_text(header, text), tokens, owner[version_id]
        # Texts of like length go together, so that little is spent on padding.
        order = sorted(wanted, key=lambda key: wanted[key][1])
        for start in range(0, len(order), EMBED_AT_ONCE):
            self._go_on()
            keys = order[start : start + EMBED_AT_ONCE]
            with self._backend.database.read() as connection:
                held = vectors.wanted_keys(connection, tenant, keys)
            keys = [key for key in keys if key in held]
            if not keys:
                continue
            rows = embedder.embed_documents([wanted[key][0] for key in keys])
            tally: dict[int, list[int]] = {}
            for key in keys:
                _, tokens, document = wanted[key]
                counted = tally.setdefault(document.id, [document.attempt, 0, 0])
                counted[1] += 1
                counted[2] += tokens
            with self._backend.database.write(shared=True) as connection:
                # A document deleted meanwhile was purged already: nothing would ever remove its vectors.
                held = vectors.wanted_keys(connection, tenant, keys)
                kept = [i for i, key in enumerate(keys) if key in held]
                vectors.put_vectors(connection, space, tenant, [keys[i] for i in kept], rows[kept])
                documents.add_progress(connection, tally)

    def _go_on(self, cause: BaseException | None = None) -> None:
        if self._stopping.is_set():
            raise Stopped from cause

    def _advance(self, document: Document, state: State) -> bool:
        with self._backend.database.write(shared=True) as connection:
            return documents.advance(connection, document.id, document.attempt, state)

    def _fail(self, document: Document, code: str, message: str) -> None:
        with self._backend.database.write(shared=True) as connection:
            documents.fail(connection, document.id, document.attempt, code, message)


def is_passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try."""
    return isinstance(error, TryLater)


def _split(parsed: ParsedDocument, embedder: Embedder, settings: ChunkSettings) -> list[ChunkSpan]:
    try:
        return split_document(parsed, embedder.tokenizer, embedder.limit, settings)
    except ChangeRequest as error:
        raise DocumentFailure("server_error", error.message) from error


def _new_chunk(number: int, span: ChunkSpan, text: str) -> NewChunk:
    mine = text[span.start : span.end]
    return NewChunk(
        ordinal=number,
        start=span.start,
        end=span.end,
        page=span.page,
        tokens=span.tokens,
        heading_path=span.heading_path,
        header=span.header,
        text=mine,
        embedding_key=vectors.embedding_key(embedding_text(span.header, mine)),
    )
