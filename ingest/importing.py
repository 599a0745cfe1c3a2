"""An archive as a new vector store: `rag import`.

Everything is written where nobody sees it (`rag.catalog.archives`), each part checked before it is, and given to its
tenant in one transaction at the end. Nothing is embedded: each vector comes along, and each chunk must be the text
that its vector's key names. What a crash leaves is swept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, RagError, TryLater
from ingest import archive
from ingest.archive import Archive, DocumentLine, FileLine, Manifest, VersionLine, bad_archive
from ingest.intake import drop_blobs
from ingest.split import embedding_text
from rag.backend import Backend
from rag.catalog import archives, generations, stores, vectors
from rag.catalog.records import Store
from rag.relevance import Calibration
from rag.texts import decode_text

ABANDONED_SECONDS = 3_600.0
"""After which an import that says nothing is taken for one that a crash left."""
AT_ONCE = 64
"""Files or documents of one transaction."""
CHUNKS_AT_ONCE = 2_000
"""Chunks of one transaction, about."""
LENGTH_SLACK = 1e-3
"""By which a vector's length may differ from 1: what float32 and the embedders' own rounding make of it."""

Progress = Callable[[str, int, int], None]
Item = TypeVar("Item")


def import_store(backend: Backend, path: Path, name: str | None, tell: Progress) -> Store:
    """Make a store of an archive, whole or not at all. Its name is the exported one's unless one is given.

    Raises as `archive.reading` does, and ChangeRequest: `store_exists`, `space_not_configured`, and `bad_archive` where
    chunks, texts and vectors do not fit together.
    """
    archive.arrow()
    sweep_imports(backend)
    with archive.reading(path, backend.settings.ingest.max_file_mb << 20) as read:
        alias = _embedder_of(backend, read.manifest)
        wanted = name or read.manifest.store.name
        _require_free(backend, wanted)
        work = _Import(backend, read, _begin(backend, read.manifest, wanted, alias), tell)
        try:
            return work.run()
        except BaseException:
            with suppress(RagError):
                _drop(backend, work.store)
                drop_blobs(backend, work.put)
            raise


def sweep_imports(backend: Backend, older_than: float = ABANDONED_SECONDS) -> None:
    """Take out what imports left that have not been heard of for so many seconds."""
    with backend.database.read() as connection:
        left = archives.abandoned(connection, older_than)
    for store in left:
        _drop(backend, store)


def _drop(backend: Backend, store: Store) -> None:
    with backend.database.write() as connection:
        if stores.get_store_by_id(connection, store.id) is None:
            return
        keys = archives.drop(connection, store)
    drop_blobs(backend, keys)


def _require_free(backend: Backend, name: str) -> None:
    with backend.database.read() as connection:
        there = stores.store_named(connection, backend.caller, name)
    if there is not None:
        raise _taken(name)


def _taken(name: str) -> ChangeRequest:
    return ChangeRequest(
        f"There is a store named {name!r} already. Give the imported one another: --name.",
        code="store_exists",
        param="name",
    )


def _embedder_of(backend: Backend, manifest: Manifest) -> str:
    """The alias of an embedder here that makes vectors of the archive's space; the one exported with comes first."""
    space = manifest.space.definition
    if space.fingerprint != manifest.space.fingerprint:
        raise bad_archive("the fingerprint of its space is not that of the definition")
    specs = {name: backend.embedders.spec(name) for name in backend.embedders.names()}
    alike = [name for name, spec in specs.items() if name == manifest.embedder.alias or spec.model == space.model]
    for alias in sorted(alike, key=lambda name: name != manifest.embedder.alias):
        with suppress(RagError):
            if backend.embedders.open(alias).space.fingerprint == space.fingerprint:
                return alias
    raise ChangeRequest(
        f"The archive's vectors are of the space {space.model} ({space.fingerprint}): provider {space.provider}, "
        f"{space.dimension} dimensions, revision {space.revision or 'unknown'}. No embedder of this installation makes "
        "such vectors. Add an [embedders.NAME] table for it to the settings, and import again.",
        code="space_not_configured",
        param="embedder",
    )


def _begin(backend: Backend, manifest: Manifest, name: str, alias: str) -> Store:
    told = manifest.store
    calibration = Calibration.from_json(manifest.space.calibration).to_json()
    with backend.database.write() as connection:
        generation = {
            "space_id": stores.ensure_space(connection, manifest.space.definition, calibration),
            "chunking": (manifest.chunk_set.fingerprint, asdict(manifest.chunk_set.settings)),
            "embedder": alias,
            "build": manifest.embedder.build,
            "vector_index": backend.settings.vector_index,
            "keyword_index": backend.settings.keyword_index,
            "state": "live",
        }
        return archives.begin(
            connection,
            backend.caller.tenant,
            name,
            generation,
            description=told.description,
            metadata=told.metadata,
            chunking=told.chunking,
            expires_after_days=told.expires_after_days,
        )


class _Import:
    """One archive on its way into a store that nobody sees. Memory grows with the documents by their numbers only."""

    def __init__(self, backend: Backend, read: Archive, store: Store, tell: Progress) -> None:
        self.store = store
        self._backend = backend
        self._archive = read
        self._tell = tell
        self._counts = read.manifest.counts
        with backend.database.read() as connection:
            self._generation = generations.live_generation(connection, store.id)
        # Numbers in the archive to numbers here.
        self._files: dict[int, int] = {}
        self._documents: dict[int, int] = {}
        self._owned: list[int] = []
        self.put: list[str] = []
        """The blobs that were put last: perhaps nothing names them yet."""
        self._unfinished: set[int] = set()
        """Completed documents (by their numbers in the archive) whose version has not come yet."""
        self._answering: set[int] = set()
        self._failures: dict[int, tuple[str, str]] = {}

    def run(self) -> Store:
        """Read the members in the order in which they refer to each other."""
        self._take_files()
        self._take_documents()
        self._take_versions()
        self._take_vectors()
        tenant = self._backend.caller.tenant
        with self._backend.database.write() as connection:
            lacking = archives.lacking_vectors(connection, self.store, self._generation.space_id)
            if lacking:
                raise bad_archive(f"{lacking} chunks have no vector")
            if not archives.reveal(connection, self.store, tenant, self._owned, self._failures):
                raise _taken(self.store.name)
            shown = stores.get_store(connection, tenant, self.store.public_id)
        self._backend.work_waiting.set()
        return shown

    def _take_files(self) -> None:
        done = 0
        for lines in _some(self._archive.lines("files.jsonl", FileLine), AT_ONCE):
            rows = [line.model_dump(exclude={"id", "owned"}) for line in lines]
            originals = {line.blob for line in lines}
            self._put_blobs("originals", originals)
            with self._writing() as connection:
                self._require_blobs(originals)
                numbers = archives.put_files(connection, self.store, rows)
            self._files.update(zip((line.id for line in lines), numbers, strict=True))
            self._owned += [number for line, number in zip(lines, numbers, strict=True) if line.owned]
            done += len(lines)
            self._tell("files", done, self._counts.files)
        _require_count("files.jsonl", len(self._files), self._counts.files)

    def _take_documents(self) -> None:
        sources: set[str] = set()
        for lines in _some(self._archive.lines("documents.jsonl", DocumentLine), AT_ONCE):
            for line in lines:
                if line.source in sources or line.file not in self._files:
                    raise bad_archive(f"the document {line.id} has a source that another has, or no file")
                if (line.state == "failed") != (line.error_code is not None):
                    raise bad_archive(f"the document {line.id} failed without saying why, or the other way round")
                sources.add(line.source)
            rows = [_document_row(line, self._files[line.file]) for line in lines]
            with self._writing() as connection:
                numbers = archives.put_documents(connection, self.store, self._generation.tenant, rows)
            for line, number in zip(lines, numbers, strict=True):
                self._documents[line.id] = number
                if line.state == "completed":
                    self._unfinished.add(line.id)
                if line.error_code is not None:
                    self._failures[number] = line.error_code, line.error_message or ""
        _require_count("documents.jsonl", len(self._documents), self._counts.documents)

    def _take_versions(self) -> None:
        pages = self._archive.table("chunks.parquet", archive.chunks_schema(), self._counts.chunks)
        chunks = _Chunks(row for page in pages for row in page)
        done = 0
        for some in _some(self._checked_versions(chunks), CHUNKS_AT_ONCE, lambda pair: len(pair[1])):
            self._record_versions(some)
            done += len(some)
            self._tell("documents", done, self._counts.versions)
        if chunks.ahead is not None:
            raise bad_archive("a chunk belongs to no version, or they are not in the order of the versions")
        if self._unfinished:
            raise bad_archive(f"{len(self._unfinished)} completed documents have no version")
        _require_count("versions.jsonl", done, self._counts.versions)

    def _checked_versions(self, chunks: _Chunks) -> Iterator[tuple[VersionLine, list[dict[str, Any]]]]:
        for line in self._archive.lines("versions.jsonl", VersionLine):
            self._check_version(line)
            yield line, _checked_chunks(line, self._text(line), chunks.of(line.id))

    def _check_version(self, line: VersionLine) -> None:
        if line.document not in self._documents or line.file not in self._files or line.document in self._answering:
            raise bad_archive(f"the version {line.id} has no document or no file, or its document has another")
        self._answering.add(line.document)
        self._unfinished.discard(line.document)

    def _text(self, line: VersionLine) -> str:
        data = b"".join(self._archive.pieces("texts", line.text))
        try:
            text = decode_text(data)[1]
        except ValueError as error:
            raise bad_archive(f"texts/{line.text} is no parsed text") from error
        if len(text) != line.characters:
            raise bad_archive(f"texts/{line.text} has {len(text)} characters, not {line.characters}")
        return text

    def _record_versions(self, some: Sequence[tuple[VersionLine, list[dict[str, Any]]]]) -> None:
        texts = {line.text for line, _ in some}
        self._put_blobs("texts", texts)
        rows = [
            {
                "document_id": self._documents[line.document],
                "file_id": self._files[line.file],
                "text_blob": line.text,
                **line.model_dump(include={"title", "media_type", "characters", "created_at"}),
            }
            for line, _ in some
        ]
        with self._writing() as connection:
            self._require_blobs(texts)
            numbers = archives.put_versions(connection, self.store, rows)
            values = [
                {**chunk, "version_id": number}
                for number, (_, mine) in zip(numbers, some, strict=True)
                for chunk in mine
            ]
            archives.put_chunks(connection, self._generation.chunk_set_id, self._generation.tenant, values)
            totals = {row["document_id"]: len(mine) for row, (_, mine) in zip(rows, some, strict=True)}
            archives.count_chunks(connection, totals)

    def _take_vectors(self) -> None:
        dimension = self._archive.manifest.space.definition.dimension
        done = 0
        schema = archive.vectors_schema(dimension)
        for page in self._archive.table("vectors.parquet", schema, self._counts.vectors):
            keys = [row["embedding_key"] for row in page]
            matrix = vectors.decode_vectors([row["vector"] for row in page], dimension)
            _require_unit(matrix, done)
            with self._writing() as connection:
                held = vectors.wanted_keys(connection, self._generation.tenant, keys)
                kept = [i for i, key in enumerate(keys) if key in held]
                vectors.put_vectors(
                    connection,
                    self._generation.space_id,
                    self._generation.tenant,
                    [keys[i] for i in kept],
                    matrix[kept],
                )
            done += len(page)
            self._tell("vectors", done, self._counts.vectors)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._backend.database.write(shared=True) as connection:
            archives.keep_alive(connection, self.store)
            yield connection

    def _put_blobs(self, folder: str, keys: Iterable[str]) -> None:
        self.put = sorted(keys)
        for key in self.put:
            self._backend.blobs.put(self._archive.pieces(folder, key))

    def _require_blobs(self, keys: Iterable[str]) -> None:
        """Within the transaction that names them: whoever deletes blobs does so in one that nobody writes beside."""
        if not all(self._backend.blobs.exists(key) for key in keys):
            raise TryLater("A file with the same bytes was being deleted. Import again.", code="conflict")


class _Chunks:
    """The rows of chunks, taken version by version. `ahead` is the first that was not taken yet."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows = iter(rows)
        self.ahead = next(self._rows, None)

    def of(self, version: int) -> Iterator[dict[str, Any]]:
        """The rows of a version, if they come next."""
        while self.ahead is not None and self.ahead["version"] == version:
            yield self.ahead
            self.ahead = next(self._rows, None)


def _some(items: Iterable[Item], most: int, size: Callable[[Item], int] = lambda _: 1) -> Iterator[list[Item]]:
    """Items in lists that are as long as `most` allows, by the sum of their sizes, and AT_ONCE."""
    held: list[Item] = []
    weight = 0
    for item in items:
        held.append(item)
        weight += size(item)
        if weight >= most or len(held) >= AT_ONCE:
            yield held
            held, weight = [], 0
    if held:
        yield held


def _document_row(line: DocumentLine, file_id: int) -> dict[str, Any]:
    copied = {
        "source",
        "attributes",
        "permissions",
        "next_permissions",
        "chunking",
        "state",
        "created_at",
        "updated_at",
    }
    row = line.model_dump(include=copied)
    return {**row, "file_id": file_id}


def _checked_chunks(line: VersionLine, text: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chunks of a version, each the span of the text that it says and the text that its vector is of."""
    checked = []
    for number, row in enumerate(rows):
        where = f"chunk {number} of the version {line.id}"
        start, end, header = row["start"], row["end"], row["header"]
        if row["ordinal"] != number or row["tokens"] < 1:
            raise bad_archive(f"{where} is not the next one, or has no tokens")
        if not 0 <= start < end <= len(text) or text[start:end] != row["text"]:
            raise bad_archive(f"{where} is not the span {start} to {end} of its text")
        if row["embedding_key"] != vectors.embedding_key(embedding_text(header, row["text"])):
            raise bad_archive(f"the embedding key of {where} is not that of its header and text")
        path = _heading_path(row["heading_path"], where)
        kept = {name: value for name, value in row.items() if name != "version"}
        checked.append({**kept, "heading_path": path})
    return checked


def _heading_path(data: str, where: str) -> list[str]:
    try:
        path = json.loads(data)
    except ValueError:
        path = None
    if not isinstance(path, list) or not all(isinstance(part, str) for part in path):
        raise bad_archive(f"the heading path of {where} is no JSON array of texts")
    return path


def _require_unit(matrix: NDArray[np.float32], before: int) -> None:
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1)
    # What is not finite has a length that is not, and every comparison with that is false.
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= LENGTH_SLACK))
    if wrong.size:
        raise bad_archive(f"the vector {before + int(wrong[0])} is not of length 1, or not finite")


def _require_count(name: str, found: int, told: int) -> None:
    if found != told:
        raise bad_archive(f"{name} holds {found} different lines, and the manifest says {told}")
