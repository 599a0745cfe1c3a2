"""Telling an engine of its own (`rag.remote`) what the catalog holds: points before the flip, changes after it.

Everything here is harmless when repeated. A version's points go before its rows do, so that a crash in between leaves a
version that is purged again; changes of attributes and deletions of stores are written down with the change
(`index_tasks`) and done again until the engine has them. Whoever has written points looks at the catalog again: what
was purged or changed while they were on their way is put right. What a crash or the engine itself takes from all this
is found when both are compared (`reconcile_where_needed`), at the start and now and then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy.engine import Connection

from indexes.errors import TryLater
from indexes.vector import Ids
from rag.backend import Backend
from rag.catalog import changes, chunks, generations, index_tasks, purge
from rag.catalog.index_tasks import IndexTask
from rag.catalog.records import FOLLOWING, Generation
from rag.context import Scalar
from rag.remote import RemoteIndex, is_remote

if TYPE_CHECKING:
    from indexes.qdrant_collection import QdrantCollection

log = logging.getLogger(__name__)

VERSIONS_AT_ONCE, CHUNKS_AT_ONCE = 500, 4_000
"""Written between two looks at the catalog while an engine is filled."""
Said = tuple[Mapping[str, Scalar], frozenset[str]]
"""What an engine is told of a document: its attributes and tags."""
Progress = Callable[[int, int], None]
"""Told how many chunks are written of how many that an engine lacked."""


def write_versions(backend: Backend, generation: Generation, version_ids: Sequence[int], *, coming: bool) -> None:
    """Write the points of these versions, with the attributes of their documents: with `coming`, for versions that are
    to be published, those that go with them. Does nothing for a generation with a view."""
    remote = backend.remote(generation)
    if remote is None:
        return
    space = backend.space(generation)
    written: dict[int, Said] = {}
    with backend.database.read() as connection:
        rows = changes.read_rows(connection, version_ids, generation.chunk_set_id, generation.space_id, space.dimension)
        for some in rows:
            written |= _write(connection, remote, some, coming=coming)
    with backend.database.read() as connection:
        # They were purged, with the points that were there then, before the last of ours came.
        gone = purge.over_or_gone(connection, version_ids)
        now = {} if coming else _said(connection, sorted(written))
    if gone:
        remote.collection.remove_versions(generation.store_id, sorted(gone))
    for document_id in (document for document, said in now.items() if said != written[document]):
        _tell_attributes(backend, remote.collection, generation.store_id, document_id)


def forget_versions(backend: Backend, store_of: Mapping[int, int]) -> None:
    """Remove the points of these versions (version to store). Raises TryLater when an engine is out of reach."""
    with backend.database.read() as connection:
        stores_here = sorted(set(store_of.values()))
        remote = [g for store_id in stores_here for g in _remote_generations(connection, store_id)]
    for generation in remote:
        versions = [version for version, owner in store_of.items() if owner == generation.store_id]
        backend.remotes.collection(generation.space_id).remove_versions(generation.store_id, versions)


def forget_scope(backend: Backend, generation: Generation) -> None:
    """Remove a generation's points, under its way of splitting. Raises TryLater when the engine is out of reach."""
    from indexes.qdrant_collection import Scope

    collection = backend.remotes.collection(generation.space_id)
    collection.remove_scope(Scope(generation.store_id, generation.chunk_set_id))


def note_attributes(connection: Connection, store_id: int, document_ids: Sequence[int]) -> None:
    """Write down, with the change, that the engines of a store are to be told of these documents' attributes."""
    for space_id in sorted({generation.space_id for generation in _remote_generations(connection, store_id)}):
        for document_id in document_ids:
            index_tasks.add(connection, space_id, store_id, document_id)


def note_deletion(connection: Connection, store_id: int) -> None:
    """Write down, before a store's rows go, that its engines are to forget it."""
    remote = (found for found in generations.generations_of(connection, store_id) if is_remote(found))
    for space_id in sorted({generation.space_id for generation in remote if not generation.emptied}):
        index_tasks.add(connection, space_id, store_id)


def settle(backend: Backend) -> None:
    """Tell the engines what was written down for them. What one that is out of reach is still to be told stays written.

    Raises TryLater when a live generation lies in that one, or a store is to be forgotten there.
    """
    with backend.database.read() as connection:
        tasks = index_tasks.waiting(connection)
        live = {(found.space_id, found.store_id) for found in _all_remote(connection) if found.state == "live"}
    done: list[int] = []
    try:
        for task in tasks:
            try:
                _tell(backend, task)
            except TryLater as error:
                if task.document_id is None or (task.space_id, task.store_id) in live:
                    raise
                log.warning("a generation that is not live is told of a change later: %s", error)
            else:
                done.append(task.id)
    finally:
        if done:
            with backend.database.write() as connection:
                index_tasks.cross_off(connection, done)


def reconcile(backend: Backend, generation: Generation, tell: Progress = lambda *_: None) -> int:
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
        through = generations.require_place(connection, generation).through
        visible = changes.visible_versions(connection, generation.store_id, through)
        wanted = chunks.count_by_version(connection, visible, generation.chunk_set_id)
    missing = [version for version in visible if held.get(version, 0) < wanted.get(version, 0)]
    total, done = sum(wanted[version] for version in missing), 0
    for some in _stretches(missing, wanted):
        tell(done, total)
        write_versions(backend, generation, some, coming=False)
        done += sum(wanted[version] for version in some)
    tell(done, total)
    return len(missing) + len(unknown)


def reconcile_where_needed(backend: Backend, tell: Progress = lambda *_: None) -> None:
    """Reconcile the generations whose engine holds another number of chunks than the catalog shows; make collections
    that are gone again, and forget stores whose deletion came before the last of their points."""
    with backend.database.read() as connection:
        spaces = {generation.space_id for generation in _all_remote(connection)}
    held = {space_id: backend.remotes.collection(space_id, anew=True).stores() for space_id in sorted(spaces)}
    # After the points were seen: a store was there before them, so that one that is not there now is gone for good.
    with backend.database.read() as connection:
        remote = _all_remote(connection)
        shown = Counter[tuple[int, int]]()
        for space_id, store_id, chunk_set_id in {(one.space_id, one.store_id, one.chunk_set_id) for one in remote}:
            shown[space_id, store_id] += chunks.count_visible(connection, store_id, chunk_set_id)
    for space_id, points in held.items():
        for store_id in sorted(points.keys() - {one.store_id for one in remote}):
            backend.remotes.collection(space_id).remove_store(store_id)
    for one in remote:
        if held.get(one.space_id, {}).get(one.store_id, 0) != shown[one.space_id, one.store_id]:
            reconcile(backend, one, tell)


def _stretches(versions: Sequence[int], sizes: Mapping[int, int]) -> Iterator[list[int]]:
    some: list[int] = []
    for version in versions:
        if some and (len(some) == VERSIONS_AT_ONCE or sum(sizes[v] for v in some) >= CHUNKS_AT_ONCE):
            yield some
            some = []
        some.append(version)
    if some:
        yield some


def _tell(backend: Backend, task: IndexTask) -> None:
    collection = backend.remotes.collection(task.space_id)
    if task.document_id is None:
        collection.remove_store(task.store_id)
    else:
        _tell_attributes(backend, collection, task.store_id, task.document_id)


def _tell_attributes(backend: Backend, collection: QdrantCollection, store_id: int, document_id: int) -> None:
    told = None
    # Again when they changed meanwhile: another process may have told the engine the newer ones before us.
    while (now := _now(backend, document_id)) != told:
        collection.set_attributes(store_id, document_id, *now)
        told = now


def _write(connection: Connection, remote: RemoteIndex, rows: changes.ViewRows, *, coming: bool) -> Mapping[int, Said]:
    """Write these rows' points. Returns the attributes and tags that they were given, by document."""
    from indexes.qdrant_collection import Point

    texts = {number: (text, heading) for number, text, heading in changes.read_texts(connection, _numbers(rows.ids))}
    said = _said(connection, sorted(set(_numbers(rows.document_ids))), coming=coming)
    points = [
        Point(number, document, version, vector, *texts[number], *said[document])
        for number, document, version, vector in zip(
            _numbers(rows.ids), _numbers(rows.document_ids), _numbers(rows.version_ids), rows.vectors, strict=True
        )
    ]
    remote.collection.put(remote.scope, points)
    return said


def _said(connection: Connection, documents: Sequence[int], *, coming: bool = False) -> dict[int, Said]:
    attributes = changes.read_attributes(connection, documents, coming=coming)
    tags = changes.read_tags(connection, documents, coming=coming)
    return {document: (attributes.get(document, {}), tags.get(document, frozenset())) for document in documents}


def _now(backend: Backend, document_id: int) -> Said:
    with backend.database.read() as connection:
        return _said(connection, [document_id])[document_id]


def _numbers(ids: Ids) -> list[int]:
    return [int(number) for number in ids]


def _remote_generations(connection: Connection, store_id: int) -> list[Generation]:
    return [found for found in generations.generations_of(connection, store_id, FOLLOWING) if is_remote(found)]


def _all_remote(connection: Connection) -> list[Generation]:
    return [found for found in generations.all_generations(connection, FOLLOWING) if is_remote(found)]
