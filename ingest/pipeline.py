"""What is done for a batch of documents: parse and split, embed, publish.

Every step asks the catalog what is left to do, so that repeating one after a crash does no harm and loses
little: parsing resumes at the first document that has no chunks, embedding at the first text that has no vector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock

from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, RagError, TryLater
from ingest import indexing
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.filling import Made, Manner, embed_missing, new_chunks, split_missing
from ingest.intake import drop_blobs, sweep
from ingest.sandbox import LARGE_BYTES, ParserPool, Parts
from rag.backend import Backend
from rag.catalog import chunks, documents, generations, stores
from rag.catalog.chunks import NewChunk, NewVersion
from rag.catalog.records import ChunkSet, Document, Generation, State
from rag.embedders import Embedder
from rag.texts import encode_parts, encode_text

GROUP_DOCUMENTS, GROUP_BYTES = 32, 256 << 10
"""Documents, and bytes of their originals, that are parsed together and written in one transaction; a larger one goes
by itself."""
PUBLISH_AT_ONCE = 64
"""Flips in one transaction."""

PARSING_FAILED = (
    "Parsing failed unexpectedly. Try again; the log of the server says more, or, where there is none, a run with "
    "RAG_LOG_LEVEL=debug."
)
log = logging.getLogger(__name__)


class Stopped(Exception):
    """Work was left where it was because this process is to end."""


class _Superseded(Exception):
    """Another generation is live than a batch was made for."""

    def __init__(self, live: Generation) -> None:
        self.live = live


@dataclass(frozen=True)
class _Way:
    """How the documents of a batch are split."""

    generation: Generation
    embedder: Embedder
    chunk_set: ChunkSet


@dataclass(frozen=True)
class _Prepared:
    """A document, parsed and split."""

    document: Document
    parsed: ParsedDocument
    chunks: list[NewChunk]


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
        with self._backend.database.read() as connection:
            chunk_set = stores.get_chunk_set(connection, generation.chunk_set_id)
        way = _Way(generation, self._backend.embedder(generation), chunk_set)
        with ThreadPoolExecutor(self._backend.settings.ingest.parser_processes, "parse") as threads:
            list(threads.map(lambda group: self._prepare_group(group, way), _groups(waiting)))

    def embed(self, batch: str) -> int | None:
        """Compute the vectors that the batch's chunks lack. Returns the number of the generation that they are for,
        None where there was nothing to do.

        Raises TryLater when the embedder is out of reach.
        """
        ready = self._ready(batch)
        if not ready:
            return None
        generation = self._generation(ready[0])
        self._embed(ready, generation)
        return generation.id

    def index(self, batch: str, made_for: int | None = None) -> int | None:
        """Write the batch's chunks to the engine that serves their store, where it has one of its own.

        Takes and returns the number of a generation as `embed` does: another one may be live by now.

        Raises TryLater when that is out of reach.
        """
        ready = self._ready(batch)
        if not ready:
            return None
        generation = self._generation(ready[0])
        if generation.id != made_for:
            self._embed(ready, generation)
        self._write_points(ready, generation)
        return generation.id

    def publish(self, batch: str, made_for: int | None = None) -> None:
        """Flip every finished document of a batch, then purge what was replaced. Where another generation is live than
        the batch was made for, what that one lacks is made first."""
        ready = self._ready(batch)
        for start in range(0, len(ready), PUBLISH_AT_ONCE):
            some = ready[start : start + PUBLISH_AT_ONCE]
            while (live := self._flip(some, made_for)) is not None:
                log.info("generation %d is live now; what it lacks of this batch is made", live.id)
                self._embed(ready, live)
                self._write_points(ready, live)
                made_for = live.id
        self._backend.background_waiting.set()
        indexing.settle(self._backend)
        sweep(self._backend)

    def _flip(self, some: Sequence[Document], made_for: int | None) -> Generation | None:
        """Publish these documents, all that still may be. Nothing is, and the generation is returned, where another one
        is live than they were made for."""
        store_id = some[0].store_id
        try:
            with self._backend.database.write(shared=True) as connection:
                documents.publish(connection, chunks.versions_of(connection, some))
                # With the store's row in hand: no other one becomes live before the end of this.
                live = generations.live_generation(connection, store_id)
                if live.id != made_for:
                    raise _Superseded(live)
                # Of a change that came between the points and the flip, the points may know nothing.
                indexing.note_attributes(connection, store_id, [document.id for document in some])
        except _Superseded as superseded:
            return superseded.live
        return None

    def give_up(self, batch: str, error: RagError) -> None:
        """End every document of a batch that an error keeps from going on."""
        with self._backend.database.write() as connection:
            for document in documents.active_of_batch(connection, batch):
                documents.fail(connection, document.id, document.attempt, "server_error", error.message)

    @property
    def embeds(self) -> bool:
        """Whether a batch is being embedded here."""
        return self._embedding.locked()

    def _ready(self, batch: str) -> list[Document]:
        return [document for document in self._documents(batch) if document.state == "embedding"]

    def _documents(self, batch: str) -> list[Document]:
        with self._backend.database.read() as connection:
            return documents.active_of_batch(connection, batch)

    def _generation(self, document: Document) -> Generation:
        with self._backend.database.read() as connection:
            return generations.live_generation(connection, document.store_id)

    def _prepare_group(self, group: Sequence[Document], way: _Way) -> None:
        self._go_on()
        if len(group) == 1 and group[0].bytes > LARGE_BYTES:
            with self._ending(group[0]):
                self._prepare_large(group[0], way)
            return
        parsed = self._parse(self._advance(group, "parsing"))
        current = {document.id for document in self._advance([document for document, _ in parsed], "splitting")}
        ready: list[_Prepared] = []
        for document, text in parsed:
            if document.id in current:
                self._go_on()
                with self._ending(document):
                    ready.append(_Prepared(document, text, self._split(document, text, way)))
        self._write(ready, way)

    def _prepare_large(self, document: Document, way: _Way) -> None:
        """The same for a document of which only a part is in memory at a time."""
        if not self._advance([document], "parsing"):
            return
        with (
            self._backend.blobs.local(document.blob) as path,
            self._parsers.parts(path, document.filename) as parts,
        ):
            if not any(part.text.strip() for part in parts):
                raise DocumentFailure("empty", "The file holds only white space.")
            version = self._record_large(document, parts)
            if version is None:
                return
            count = 0
            for part, start in _placed(parts):
                self._go_on()
                new = [_moved(one, count, start) for one in self._split(document, part, way)]
                if not self._add_chunks(version, new, way, more=start > 0):
                    return
                count += len(new)
        with self._backend.database.write(shared=True) as connection:
            if documents.advance(connection, [document], "embedding"):
                documents.note_chunks(connection, {document.id: count})

    def _record_large(self, document: Document, parts: Parts) -> int | None:
        """Store the text and record it, still without chunks. Returns the version's number; None when the document is
        no longer ours to work on."""
        title, media_type = next((part.title, part.media_type) for part in parts)
        characters = sum(len(part.text) for part in parts)
        while True:
            text = self._store_parts(parts)
            with self._backend.database.write(shared=True) as connection:
                if not self._backend.blobs.exists(text):
                    continue
                if documents.advance(connection, [document], "splitting"):
                    new = NewVersion(document, title, media_type, text, characters)
                    return chunks.put_versions(connection, [new])[document.id]
            drop_blobs(self._backend, [text])
            return None

    def _add_chunks(self, version: int, new: Sequence[NewChunk], way: _Way, *, more: bool) -> bool:
        """Write some of a version's chunks. False when it was purged meanwhile."""
        with self._backend.database.write(shared=True) as connection:
            if not chunks.is_kept(connection, version):
                return False
            generation = way.generation
            chunks.put_chunks(connection, generation.chunk_set_id, generation.tenant, {version: new}, more=more)
        return True

    @contextmanager
    def _ending(self, document: Document) -> Iterator[None]:
        """End a document by what goes wrong with it: the others go on."""
        try:
            yield
        except DocumentFailure as failure:
            # A parser that was stopped says so as a failure of the file.
            self._go_on(failure)
            self._fail(document, failure.code, failure.message)
        except TryLater:
            raise  # the step is repeated: a catalog or a blob store that is out of reach is no fault of the file's
        except RagError as error:
            self._go_on(error)
            self._fail(document, "server_error", error.message)
        except Exception as error:
            self._go_on(error)
            log.exception("preparing document %d failed", document.id)
            self._fail(document, "server_error", PARSING_FAILED)

    def _parse(self, group: Sequence[Document]) -> list[tuple[Document, ParsedDocument]]:
        """Those of these documents that hold text, with it."""
        there: list[Document] = []
        files: list[tuple[Path, str]] = []
        parsed: list[tuple[Document, ParsedDocument]] = []
        with ExitStack() as stack:
            for document in group:
                with self._ending(document):
                    if document.bytes == 0:
                        raise DocumentFailure("empty", "The file is empty (0 bytes).")
                    files.append((stack.enter_context(self._backend.blobs.local(document.blob)), document.filename))
                    there.append(document)
            outcomes = self._parsers.parse_all(files)
        for document, outcome in zip(there, outcomes, strict=True):
            with self._ending(document):
                if isinstance(outcome, DocumentFailure):
                    raise outcome
                if not outcome.text.strip():
                    raise DocumentFailure("no_text", "The file holds no text.")
                parsed.append((document, outcome))
        return parsed

    def _split(self, document: Document, parsed: ParsedDocument, way: _Way) -> list[NewChunk]:
        try:
            return new_chunks(self._backend, parsed, way.embedder, way.chunk_set, document.chunking)
        except ChangeRequest as error:
            raise DocumentFailure("server_error", error.message) from error

    def _write(self, ready: Sequence[_Prepared], way: _Way) -> None:
        """Store these documents' texts and record them; one by one where that fails for all."""
        try:
            self._write_together(ready, way)
        except (TryLater, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told of the one document that it is about
            self._go_on(error)
            for one in ready:
                with self._ending(one.document):
                    self._write_together([one], way)

    def _write_together(self, ready: Sequence[_Prepared], way: _Way) -> None:
        while ready and not self._record(ready, [self._store_text(one.parsed) for one in ready], way):
            log.info("texts were purged with those of other documents; they are written again")

    def _store_parts(self, parts: Parts) -> str:
        if isinstance(parts, list):  # it is one, and has metadata
            return self._store_text(parts[0])
        blocks = (_blocks(part, start) for part, start in _placed(parts))
        return self._backend.blobs.put(encode_parts(blocks, (part.text for part in parts))).key

    def _store_text(self, parsed: ParsedDocument) -> str:
        structure = {"blocks": _blocks(parsed)}
        encoded = {**structure, "metadata": dict(parsed.metadata)}
        return self._backend.blobs.put(encode_text(encoded, parsed.text)).key

    def _record(self, ready: Sequence[_Prepared], texts: Sequence[str], way: _Way) -> bool:
        """Record stored texts and their chunks. False when one is gone, purged with another document's."""
        with self._backend.database.write(shared=True) as connection:
            if not all(self._backend.blobs.exists(text) for text in texts):
                return False
            current = documents.advance(connection, [one.document for one in ready], "embedding")
            ours = [(one, text) for one, text in zip(ready, texts, strict=True) if one.document.id in current]
            if ours:
                documents.note_chunks(connection, {one.document.id: len(one.chunks) for one, _ in ours})
                versions = chunks.put_versions(connection, [_new_version(one, text) for one, text in ours])
                written = {versions[one.document.id]: one.chunks for one, _ in ours}
                chunks.put_chunks(connection, way.generation.chunk_set_id, way.generation.tenant, written)
        if len(ours) < len(ready):
            drop_blobs(self._backend, texts)
        return True

    def _embed(self, ready: Sequence[Document], generation: Generation) -> None:
        """Make the vectors that a generation lacks of these documents; and their chunks, where another one was live
        when they were split."""
        embedder = self._backend.embedder(generation)
        owner = self._versions(ready)

        def record(connection: Connection, made: Made) -> None:
            tally = {owner[version].id: [owner[version].attempt, *counted] for version, counted in made.items()}
            documents.add_progress(connection, tally)

        manner = Manner(before=self._go_on, beside=record)
        with self._embedding:
            split_missing(self._backend, generation, embedder, sorted(owner), manner)
            embed_missing(self._backend, generation, embedder, sorted(owner), manner)

    def _write_points(self, ready: Sequence[Document], generation: Generation) -> None:
        indexing.write_versions(self._backend, generation, sorted(self._versions(ready)), coming=True)

    def _versions(self, ready: Sequence[Document]) -> dict[int, Document]:
        """The versions that these documents' attempts have made, and whose each is."""
        with self._backend.database.read() as connection:
            return chunks.versions_of(connection, ready)

    def _go_on(self, cause: BaseException | None = None) -> None:
        if self._stopping.is_set():
            raise Stopped from cause

    def _advance(self, some: Sequence[Document], state: State) -> list[Document]:
        """Those of these documents that are still ours to work on, moved on."""
        if not some:
            return []
        with self._backend.database.write(shared=True) as connection:
            current = documents.advance(connection, some, state)
        return [document for document in some if document.id in current]

    def _fail(self, document: Document, code: str, message: str) -> None:
        with self._backend.database.write(shared=True) as connection:
            documents.fail(connection, document.id, document.attempt, code, message)


def _groups(waiting: Sequence[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in waiting:
        if group and (len(group) == GROUP_DOCUMENTS or size + document.bytes > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(document)
        size += document.bytes
    if group:
        yield group


def _placed(parts: Parts) -> Iterator[tuple[ParsedDocument, int]]:
    """Parts, each with the place of its first character in the whole."""
    start = 0
    for part in parts:
        yield part, start
        start += len(part.text)


def _blocks(parsed: ParsedDocument, start: int = 0) -> list[list[object]]:
    return [[start + b.start, start + b.end, b.kind, b.level, b.page] for b in parsed.blocks]


def _moved(chunk: NewChunk, ordinals: int, characters: int) -> NewChunk:
    """A chunk of a part as one of the whole."""
    return replace(chunk, ordinal=chunk.ordinal + ordinals, start=chunk.start + characters, end=chunk.end + characters)


def _new_version(one: _Prepared, text_blob: str) -> NewVersion:
    parsed = one.parsed
    return NewVersion(one.document, parsed.title, parsed.media_type, text_blob, len(parsed.text))


def is_passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try."""
    return isinstance(error, TryLater)
