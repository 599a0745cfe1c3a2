"""The reference vector index: NumPy, exact, everything compared with everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.checks import best, checked_count, checked_dimension, checked_ids, checked_query, checked_vectors, cosines
from indexes.vector import Hits, Ids, Vectors


class FlatIndex:
    """A `VectorIndex` that is plainly right. A change copies everything: for comparison and for small stores.

    `_held` is replaced whole and never changed, so that a search beside a change sees one state or the other.
    """

    def __init__(self, dimension: int, _folder: Path | None = None, _shared: Path | None = None) -> None:
        self.dimension = checked_dimension(dimension)
        self._held: tuple[Ids, Vectors] = self._nothing()

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex.add`."""
        rows = checked_vectors(vectors, self.dimension)
        new = checked_ids(ids, len(rows))
        held, matrix = self._without(new)
        together = np.concatenate([held, new])
        order = np.argsort(together)
        self._held = together[order], np.concatenate([matrix, rows])[order]

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex.remove`."""
        self._held = self._without(np.asarray(ids, dtype=np.int64))

    def search(self, query: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Hits:
        """See `VectorIndex.search`."""
        vector, k = checked_query(query, self.dimension), checked_count(k)
        ids, matrix = self._held
        if allowed is not None:
            mask = np.isin(ids, allowed)
            ids, matrix = ids[mask], matrix[mask]
        return best(ids, cosines(matrix, vector), k)

    def scores(self, query: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
        """See `VectorIndex.scores`."""
        vector = checked_query(query, self.dimension)
        held, matrix = self._held
        score_of = dict(zip(held.tolist(), cosines(matrix, vector).tolist(), strict=True))
        return np.array([score_of.get(int(id_), np.nan) for id_ in ids], dtype=np.float32)

    def ids(self) -> Ids:
        """See `VectorIndex.ids`."""
        return self._held[0].copy()

    def __len__(self) -> int:
        return len(self._held[0])

    def memory(self) -> int:
        """See `VectorIndex.memory`."""
        return sum(array.nbytes for array in self._held)

    def close(self) -> None:
        """See `VectorIndex.close`."""
        self._held = self._nothing()

    def _nothing(self) -> tuple[Ids, Vectors]:
        return np.empty(0, dtype=np.int64), np.empty((0, self.dimension), dtype=np.float32)

    def _without(self, ids: Ids) -> tuple[Ids, Vectors]:
        held, matrix = self._held
        keep = ~np.isin(held, ids)
        return held[keep], matrix[keep]
