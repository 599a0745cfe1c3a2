"""Telling an engine of its own (`rag.remote`) what the catalog holds: points before the flip, changes after it.

Everything here is harmless when repeated. A version's points go before its rows do, so that a crash in between leaves a
version that is purged again; changes of attributes and deletions of stores are written down with the change
(`index_tasks`) and done again until the engine has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy.engine import Connection

from indexes.vector import Ids
from rag.backend import Backend
from rag.catalog import changes, chunks, index_tasks, stores
from rag.catalog.index_tasks import IndexTask
from rag.catalog.records import Generation
from rag.remote import RemoteIndex, is_remote


def write_versions(backend: Backend, generation: Generation, version_ids: Sequence[int], *, coming: bool) -> None:
    """Write the points of these versions, with the attributes of their documents: with `coming`, for versions that are
    to be published, those that go with them. Does nothing for a generation with a view."""
    remote = backend.remote(generation)
    if remote is None:
        return
    space = backend.space(generation)
    with backend.database.read() as connection:
        rows = changes.read_rows(connection, version_ids, generation.chunk_set_id, generation.space_id, space.dimension)
        for some in rows:
            _write(connection, remote, some, coming=coming)


def forget_versions(backend: Backend, store_of: Mapping[int, int]) -> None:
    """Remove the points of these versions (version to store). Raises TryLater when an engine is out of reach."""
    with backend.database.read() as connection:
        stores_here = sorted(set(store_of.values()))
        generations = [g for store_id in stores_here for g in _remote_generations(connection, store_id)]
    for generation in generations:
        versions = [version for version, owner in store_of.items() if owner == generation.store_id]
        backend.remotes.collection(generation.space_id).remove_versions(generation.store_id, versions)


def note_attributes(connection: Connection, store_id: int, document_ids: Sequence[int]) -> None:
    """Write down, with the change, that the engines of a store are to be told of these documents' attributes."""
    for generation in _remote_generations(connection, store_id):
        for document_id in document_ids:
            index_tasks.add(connection, generation.space_id, store_id, document_id)


def note_deletion(connection: Connection, store_id: int) -> None:
    """Write down, before a store's rows go, that its engines are to forget it."""
    for generation in _remote_generations(connection, store_id):
        index_tasks.add(connection, generation.space_id, store_id)


def settle(backend: Backend) -> None:
    """Tell the engines what was written down for them. Raises TryLater when one is out of reach: it stays written."""
    with backend.database.read() as connection:
        tasks = index_tasks.waiting(connection)
    done: list[int] = []
    try:
        for task in tasks:
            _tell(backend, task)
            done.append(task.id)
    finally:
        if done:
            with backend.database.write() as connection:
                index_tasks.cross_off(connection, done)


def reconcile(backend: Backend, generation: Generation) -> int:
    """Make an engine hold what the catalog does: remove what a crash left, write what is missing.

    Returns how many versions were written or removed. Reads every id that the engine has: for starting over an empty
    or restored engine.
    """
    remote = backend.remote(generation)
    if remote is None:
        return 0
    held: dict[int, int] = {}
    unknown: set[int] = set()
    for _, versions in remote.collection.held(remote.scope):
        numbers, counts = np.unique(versions, return_counts=True)
        with backend.database.read() as connection:
            known = changes.kept_versions(connection, numbers.tolist())
        # After the point was seen: its version's row was there before it, so that it is gone for good.
        unknown.update(set(numbers.tolist()) - known)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            held[number] = held.get(number, 0) + count
    if unknown:
        remote.collection.remove_versions(generation.store_id, sorted(unknown))
    with backend.database.read() as connection:
        visible = changes.visible_versions(connection, generation.store_id)
        wanted = chunks.count_by_version(connection, visible, generation.chunk_set_id)
    missing = [version for version in visible if held.get(version, 0) < wanted.get(version, 0)]
    for start in range(0, len(missing), 500):
        write_versions(backend, generation, missing[start : start + 500], coming=False)
    return len(missing) + len(unknown)


def reconcile_where_needed(backend: Backend) -> None:
    """Reconcile the generations whose engine holds another number of chunks than the catalog shows."""
    with backend.database.read() as connection:
        generations = [generation for generation in stores.all_generations(connection) if is_remote(generation)]
        shown = {g.id: chunks.count_visible(connection, g.store_id, g.chunk_set_id) for g in generations}
    for generation in generations:
        remote = backend.remote(generation)
        if remote is not None and remote.collection.count(remote.scope) != shown[generation.id]:
            reconcile(backend, generation)


def _tell(backend: Backend, task: IndexTask) -> None:
    collection = backend.remotes.collection(task.space_id)
    if task.document_id is None:
        collection.remove_store(task.store_id)
        return
    told = None
    # Again when they changed meanwhile: another process may have told the engine the newer ones before us.
    while (now := _attributes(backend, task.document_id)) != told:
        collection.set_attributes(task.store_id, task.document_id, *now)
        told = now


def _write(connection: Connection, remote: RemoteIndex, rows: changes.ViewRows, *, coming: bool) -> None:
    from indexes.qdrant_collection import Point

    texts = {number: (text, heading) for number, text, heading in changes.read_texts(connection, _numbers(rows.ids))}
    documents = sorted(set(_numbers(rows.document_ids)))
    attributes = changes.read_attributes(connection, documents, coming=coming)
    tags = changes.read_tags(connection, documents, coming=coming)
    points = [
        Point(
            number,
            document,
            version,
            vector,
            *texts[number],
            attributes.get(document, {}),
            tags.get(document, frozenset()),
        )
        for number, document, version, vector in zip(
            _numbers(rows.ids), _numbers(rows.document_ids), _numbers(rows.version_ids), rows.vectors, strict=True
        )
    ]
    remote.collection.put(remote.scope, points)


def _numbers(ids: Ids) -> list[int]:
    return [int(number) for number in ids]


def _attributes(backend: Backend, document_id: int) -> tuple[Mapping[str, str | float | bool], frozenset[str]]:
    """A document's attributes and tags."""
    with backend.database.read() as connection:
        attributes = changes.read_attributes(connection, [document_id]).get(document_id, {})
        return attributes, changes.read_tags(connection, [document_id]).get(document_id, frozenset())


def _remote_generations(connection: Connection, store_id: int) -> list[Generation]:
    return [generation for generation in stores.generations_of(connection, store_id) if is_remote(generation)]
