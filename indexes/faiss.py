"""The default vector index: FAISS in memory, exact.

FAISS numbers its vectors by row and knows nothing of ids, deletions or ties, so all three are kept here. Removing a row
would move all that follow (94 ms at a million): a removed row stays as a tombstone, until a third of all are.

FAISS scans a copy in half precision, which is bound by half the memory and goes about five times as fast as
`IndexFlatIP` (0.7 against 3.8 ms over 26,575 vectors of 384 dimensions). What it finds is only proposed: how far half
precision can stray is known, whatever lies within that of the k-th is kept, and the cosines are computed from the
vectors themselves. So the result is exact.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.checks import (
    best,
    checked_count,
    checked_dimension,
    checked_ids,
    checked_query,
    checked_vectors,
    cosines,
)
from indexes.locks import ReadWriteLock
from indexes.vector import Hits, Ids, Vectors

GATHER_COUNT = 5_000
GATHER_SHARE = 0.05
"""At most this many allowed rows, or this share of all, are gathered and multiplied instead of masked in FAISS."""

STRAY = 1.5e-3
"""How far two products in half precision may stray from their cosines, together, and then some: a value loses at most
2**-11 of itself (or 2**-25 below 2**-14), so by Cauchy and Schwarz a product of unit vectors loses at most 5e-4."""

EXTRA = 48
"""Hits fetched beyond k, so that those near the k-th seldom need a second look."""

GROWTH = 1.25
"""By how much the memory for vectors grows when it is full."""

Rows = NDArray[np.int64]

_FAISS: Any = faiss  # its stubs leave out what its Python layer adds


class FaissIndex:
    """A `VectorIndex` on `IndexScalarQuantizer` with 16 bits a value.

    FAISS crashes when it is searched during an addition, and its calls release the interpreter's lock: hence the lock.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = checked_dimension(dimension)
        self._lock = ReadWriteLock()
        self._index = self._empty()
        self._matrix: Vectors = np.empty((0, dimension), dtype=np.float32)
        """The vector of each row, tombstones included; there may be more rows than are in use."""
        self._ids: Ids = np.empty(0, dtype=np.int64)
        """What is in the index, ascending."""
        self._rows: Rows = np.empty(0, dtype=np.int64)
        """The row of each of `_ids`."""
        self._owners: Ids = np.empty(0, dtype=np.int64)
        """The id of each row; 0 for a tombstone."""

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex.add`."""
        rows = checked_vectors(vectors, self.dimension)
        new = checked_ids(ids, len(rows))
        order = np.argsort(new)
        new, rows = new[order], rows[order]
        with self._lock.writing():
            self._forget(new)
            places = np.searchsorted(self._ids, new)
            self._rows = np.insert(self._rows, places, len(self._owners) + np.arange(len(new)))
            self._ids = np.insert(self._ids, places, new)
            self._keep(rows)
            self._owners = np.concatenate([self._owners, new])
            self._index.add(rows)
            self._compact()

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex.remove`."""
        with self._lock.writing():
            self._forget(np.asarray(ids, dtype=np.int64))
            self._compact()

    def search(self, query: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Hits:
        """See `VectorIndex.search`."""
        vector, k = checked_query(query, self.dimension), checked_count(k)
        with self._lock.reading():
            rows = self._rows if allowed is None else self._rows[self._places(np.asarray(allowed, dtype=np.int64))]
            near = self._near(vector, min(k, len(rows)), rows)
            return best(self._owners[near], cosines(self._matrix[near], vector), k)

    def scores(self, query: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
        """See `VectorIndex.scores`."""
        vector, wanted = checked_query(query, self.dimension), np.asarray(ids, dtype=np.int64)
        scores = np.full(len(wanted), np.nan, dtype=np.float32)
        with self._lock.reading():
            places = np.searchsorted(self._ids, wanted)
            there = self._is_at(places, wanted)
            scores[there] = cosines(self._matrix[self._rows[places[there]]], vector)
        return scores

    def ids(self) -> Ids:
        """See `VectorIndex.ids`."""
        with self._lock.reading():
            return self._ids.copy()

    def __len__(self) -> int:
        return len(self._ids)

    def close(self) -> None:
        """See `VectorIndex.close`."""
        self.remove(self.ids())

    def _empty(self) -> Any:
        return _FAISS.IndexScalarQuantizer(self.dimension, _FAISS.ScalarQuantizer.QT_fp16, _FAISS.METRIC_INNER_PRODUCT)

    def _keep(self, rows: Vectors) -> None:
        """Write new rows behind those in use."""
        used, total = len(self._owners), len(self._owners) + len(rows)
        if total > len(self._matrix):
            larger = np.empty((max(total, int(GROWTH * used)), self.dimension), dtype=np.float32)
            larger[:used] = self._matrix[:used]
            self._matrix = larger
        self._matrix[used:total] = rows

    def _is_at(self, places: Rows, ids: Ids) -> NDArray[np.bool_]:
        if not len(self._ids):
            return np.zeros(len(ids), dtype=bool)
        found: NDArray[np.bool_] = self._ids[np.minimum(places, len(self._ids) - 1)] == ids
        return found

    def _places(self, ids: Ids) -> Rows:
        """Where in `_ids` those of `ids` stand that are there, without repetition."""
        places = np.searchsorted(self._ids, ids)
        return np.unique(places[self._is_at(places, ids)])

    def _forget(self, ids: Ids) -> None:
        places = self._places(ids)
        self._owners[self._rows[places]] = 0
        self._ids, self._rows = np.delete(self._ids, places), np.delete(self._rows, places)

    def _compact(self) -> None:
        if 3 * (len(self._owners) - len(self._ids)) <= len(self._owners):
            return
        self._matrix = self._matrix[self._rows]
        self._index = self._empty()
        self._index.add(self._matrix)
        self._rows, self._owners = np.arange(len(self._ids)), self._ids.copy()

    def _near(self, vector: NDArray[np.float32], k: int, rows: Rows) -> Rows:
        """Those of `rows` that are the k nearest or might tie with the k-th, in any order."""
        if k in (0, len(rows)):
            return rows[:k]
        if len(rows) < len(self._rows) and len(rows) <= max(GATHER_COUNT, GATHER_SHARE * len(self._owners)):
            products = self._matrix[rows] @ vector
            near: Rows = rows[products >= np.partition(products, -k)[-k] - STRAY]
            return near
        return self._near_in_index(vector, k, rows)

    def _near_in_index(self, vector: NDArray[np.float32], k: int, rows: Rows) -> Rows:
        """As `_near`, by FAISS: unmasked where nothing is to be left out but tombstones, which is twice as fast."""
        dead = len(self._owners) - len(self._ids)
        options, most = (None, len(self._owners)) if len(rows) == len(self._ids) else (self._only(rows), len(rows))
        wanted = k + EXTRA + min(dead if options is None else 0, k)
        while True:
            [scores], [found] = self._index.search(vector[None, :], min(wanted, most), params=options)
            living = self._owners[found] > 0
            if living.sum() >= k:
                floor = scores[living][k - 1] - STRAY
                if len(found) == most or scores[-1] < floor:
                    return np.asarray(found[living & (scores >= floor)], dtype=np.int64)
            wanted *= 4

    def _only(self, rows: Rows) -> Any:
        mask = np.zeros(len(self._owners), dtype=bool)
        mask[rows] = True
        bits = np.packbits(mask, bitorder="little")
        selector = _FAISS.IDSelectorBitmap(len(bits), _FAISS.swig_ptr(bits))
        options = _FAISS.SearchParameters(sel=selector)
        options.bits = bits  # FAISS keeps a bare pointer to them
        return options
