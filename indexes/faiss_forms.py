"""The forms of the FAISS index: a scan that proposes every near row, and lists that propose most of them.

A form knows rows and vectors only. What it proposes is ranked by approximate products; `stray` says how far two of
those may be from the cosines, together. The cosines themselves are computed elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.faiss_partition import (
    BY_PRODUCT,
    FAISS,
    Partition,
    inverted_lists,
    known_lists,
    nearest_lists,
    one_thread,
)
from indexes.vector import Vectors
from indexes.vector_rows import Rows

LOOKED_INTO = 128
"""A search compares as many vectors as so many lists hold on average."""

MASKED = 6
"""So many times as many where only some are wanted: those lie farther from a query and in more lists, and leaving out
the others takes longer than comparing."""

SCANNED_BYTES = 64 * 2**20
"""A scan is kept in pieces of this size, each of which is given back when nothing is left in it."""

SLACK = 1.05
DOUBLINGS = 2
"""A list that is full doubles its room. It begins with as much as makes it this much more than it needs for what is
known to go into it, after so many doublings; all at once would stand beside the scan."""

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]
Found = tuple[Scores, Rows]
Prepared = tuple[NDArray[Any], ...]
"""Arrays of the same length, one entry a vector."""


class Form(Protocol):
    """Rows that can be searched. Does not lock: its owner does."""

    stray: float

    def prepared(self, vectors: Vectors) -> Prepared:
        """These vectors as `put` needs them; this may be done beside searches."""
        ...

    def put(self, rows: Rows, prepared: Prepared) -> None:
        """Take in these rows; there must be nothing in them."""
        ...

    def drop(self, rows: Rows) -> None:
        """Forget those of these rows that are there."""
        ...

    def search(self, vector: Scores, count: int, mask: Mask | None) -> Found:
        """The `count` best rows, best first; fewer where there are no more.

        `mask` says of each row whether it is wanted; None means all.
        """
        ...

    def together(self, rows: Rows) -> Rows:
        """The same rows in an order in which they are quickly dropped."""
        ...

    def memory(self) -> int:
        """Bytes, about."""
        ...


class Scan:
    """Every vector in half precision, compared one after another.

    Bound by half the memory it goes about five times as fast as `IndexFlatIP` (0.7 against 3.8 ms over 26,575 vectors
    of 384 dimensions). In a row that was dropped stands what is no number: it compares as nearer than nothing.
    """

    stray = 1.5e-3
    """A value loses at most 2**-11 of itself (or 2**-25 below 2**-14), so by Cauchy and Schwarz a product of unit
    vectors loses at most 5e-4, two of them 1e-3; and then some."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._size = max(1, SCANNED_BYTES // (2 * dimension))
        self._pieces: list[Any] = []
        self._inside: list[int] = []
        """In how many rows of each piece there is something."""

    def prepared(self, vectors: Vectors) -> Prepared:
        """See `Form`."""
        return (vectors.astype(np.float16),)

    def put(self, rows: Rows, prepared: Prepared) -> None:
        """See `Form`."""
        while int(rows.max(initial=-1)) >= len(self._pieces) * self._size:
            self._pieces.append(self._new_piece())
            self._inside.append(0)
        for number, here, places in self._by_piece(rows):
            self._reach(self._pieces[number], int(places.max()) + 1)
            self._values(number)[places] = prepared[0][here]
            self._inside[number] += len(places)

    def drop(self, rows: Rows) -> None:
        """See `Form`."""
        for number, _, places in self._by_piece(rows[rows < len(self._pieces) * self._size]):
            values = self._values(number)
            places = places[places < len(values)]
            places = places[~np.isnan(values[places, 0])]
            values[places] = np.nan
            self._inside[number] -= len(places)
            if not self._inside[number]:
                self._pieces[number] = self._new_piece()

    def search(self, vector: Scores, count: int, mask: Mask | None) -> Found:
        """See `Form`."""
        parts = []
        for number, piece in enumerate(self._pieces):
            first, options = number * self._size, None
            if not piece.ntotal:
                continue
            if mask is not None:
                options = FAISS.SearchParameters(sel=_selector(mask[first : first + self._size]))
            with one_thread():
                [scores], [found] = piece.search(vector[None, :], min(count, piece.ntotal), params=options)
            parts.append((scores[found >= 0], found[found >= 0] + first))
        return _best(parts, count)

    def together(self, rows: Rows) -> Rows:
        """See `Form`."""
        return np.sort(rows)

    def memory(self) -> int:
        """See `Form`."""
        return 2 * self._dimension * sum(int(piece.ntotal) for piece in self._pieces)

    def _new_piece(self) -> Any:
        return FAISS.IndexScalarQuantizer(self._dimension, FAISS.ScalarQuantizer.QT_fp16, BY_PRODUCT)

    def _by_piece(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """The number of each piece, which of `rows` are in it, and where."""
        numbers, places = np.divmod(rows, self._size)
        for number, here in _grouped(numbers):
            yield number, here, places[here]

    def _values(self, number: int) -> NDArray[np.float16]:
        """What stands in the rows of a piece, to be read and written."""
        piece = self._pieces[number]
        values: NDArray[np.float16] = FAISS.rev_swig_ptr(piece.codes.data(), piece.codes.size()).view(np.float16)
        return values.reshape(piece.ntotal, self._dimension)

    def _reach(self, piece: Any, rows: int) -> None:
        """See that a piece has so many rows at least."""
        before = piece.ntotal
        if rows > before:
            piece.codes.resize(rows * piece.code_size)
            piece.ntotal = rows
            added = FAISS.rev_swig_ptr(piece.codes.data(), piece.codes.size())[before * piece.code_size :]
            added.view(np.float16)[:] = np.nan


class Lists:
    """Vectors in lists about centroids, 8 bits a value, of which a search compares the nearest lists only.

    How many lists depends on what is in them and allowed: so many that enough vectors are compared.
    """

    def __init__(self, partition: Partition, expected: int) -> None:
        """`expected` is how many vectors there will be soon."""
        self.made_for = partition.made_for
        self.stray = partition.stray
        self._index = inverted_lists(partition.centroids, partition.span)
        self._quantizer, self._lists = FAISS.downcast_index(self._index.quantizer), self._index.invlists
        self._list_of: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        """The list of each row; -1 for one that is in none."""
        self._sizes = np.zeros(self._index.nlist, dtype=np.int64)
        self._make_room(partition, expected)

    def prepared(self, vectors: Vectors, known: Partition | None = None) -> Prepared:
        """See `Form`. Finding the list of each takes longer than all the rest; some may be known."""
        if known is None:
            return vectors, nearest_lists(self._quantizer, vectors)
        return vectors, known_lists(known, self._quantizer, vectors)

    def put(self, rows: Rows, prepared: Prepared) -> None:
        """See `Form`."""
        missing = int(rows.max(initial=-1)) + 1 - len(self._list_of)
        if missing > 0:
            room = np.full(max(missing, len(self._list_of) // 4), -1, dtype=np.int32)
            self._list_of = np.concatenate([self._list_of, room])
        vectors, lists = prepared
        self._list_of[rows] = lists
        self._sizes += np.bincount(lists, minlength=len(self._sizes))
        with one_thread():
            self._index.add_core(len(rows), *(FAISS.swig_ptr(array) for array in (vectors, rows, lists)))

    def drop(self, rows: Rows) -> None:
        """See `Form`."""
        rows = rows[rows < len(self._list_of)]
        rows = rows[self._list_of[rows] >= 0]
        for number, here in _grouped(self._list_of[rows]):
            self._drop_from(number, rows[here])
        self._list_of[rows] = -1

    def search(self, vector: Scores, count: int, mask: Mask | None) -> Found:
        """See `Form`; of the nearest lists only, but `count` are found where there are so many."""
        inside, compared = self._sizes, LOOKED_INTO * int(self._sizes.sum()) // len(self._sizes)
        if mask is not None:
            compared *= MASKED
            lists = self._list_of[: len(mask)][mask[: len(self._list_of)]]
            inside = np.bincount(lists + 1, minlength=len(inside) + 1)[1:]
        products, nearest = self._nearest_holding(vector, inside, max(compared, 4 * count))
        if not len(nearest):
            return products, nearest
        only = {} if mask is None else {"sel": _selector(mask)}
        options = FAISS.IVFSearchParameters(nprobe=len(nearest), **only)
        scores, found = self._search_in(nearest, products, vector, count, options)
        return scores[found >= 0], found[found >= 0]

    def together(self, rows: Rows) -> Rows:
        """See `Form`."""
        return rows[np.argsort(self._list_of[rows], kind="stable")]

    def memory(self) -> int:
        """See `Form`."""
        codes = int(self._sizes.sum()) * (self._index.d + 8)
        return int(codes + 4 * self._index.d * len(self._sizes) + self._list_of.nbytes)

    def _make_room(self, partition: Partition, expected: int) -> None:
        """Without it the lists take a third more memory."""
        sizes = np.bincount(partition.lists, minlength=len(self._sizes)) * min(1.0, expected / partition.made_for)
        for number, size in enumerate(sizes.tolist()):
            self._lists.resize(number, math.ceil(SLACK * size / 2**DOUBLINGS))
            self._lists.resize(number, 0)

    def _drop_from(self, number: int, gone: Rows) -> None:
        """Close the gaps in one list; FAISS would look through all, or keep a table of where each row is."""
        before, size = self._lists.list_size(number), self._index.code_size
        rows = FAISS.rev_swig_ptr(self._lists.get_ids(number), before)
        codes = FAISS.rev_swig_ptr(self._lists.get_codes(number), before * size).reshape(before, size)
        left = np.flatnonzero(~np.isin(rows, gone))
        rows[: len(left)], codes[: len(left)] = rows[left], codes[left]
        self._lists.resize(number, len(left))
        self._sizes[number] = len(left)

    def _nearest_holding(self, vector: Scores, inside: Rows, wanted: int) -> Found:
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

    def _search_in(self, lists: Rows, products: Scores, vector: Scores, count: int, options: Any) -> Found:
        scores, found = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int64)
        arrays = (vector, lists, products, scores, found)
        query, *pointers = (FAISS.swig_ptr(array) for array in arrays)
        assign, distances, out_scores, out_found = pointers
        self._index.search_preassigned_c(1, query, count, assign, distances, out_scores, out_found, False, options)
        return scores, found


class Moving:
    """Rows on their way from one form to another; each is in one of them."""

    def __init__(self, old: Form, new: Form, rows: Rows) -> None:
        """`rows` is what `old` holds."""
        self.old, self.new = old, new
        self.stray = max(old.stray, new.stray)
        self._left = np.zeros(int(rows.max(initial=-1)) + 1, dtype=bool)
        """Whether a row is still where it was before; what is put is new, also in a row that was freed."""
        self._left[rows] = True
        self.todo = old.together(rows)

    def left(self, rows: Rows) -> Rows:
        """Those of these rows that are still to be moved."""
        rows = rows[rows < len(self._left)]
        left: Rows = rows[self._left[rows]]
        return left

    def move(self, rows: Rows, prepared: Prepared) -> None:
        """Move those of these rows that are left, which the new form has prepared."""
        left = self._left[rows]
        self.drop(rows[left])
        self.put(rows[left], tuple(part[left] for part in prepared))

    def prepared(self, vectors: Vectors) -> Prepared:
        """See `Form`."""
        return self.new.prepared(vectors)

    def put(self, rows: Rows, prepared: Prepared) -> None:
        """See `Form`."""
        self.new.put(rows, prepared)

    def drop(self, rows: Rows) -> None:
        """See `Form`."""
        self._left[rows[rows < len(self._left)]] = False
        self.old.drop(rows)
        self.new.drop(rows)

    def search(self, vector: Scores, count: int, mask: Mask | None) -> Found:
        """See `Form`."""
        return _best([form.search(vector, count, mask) for form in (self.old, self.new)], count)

    def together(self, rows: Rows) -> Rows:
        """See `Form`."""
        return rows

    def memory(self) -> int:
        """See `Form`."""
        return self.old.memory() + self.new.memory() + self._left.nbytes


def _best(parts: Sequence[Found], count: int) -> Found:
    scores = np.concatenate([scores for scores, _ in parts] or [np.empty(0, dtype=np.float32)])
    found = np.concatenate([found for _, found in parts] or [np.empty(0, dtype=np.int64)])
    order = np.argsort(-scores, kind="stable")[:count]
    return scores[order], found[order]


def _grouped(numbers: NDArray[np.integer[Any]]) -> Iterator[tuple[int, Rows]]:
    """Each number, and the places where it stands."""
    order = np.argsort(numbers, kind="stable")
    distinct, starts = np.unique(numbers[order], return_index=True)
    return zip(distinct.tolist(), np.split(order, starts[1:]), strict=False)


def _selector(mask: Mask) -> Any:
    bits = np.packbits(mask, bitorder="little")
    selector = FAISS.IDSelectorBitmap(len(bits), FAISS.swig_ptr(bits))
    selector.bits_kept = bits  # FAISS keeps a bare pointer to them
    return selector
