"""The two forms of the FAISS index: a scan that proposes every near row, and lists that propose most of them.

A form knows rows and vectors only. What it proposes is ranked by approximate products; `stray` says how far two of
those may be from the cosines, together. The cosines themselves are computed elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.background import GoOn
from indexes.vector import Vectors
from indexes.vector_rows import Rows

PIECE = 4_096
"""Vectors that are worked on at a time, so that the work can be given up in between."""

LOOKED_INTO = 128
"""A search compares as many vectors as so many lists hold on average."""

MASKED = 4
"""So many times as many where only some are wanted: those lie farther from a query and in more lists, and leaving out
the others takes longer than comparing."""

LISTS_PER_ROOT = 4.0
"""Lists per square root of the number of vectors: 4,000 for a million."""

SAMPLE_PER_LIST = 40
ROUNDS = 8
"""What the lists are trained on, and how often: vectors per list, rounds of k-means."""

RANGE = 4.0
"""A value is quantised within this many times its mean size at least, and within what the sample needs."""

_FAISS: Any = faiss  # its stubs leave out what its Python layer adds
_BY_PRODUCT = _FAISS.METRIC_INNER_PRODUCT

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Scan:
    """Every vector in half precision, compared one after another.

    Bound by half the memory it goes about five times as fast as `IndexFlatIP` (0.7 against 3.8 ms over 26,575 vectors
    of 384 dimensions). A row that was dropped is still compared: its owner knows.
    """

    stray = 1.5e-3
    """A value loses at most 2**-11 of itself (or 2**-25 below 2**-14), so by Cauchy and Schwarz a product of unit
    vectors loses at most 5e-4, two of them 1e-3; and then some."""

    def __init__(self, dimension: int) -> None:
        kind = _FAISS.ScalarQuantizer.QT_fp16
        self._index = _FAISS.IndexScalarQuantizer(dimension, kind, _BY_PRODUCT)

    def prepared(self, vectors: Vectors) -> Any:
        """These vectors as `put` needs them; this may be done beside searches."""
        with one_thread():
            return self._index.sa_encode(vectors)

    def put(self, rows: Rows, prepared: Any) -> None:
        """Take in these rows, whatever was in them."""
        missing = int(rows.max(initial=-1)) + 1 - self._index.ntotal
        if missing > 0:
            self._index.add(np.zeros((missing, self._index.d), dtype=np.float32))
        size = self._index.code_size
        codes = _FAISS.rev_swig_ptr(self._index.codes.data(), self._index.ntotal * size).reshape(-1, size)
        codes[rows] = prepared

    def drop(self, rows: Rows) -> None:
        """Nothing: see the class."""

    def search(self, vector: Scores, count: int, mask: Mask | None) -> tuple[Scores, Rows]:
        """The `count` best rows, best first; fewer where there are no more.

        `mask` says of each row whether it is wanted. None means all, those that were dropped too.
        """
        options = None if mask is None else _FAISS.SearchParameters(sel=_selector(mask))
        with one_thread():
            [scores], [found] = self._index.search(vector[None, :], min(count, self._index.ntotal), params=options)
        return scores[found >= 0], found[found >= 0]


class Lists:
    """Vectors in lists about centroids, 8 bits a value, of which a search compares the nearest lists only.

    How many lists depends on what is in them and allowed: so many that enough vectors are compared. What is dropped
    is gone.
    """

    def __init__(self, centroids: Vectors, sample: Vectors, made_for: int) -> None:
        """`made_for` is how many vectors are expected."""
        self.made_for = made_for
        count, dimension = centroids.shape
        self._centroids = centroids
        self._quantizer = _FAISS.IndexFlatIP(dimension)
        self._quantizer.add(centroids)
        kind = _FAISS.ScalarQuantizer.QT_8bit
        self._index = _FAISS.IndexIVFScalarQuantizer(self._quantizer, dimension, count, kind, _BY_PRODUCT, True)
        self._index.set_direct_map_type(_FAISS.DirectMap.Hashtable)
        self._set_range(sample)
        self._list_of: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        """The list of each row; -1 for one that is in none."""
        self._sizes = np.zeros(count, dtype=np.int64)
        self.stray = 2 * self._farthest_stray(sample)

    def prepared(self, vectors: Vectors) -> Any:
        """As `Scan.prepared`: with the list of each, which takes longer than all the rest."""
        return vectors, self._nearest_list(vectors)

    def put(self, rows: Rows, prepared: Any) -> None:
        """As `Scan.put`; there must be nothing in these rows."""
        missing = int(rows.max(initial=-1)) + 1 - len(self._list_of)
        if missing > 0:
            room = np.full(max(missing, len(self._list_of) // 4), -1, dtype=np.int32)
            self._list_of = np.concatenate([self._list_of, room])
        vectors, lists = prepared
        self._list_of[rows] = lists
        self._sizes += np.bincount(lists, minlength=len(self._sizes))
        with one_thread():
            self._index.add_core(len(rows), *(_FAISS.swig_ptr(array) for array in (vectors, rows, lists)))

    def drop(self, rows: Rows) -> None:
        """Forget those of these rows that are there."""
        rows = rows[rows < len(self._list_of)]
        rows = rows[self._list_of[rows] >= 0]
        self._sizes -= np.bincount(self._list_of[rows], minlength=len(self._sizes))
        self._list_of[rows] = -1
        self._index.remove_ids(rows)

    def search(self, vector: Scores, count: int, mask: Mask | None) -> tuple[Scores, Rows]:
        """As `Scan.search`, of the nearest lists only; but `count` are found where there are so many."""
        inside, compared = self._sizes, LOOKED_INTO * int(self._sizes.sum()) // len(self._sizes)
        if mask is not None:
            compared *= MASKED
            inside = np.bincount(self._list_of[: len(mask)][mask[: len(self._list_of)]], minlength=len(inside))
        products, nearest = self._nearest_holding(vector, inside, max(compared, 4 * count))
        only = {} if mask is None else {"sel": _selector(mask)}
        options = _FAISS.IVFSearchParameters(nprobe=len(nearest), **only)
        scores, found = self._search_in(nearest, products, vector, count, options)
        return scores[found >= 0], found[found >= 0]

    def _nearest_holding(self, vector: Scores, inside: Rows, wanted: int) -> tuple[Scores, Rows]:
        """The nearest lists, as many as together hold `wanted` of what is inside each, or all that hold anything."""
        expected = 2 * len(inside) * wanted // max(int(inside.sum()), 1) + 1
        for count in (min(expected, len(inside)), len(inside)):
            with one_thread():
                [products], [nearest] = self._quantizer.search(vector[None, :], count)
            held = np.cumsum(inside[nearest])
            if held[-1] >= wanted:
                break
        enough = nearest[: np.searchsorted(held, wanted) + 1]
        holding = inside[enough] > 0
        return products[: len(enough)][holding], enough[holding]

    def _search_in(
        self, lists: Rows, products: Scores, vector: Scores, count: int, options: Any
    ) -> tuple[Scores, Rows]:
        scores, found = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int64)
        arrays = (vector, lists, products, scores, found)
        query, *pointers = (_FAISS.swig_ptr(array) for array in arrays)
        assign, distances, out_scores, out_found = pointers
        self._index.search_preassigned_c(1, query, count, assign, distances, out_scores, out_found, False, options)
        return scores, found

    def _nearest_list(self, vectors: Vectors) -> Rows:
        with one_thread():
            lists: Rows = self._quantizer.search(vectors, 1)[1][:, 0]
        return lists

    def _set_range(self, sample: Vectors) -> None:
        """Train the quantiser: per dimension the lowest value and the width of what is to be told apart.

        Never less than an ordinary vector needs: one that is like nothing in the sample loses little.
        """
        residuals = sample - self._centroids[self._nearest_list(sample)]
        least = RANGE / np.sqrt(sample.shape[1])
        low = np.minimum(residuals.min(axis=0), -least)
        high = np.maximum(residuals.max(axis=0), least)
        _FAISS.copy_array_to_vector(np.concatenate([low, high - low]).astype(np.float32), self._index.sq.trained)
        self._index.is_trained = True

    def _farthest_stray(self, sample: Vectors) -> float:
        some = sample[:1_000]
        errors = self._index.sa_decode(self._index.sa_encode(some)) - some
        return float(np.abs(errors @ some.T).max())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS work in the calling thread alone; what else uses OpenMP in this thread keeps its setting afterwards.

    A second one gains little, as memory is what takes the time, and beside other work it is waited for: a scan of
    30,000 vectors took 40 ms instead of 2 on a machine with eight times the work that it has cores for.
    """
    before = _FAISS.omp_get_max_threads()
    _FAISS.omp_set_num_threads(1)
    try:
        yield
    finally:
        _FAISS.omp_set_num_threads(before)


def list_count(vectors: int) -> int:
    """Into how many lists so many vectors go."""
    return max(1, round(LISTS_PER_ROOT * math.sqrt(vectors)))


def trained_lists(sample: Vectors, count: int, made_for: int, go_on: GoOn) -> Lists:
    """Lists about `count` centroids, by k-means on the sphere: each is the direction of the mean of its vectors.

    The sample must be shuffled: the first vectors are the first centroids. `go_on` is called between pieces of work of
    a fraction of a second, and may raise.
    """
    centroids = sample[:count].copy()
    for _ in range(ROUNDS):
        quantizer = _FAISS.IndexFlatIP(sample.shape[1])
        quantizer.add(centroids)
        sums = np.zeros_like(centroids)
        for start in range(0, len(sample), PIECE):
            go_on(0)
            piece = sample[start : start + PIECE]
            _add_up(sums, piece, quantizer.search(piece, 1)[1][:, 0])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids).astype(np.float32)
    go_on(0)
    return Lists(centroids, sample[:PIECE], made_for)


def _add_up(sums: Vectors, vectors: Vectors, places: Rows) -> None:
    """Add each vector to the sum at its place."""
    order = np.argsort(places, kind="stable")
    taken, starts = np.unique(places[order], return_index=True)
    sums[taken] += np.add.reduceat(vectors[order], starts)


def _selector(mask: Mask) -> Any:
    bits = np.packbits(mask, bitorder="little")
    selector = _FAISS.IDSelectorBitmap(len(bits), _FAISS.swig_ptr(bits))
    selector.bits_kept = bits  # FAISS keeps a bare pointer to them
    return selector
