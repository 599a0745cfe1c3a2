"""Qdrant as a vector index and as a keyword index, one leg each: a scope of a collection behind the two contracts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.checks import checked_ids, checked_vectors
from indexes.errors import TryLater
from indexes.keyword import KeywordEntry
from indexes.qdrant_collection import Leg, Point, QdrantCollection, Scope
from indexes.vector import Hits, Ids, Vectors


class QdrantVectorIndex:
    """A `VectorIndex` over a scope of a collection that holds no words besides. Closing leaves the collection open."""

    def __init__(self, collection: QdrantCollection, scope: Scope) -> None:
        self.dimension = collection.dimension
        self._collection = collection
        self._scope = scope

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex.add`."""
        rows = checked_vectors(vectors, self.dimension)
        new = checked_ids(ids, len(rows)).tolist()
        self._collection.put(self._scope, [Point(id_, 0, 0, row) for id_, row in zip(new, rows, strict=True)])

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex.remove`."""
        self._collection.remove(ids)

    def search(self, query: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Hits:
        """See `VectorIndex.search`."""
        [hits] = self._collection.search(self._scope, [Leg(query, k)], allowed=allowed)
        return hits

    def scores(self, query: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
        """See `VectorIndex.scores`."""
        [scores] = self._collection.scores(self._scope, [(query, ids)])
        return scores

    def ids(self) -> Ids:
        """See `VectorIndex.ids`."""
        return np.concatenate([ids for ids, _ in self._collection.held(self._scope)])

    def __len__(self) -> int:
        return self._collection.count(self._scope)

    def memory(self) -> int:
        """See `VectorIndex.memory`: the engine has its own."""
        return 0

    def close(self) -> None:
        """See `VectorIndex.close`."""


class QdrantKeywordIndex:
    """A `KeywordIndex` over a scope of a collection that holds no vectors besides.

    Changes wait here for the commit; one that fails can be repeated. Closing leaves the collection open.
    """

    def __init__(self, collection: QdrantCollection, scope: Scope) -> None:
        self.average_words = collection.layout.average_words
        self._collection = collection
        self._scope = scope
        self._changes: dict[int, KeywordEntry | None] | None = {}
        """The newest text of each id that changed, None for one that was removed."""

    def add(self, entries: Sequence[KeywordEntry]) -> None:
        """See `KeywordIndex.add`. Raises ChangeRequest (`wrong_ids`) for an id below 1."""
        newest = {entry.id: entry for entry in entries}
        checked_ids(list(newest), len(newest))
        self._pending().update(newest)

    def remove(self, ids: Ids) -> None:
        """See `KeywordIndex.remove`."""
        self._pending().update(dict.fromkeys(np.asarray(ids).tolist()))

    def commit(self) -> None:
        """See `KeywordIndex.commit`."""
        pending = self._pending()
        new = [Point(e.id, 0, 0, text=e.text, heading=e.heading) for e in pending.values() if e is not None]
        self._collection.put(self._scope, new)
        self._collection.remove(np.array([id_ for id_, entry in pending.items() if entry is None], dtype=np.int64))
        pending.clear()

    def compact(self) -> bool:
        """See `KeywordIndex.compact`. The engine counts the points that are there, at each search."""
        return False

    def search(self, query: str, k: int, allowed: Ids | None = None) -> Hits:
        """See `KeywordIndex.search`."""
        [hits] = self._collection.search(self._scope, [Leg(query, k)], allowed=allowed)
        return hits

    def scores(self, query: str, ids: Ids) -> NDArray[np.float32]:
        """See `KeywordIndex.scores`."""
        [scores] = self._collection.scores(self._scope, [(query, ids)])
        return np.nan_to_num(scores)

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `KeywordIndex.contains`."""
        return self._collection.contains(self._scope, words, ids)

    def document_frequency(self, words: Sequence[str]) -> list[int]:
        """See `KeywordIndex.document_frequency`."""
        return self._collection.document_frequency(self._scope, words)

    def __len__(self) -> int:
        return self._collection.count(self._scope)

    def close(self) -> None:
        """See `KeywordIndex.close`. Changes that were not committed are dropped."""
        self._changes = None

    def _pending(self) -> dict[int, KeywordEntry | None]:
        if self._changes is None:
            raise TryLater("This keyword index was closed; open it again.", code="index_busy")
        return self._changes
