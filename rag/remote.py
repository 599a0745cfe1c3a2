"""Generations whose indexes lie in an engine of their own (Qdrant): written before the catalog shows a version, cleaned
after it retires one. What the engine proposes and the catalog does not show falls out of every result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexes import REMOTE_INDEXES, require_remote_index
from indexes.errors import ChangeRequest
from indexes.filters import AnyTag, Filter, permitted, require_known
from indexes.vector import Ids
from rag.access import Caller
from rag.catalog import documents
from rag.catalog.database import Database, incarnation
from rag.catalog.records import Generation
from rag.fusion import Scored
from rag.searchable import Scores, Statistics, Tags, Vector, both_legs
from rag.settings import QdrantSettings, Settings, secret
from rag.spaces import Space

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from indexes.qdrant_collection import QdrantCollection, Scope
    from indexes.qdrant_connection import QdrantConnection

_NOTHING: Scores = np.empty(0, dtype=np.float32)
COUNTED_FOR = 10.0
"""Seconds for which a count of chunks is good enough: it only weighs words."""
LEFT_ALONE = 60.0
"""Seconds for which an engine that was out of reach is not told of changes that can wait."""


class RemoteIndex:
    """One generation in a collection: a `Searchable`."""

    def __init__(self, collection: QdrantCollection, generation: Generation, database: Database) -> None:
        from indexes.qdrant_collection import Scope

        self.collection = collection
        self.scope: Scope = Scope(generation.store_id, generation.chunk_set_id)
        self._generation = generation
        self._database = database
        self._counted = 0, -COUNTED_FOR
        self._seen: dict[tuple[str, int | None], int] = {}
        """A document that has an attribute of this name and kind."""

    def search(
        self, vector: Vector | None, words: str | None, condition: Filter | None, depth: int, tags: Tags
    ) -> Scored:
        """See `Searchable.search`. Both legs go in one request, and in another what one leg lacks of the other's."""
        from indexes.qdrant_collection import Leg

        if condition is not None and not self._can_judge(condition, tags):
            return both_legs(None, None, lambda *_: (_NOTHING, _NOTHING))
        seen = None if tags is None else AnyTag(tags)
        condition = condition if tags is None else permitted(tags, condition)
        dense_query = vector() if vector is not None else None
        queries = [query for query in (dense_query, words) if query is not None]
        found = iter(self.collection.search(self.scope, [Leg(query, depth) for query in queries], condition, seen=seen))
        dense = next(found) if vector is not None else None
        keyword = next(found) if words is not None else None

        def rescore(no_dense: Ids, no_keyword: Ids) -> tuple[Scores, Scores]:
            wanted = [
                (query, ids) for query, ids in ((dense_query, no_dense), (words, no_keyword)) if query is not None
            ]
            scores = iter(self.collection.scores(self.scope, wanted, seen))
            dense_scores = next(scores) if vector is not None else _NOTHING
            return dense_scores, np.nan_to_num(next(scores)) if words is not None else _NOTHING

        return both_legs(dense, keyword, rescore)

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `Searchable.contains`."""
        return self.collection.contains(self.scope, words, ids)

    def statistics(self, words: Sequence[str], tags: Tags) -> Statistics:
        """See `Searchable.statistics`."""
        if tags is None:
            return len(self), self.collection.document_frequency(self.scope, words)
        seen = AnyTag(tags)
        return self.collection.count(self.scope, seen), self.collection.document_frequency(self.scope, words, seen)

    def __len__(self) -> int:
        number, at = self._counted
        if time.monotonic() - at > COUNTED_FOR:
            number = self.collection.count(self.scope)
            self._counted = number, time.monotonic()
        return number

    def _can_judge(self, condition: Filter, tags: Tags) -> bool:
        """An index in memory knows what the documents' attributes are; here the catalog is asked.

        False without any document that the caller may see. Raises ChangeRequest as `require_known` does.
        """
        store, caller = self._generation.store_id, Caller(self._generation.tenant, permissions=tags)
        with self._database.read() as connection:
            if not documents.any_answers(connection, caller, store):
                return False
            require_known(
                condition,
                lambda key, kind: self._has(connection, caller, key, kind),
                lambda: documents.attribute_kinds(connection, caller, store),
            )
        return True

    def _has(self, connection: Connection, caller: Caller, key: str, kind: int | None) -> bool:
        """Whether a document has such an attribute: the one that had it the last time, or else any."""
        store, last = self._generation.store_id, self._seen.get((key, kind))
        if last is None or documents.find_attribute(connection, caller, store, key, kind, last) is None:
            found = documents.find_attribute(connection, caller, store, key, kind)
            if found is None:
                return False
            self._seen[key, kind] = found
        return True


class RemoteIndexes:
    """The engines of an installation, reached when the first generation that lies in one is asked for."""

    def __init__(
        self, settings: QdrantSettings, folder: Path, database: Database, space_of: Callable[[int], Space]
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._database = database
        self._space_of = space_of
        self._lock = Lock()
        self._connection: QdrantConnection | None = None
        self._collections: dict[int, QdrantCollection] = {}
        self._open: dict[int, RemoteIndex] = {}
        self._out_of_reach: dict[int, float] = {}

    def note_out_of_reach(self, space_id: int) -> None:
        """Leave the engine of a space alone for a while."""
        self._out_of_reach[space_id] = time.monotonic()

    def is_left_alone(self, space_id: int) -> bool:
        """Whether the engine of a space was out of reach a moment ago."""
        return time.monotonic() - self._out_of_reach.get(space_id, -LEFT_ALONE) < LEFT_ALONE

    def of(self, generation: Generation) -> RemoteIndex:
        """A generation's index. Raises TryLater when the engine is out of reach, and what `ensure` raises."""
        with self._lock:
            found = self._open.get(generation.id)
        if found is None:
            found = RemoteIndex(self.collection(generation.space_id), generation, self._database)
            with self._lock:
                found = self._open.setdefault(generation.id, found)
        return found

    def collection(self, space_id: int, *, anew: bool = False) -> QdrantCollection:
        """The collection of a vector space, made if it is not there: seen to once, or `anew`."""
        with self._lock:
            found = self._collections.get(space_id)
        if found is not None and not anew:
            return found
        # Without the lock: who waits for an engine must not keep others from what is open.
        made = found or self._made(self._space_of(space_id))
        made.ensure()
        with self._lock:
            return self._collections.setdefault(space_id, made)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._collections.clear()
            self._open.clear()
        if connection is not None:
            connection.close()

    def _made(self, space: Space) -> QdrantCollection:
        require_remote_index("qdrant")
        from indexes.qdrant_collection import QdrantCollection, QdrantEffort, QdrantLayout

        with self._database.read() as connection:
            owner = incarnation(connection)
        layout = {name: getattr(self._settings, name) for name in QdrantLayout.__dataclass_fields__ if name in _SET}
        effort = {name: getattr(self._settings, name) for name in QdrantEffort.__dataclass_fields__}
        return QdrantCollection(
            self._connected(),
            owner,
            space.fingerprint,
            space.dimension,
            QdrantLayout(**layout),
            QdrantEffort(**effort),
            self._settings.prefix,
        )

    def _connected(self) -> QdrantConnection:
        with self._lock:
            if self._connection is None:
                self._connection = _connection(self._settings, self._folder)
            return self._connection


_SET = frozenset(QdrantSettings.model_fields)


def _connection(settings: QdrantSettings, folder: Path) -> QdrantConnection:
    from indexes.qdrant_connection import QdrantConnection, QdrantPlace

    key = secret(settings.api_key)
    return QdrantConnection(
        QdrantPlace(settings.url, key, folder if settings.url is None else None, settings.timeout_seconds)
    )


def answering_engine(settings: Settings) -> str | None:
    """Where the server of new stores' indexes is, once it has answered; None where they need no server.

    Raises as `RemoteIndexes.of` does.
    """
    if settings.vector_index not in REMOTE_INDEXES or settings.qdrant.url is None:
        return None
    with closing(_connection(settings.qdrant, settings.data)) as connection:
        connection.require_usable()
        return connection.where


def is_remote(generation: Generation) -> bool:
    """Whether a generation's indexes are written by whoever publishes, instead of following the catalog."""
    return generation.vector_index in REMOTE_INDEXES


def require_together(vector_index: str, keyword_index: str) -> None:
    """Refuse one leg in an engine of its own and the other one here. Raises ChangeRequest (`bad_settings`)."""
    if vector_index != keyword_index and {vector_index, keyword_index} & REMOTE_INDEXES.keys():
        raise ChangeRequest(
            f"The vector index {vector_index!r} and the keyword index {keyword_index!r} do not go together. An engine "
            "of its own serves both legs: name it for both.",
            code="bad_settings",
        )
