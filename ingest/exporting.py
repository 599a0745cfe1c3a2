"""A vector store as one archive: `rag export`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from indexes.errors import NotThere, TryLater
from ingest import archive
from ingest.archive import ArchiveWriter, Counts, DocumentLine, FileLine, Manifest, VersionLine
from ingest.split import ChunkSettings
from rag.backend import Backend
from rag.catalog import archives, generations, stores
from rag.catalog.archives import Rows
from rag.catalog.records import ACTIVE, Generation, Store

TRIES = 3
"""Of an export, when documents are deleted under it."""

Progress = Callable[[str, int, int], None]


def export_store(backend: Backend, store: Store, path: Path, tell: Progress) -> Counts:
    """Write what a store holds at one moment, while others go on reading and writing. Returns what was written.

    Documents that are being worked on are exported as waiting; of each document the version that answers goes along.
    Raises as `archive.writing` does, NotThere (`blob_damaged`), and TryLater where documents go faster than they can
    be read.
    """
    archive.arrow()
    for tried in range(TRIES):
        try:
            return _export(backend, store, path, tell)
        except NotThere as error:
            if error.code != "blob_not_found":
                raise
            if tried == TRIES - 1:
                raise TryLater(
                    f"{error.message} Documents are being deleted; export again when that has ended.", code="conflict"
                ) from error
    raise AssertionError


def _export(backend: Backend, store: Store, path: Path, tell: Progress) -> Counts:
    with archive.writing(path) as writer, backend.database.read() as connection:
        store = stores.get_store(connection, store.tenant, store.public_id)
        generation = generations.live_generation(connection, store.id)
        space, calibration = stores.get_space(connection, generation.space_id)
        counts = _tables(writer, connection, store, generation, space.dimension)
        _blobs(writer, backend, connection, store, tell)
        chunk_set = stores.get_chunk_set(connection, generation.chunk_set_id)
        writer.manifest(
            Manifest(
                format="rag-store",
                version=1,
                created_at=int(time.time()),
                store=archive.StorePart(
                    name=store.name,
                    description=store.description,
                    metadata=dict(store.metadata),
                    chunking=store.chunking,  # type: ignore[arg-type]
                    expires_after_days=store.expires_after_days,
                ),
                space=archive.SpacePart(fingerprint=space.fingerprint, definition=space, calibration=calibration or {}),
                embedder=archive.EmbedderPart(alias=generation.embedder, build=generation.build),
                chunk_set=archive.ChunkSetPart(
                    fingerprint=chunk_set.fingerprint, settings=ChunkSettings(**chunk_set.settings)
                ),
                counts=counts,
                members=dict(writer.members),
            )
        )
    return counts


def _tables(
    writer: ArchiveWriter, connection: Connection, store: Store, generation: Generation, dimension: int
) -> Counts:
    return Counts(
        files=writer.lines("files.jsonl", _lines(archives.files_of(connection, store), _file)),
        documents=writer.lines("documents.jsonl", _lines(archives.documents_of(connection, store), _document)),
        versions=writer.lines("versions.jsonl", _lines(archives.versions_of(connection, store), _version)),
        chunks=writer.table(
            "chunks.parquet", archive.chunks_schema(), map(_chunks, archives.chunks_of(connection, store, generation))
        ),
        vectors=writer.table(
            "vectors.parquet", archive.vectors_schema(dimension), archives.vectors_of(connection, store, generation)
        ),
    )


def _blobs(writer: ArchiveWriter, backend: Backend, connection: Connection, store: Store, tell: Progress) -> None:
    originals = sorted({row["blob"] for rows in archives.files_of(connection, store) for row in rows})
    texts = sorted({row["text_blob"] for rows in archives.versions_of(connection, store) for row in rows})
    named = [("originals", key) for key in originals] + [("texts", key) for key in texts]
    for number, (folder, key) in enumerate(named):
        writer.blob(folder, key, backend.blobs.pieces(key))
        tell("files", number + 1, len(named))


def _lines(pages: Iterable[Rows], line: Callable[[Any], Any]) -> Iterator[Any]:
    return (line(row) for rows in pages for row in rows)


def _file(row: Any) -> FileLine:
    return FileLine(**{name: row[name] for name in FileLine.model_fields})


def _document(row: Any) -> DocumentLine:
    values = {name: row[name] for name in DocumentLine.model_fields if name != "file"}
    values["state"] = "queued" if row["state"] in ACTIVE else row["state"]
    return DocumentLine(file=row["file_id"], **values)


def _version(row: Any) -> VersionLine:
    values = {name: row[name] for name in VersionLine.model_fields if name not in ("document", "file", "text")}
    return VersionLine(document=row["document_id"], file=row["file_id"], text=row["text_blob"], **values)


def _chunks(rows: Rows) -> Sequence[dict[str, Any]]:
    return [
        {**row, "version": row["version_id"], "heading_path": json.dumps(row["heading_path"], ensure_ascii=False)}
        for row in rows
    ]
