"""Vector stores for a while: a store's documents again, split or embedded in another way, by the real pipeline."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from indexes.errors import TryLater
from ingest import intake
from ingest.intake import NewDocument
from rag.backend import Backend
from rag.catalog import documents, files, schema, stores
from rag.catalog.records import Document, PageRequest, Store

_GROUP = 100
_STALL_SECONDS = 900.0
_LOOK_EVERY = 0.1
_LOOK_SHARE = 20
"""Seconds between two looks for each that a look takes: in a large store it goes through many documents."""


def fill_scratch(
    backend: Backend,
    store: Store,
    *,
    embedder: str | None,
    chunking: Mapping[str, Any] | None,
    tell: Callable[[int, int], None] = lambda _ended, _total: None,
) -> Store:
    """A store of the same files, sources and permissions with another embedder (an alias), another chunking or both.

    One that is left from before is brought up to date. Texts that the space knows already are not embedded again. The
    jobs must be running, here or elsewhere. Raises TryLater (`stalled`) when nothing moves for a quarter of an hour.
    """
    alias = embedder or backend.live_generation(store).embedder
    chunking = chunking or store.chunking
    settings = json.dumps([store.public_id, asdict(backend.embedders.open(alias).space), chunking], sort_keys=True)
    name = f"experiment {store.name} {hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    scratch = intake.create_store(backend, name, embedder=alias, chunking=chunking, only_if_absent=True)
    sources: set[str] = set()
    for group in _groups(backend, store):
        sources.update(str(new.source) for new in group)
        intake.attach(backend, scratch, group)
    left = [document for document in _documents(backend, scratch) if document.source not in sources]
    intake.delete_documents(backend, left)
    await_end(backend, scratch, lambda ended: tell(ended, len(sources)))
    return scratch


def await_end(backend: Backend, store: Store, tell: Callable[[int], None]) -> None:
    """Wait until no document of a store wants work, telling how many have ended. Raises as `fill_scratch` does."""
    state, moved = (-1, -1), time.monotonic()
    embedded = sa.select(sa.func.sum(schema.documents.c.embedded)).where(schema.documents.c.store_id == store.id)
    while True:
        began = time.monotonic()
        with backend.database.read() as connection:
            counts = stores.count_documents(connection, backend.caller, [store.id])[store.id]
            vectors = connection.execute(embedded).scalar() or 0
        ended = counts.total - counts.in_progress
        tell(ended)
        if not counts.in_progress:
            return
        if (ended, vectors) != state:
            state, moved = (ended, vectors), time.monotonic()
        if time.monotonic() - moved > _STALL_SECONDS:
            raise TryLater(f"Ingestion stands still with {counts.in_progress} documents to go.", code="stalled")
        time.sleep(max(_LOOK_EVERY, _LOOK_SHARE * (time.monotonic() - began)))


def _documents(backend: Backend, store: Store) -> list[Document]:
    with backend.database.read() as connection:
        return list(documents.list_documents(connection, backend.caller, store, PageRequest(limit=1_000_000)).rows)


def _groups(backend: Backend, store: Store) -> Iterator[list[NewDocument]]:
    held = _documents(backend, store)
    for start in range(0, len(held), _GROUP):
        some = held[start : start + _GROUP]
        with backend.database.read() as connection:
            originals = [files.get_file(connection, backend.caller, one.file_public_id) for one in some]
        yield [
            NewDocument(
                file,
                one.source,
                one.attributes,
                owned=file.owned,
                permissions=one.permissions,
                chunking=one.chunking,
            )
            for one, file in zip(some, originals, strict=True)
        ]
