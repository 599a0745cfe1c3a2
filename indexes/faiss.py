"""The default vector index: FAISS in memory. Exact while that is quick, approximate beyond.

Up to `LARGE` vectors every one is compared. Beyond, lists are trained in a thread while the scan serves on, and take
over when they hold everything; they are made anew when the number of vectors has doubled or halved since. Either form
only proposes rows: the cosines are computed from the vectors themselves, so that a score is always exact, and the scan,
which proposes whatever might be among the nearest, is exact as a whole.

FAISS numbers its vectors by row and knows nothing of ids or ties, so both are kept here.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.background import Background, GoOn
from indexes.checks import (
    best,
    checked_count,
    checked_dimension,
    checked_ids,
    checked_query,
    checked_vectors,
    cosines,
)
from indexes.errors import TryLater
from indexes.faiss_forms import PIECE, SAMPLE_PER_LIST, Lists, Scan, list_count, one_thread, trained_lists
from indexes.locks import ReadWriteLock
from indexes.vector import Hits, Ids, Vectors
from indexes.vector_rows import Rows, VectorRows

LARGE = 75_000
"""From this many vectors on they go into lists; below half as many they are scanned again. A scan takes 3 ms here, more
than the lists of a million (`tests/benchmarks/vector_index.md`)."""

MUCH = 2
"""Lists are made anew for this many times the vectors that they were made for, or this fraction."""

GATHER_COUNT = 5_000
GATHER_SHARE = 0.05
"""At most this many allowed rows, or of a scan this share of all, are multiplied here instead of masked in FAISS."""

SETTLE_SECONDS = 1.0
FEW_MORE = 0.01
"""Lists are begun when their number of vectors changes by less than this share in so many seconds."""

EXTRA = 48
"""Hits fetched beyond k, so that those near the k-th seldom need a second look."""

log = logging.getLogger(__name__)


class FaissIndex:
    """A `VectorIndex` over a `Scan` or `Lists`.

    FAISS crashes when it is searched during an addition, and its calls release the interpreter's lock: hence the lock.
    """

    def __init__(self, dimension: int, folder: Path | None = None) -> None:
        """`folder` takes the file of the vectors, where they are many (see `VectorRows`)."""
        self.dimension = checked_dimension(dimension)
        self._folder = folder
        self._lock = ReadWriteLock()
        self._background = Background()
        weakref.finalize(self, self._background.stop)  # also at the end of the process
        self._empty()

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex.add`. Raises TryLater (`disk_full`), nothing changed, when the vectors find no room."""
        rows = checked_vectors(vectors, self.dimension)
        new = checked_ids(ids, len(rows))
        order = np.argsort(new)
        new, rows = new[order], rows[order]
        form = self._form
        prepared = form.prepared(rows)
        with self._lock.writing():
            if form is not self._form:
                prepared = self._form.prepared(rows)
            self._rows.make_room(len(new))
            self._form.drop(self._rows.free(new))
            self._form.put(self._rows.put(new, rows), prepared)
            self._settle()

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex.remove`."""
        with self._lock.writing():
            self._form.drop(self._rows.free(np.asarray(ids, dtype=np.int64)))
            self._settle()

    def search(self, query: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Hits:
        """See `VectorIndex.search`."""
        vector, k = checked_query(query, self.dimension), checked_count(k)
        with self._lock.reading():
            near = self._near(vector, k, None if allowed is None else np.asarray(allowed, dtype=np.int64))
            return best(self._rows.owners[near], cosines(self._rows.vectors[near], vector), k)

    def scores(self, query: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
        """See `VectorIndex.scores`."""
        vector, wanted = checked_query(query, self.dimension), np.asarray(ids, dtype=np.int64)
        scores = np.full(len(wanted), np.nan, dtype=np.float32)
        with self._lock.reading():
            there, rows = self._rows.find(wanted)
            scores[there] = cosines(self._rows.vectors[rows], vector)
        return scores

    def ids(self) -> Ids:
        """See `VectorIndex.ids`."""
        with self._lock.reading():
            return self._rows.ids()

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """See `VectorIndex.close`."""
        self._background.stop()
        with self._lock.writing():
            self._empty()

    def settle(self, timeout: float) -> bool:
        """Wait until the form suits the number of vectors; False when that takes more than `timeout` seconds."""
        return self._background.wait(timeout)

    def _empty(self) -> None:
        self._rows = VectorRows(self.dimension, self._folder)
        self._form: Scan | Lists = Scan(self.dimension)
        self._building = False

    def _near(self, vector: NDArray[np.float32], k: int, allowed: Ids | None) -> Rows:
        """The rows that are the k nearest of those allowed or might tie with the k-th, in any order."""
        if k == 0:
            return self._rows.rows()[:0]
        if allowed is None:
            return self._rows.rows() if k >= len(self._rows) else self._proposed(vector, k, None)
        if len(allowed) <= self._few():
            return self._multiplied(vector, k, self._rows.rows_of(allowed))
        mask = self._rows.mask_of(allowed)
        count = np.count_nonzero(mask)
        if count <= max(k, self._few()):
            return self._multiplied(vector, k, np.flatnonzero(mask))
        return self._proposed(vector, k, None if count == len(self._rows) else mask)

    def _multiplied(self, vector: NDArray[np.float32], k: int, rows: Rows) -> Rows:
        """As `_near`, of these rows, by NumPy."""
        if k >= len(rows):
            return rows
        products = self._rows.vectors[rows] @ vector
        near: Rows = rows[products >= np.partition(products, -k)[-k] - Scan.stray]
        return near

    def _few(self) -> int:
        """How many allowed rows are multiplied here."""
        return max(GATHER_COUNT, int(GATHER_SHARE * self._rows.count) if isinstance(self._form, Scan) else 0)

    def _proposed(self, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None) -> Rows:
        """As `_near`, of the rows in the mask, of which there are more than k, by FAISS.

        Without a mask, which costs a scan twice the time, a scan also proposes free rows.
        """
        wanted = k + EXTRA + (min(self._unused(), k) if mask is None else 0)
        while True:
            scores, found = self._form.search(vector, wanted, mask)
            all_found = len(found) < wanted
            living, last = self._rows.owners[found] > 0, scores[-1]
            scores, found = scores[living], found[living]
            if all_found or len(found) >= k:
                least = scores[:k].min() - self._form.stray
                if all_found or last < least:
                    near: Rows = found[scores >= least]
                    return near
            wanted *= 4

    def _unused(self) -> int:
        """How many rows a scan compares in vain."""
        return self._rows.count - len(self._rows) if isinstance(self._form, Scan) else 0

    def _settle(self) -> None:
        """After a change, see that the form suits."""
        if self._building:
            return
        if 3 * self._unused() > self._rows.count:
            self._compact()
        if not _suits(self._form, len(self._rows)):
            self._building = True
            self._background.start(partial(_build, weakref.ref(self), self._rows, self._lock))

    def _compact(self) -> None:
        try:
            self._rows.compact()
        except TryLater as error:
            log.warning("free rows are kept: %s", error)
            return
        self._form = Scan(self.dimension)
        self._form.put(self._rows.rows(), self._form.prepared(self._rows.vectors))


def _suits(form: Scan | Lists, count: int) -> bool:
    if isinstance(form, Scan):
        return count < LARGE
    return count >= LARGE // 2 and form.made_for <= MUCH * count <= MUCH**2 * form.made_for


def _build(owner: weakref.ref[FaissIndex], rows: VectorRows, lock: ReadWriteLock, go_on: GoOn) -> None:
    """Make the form that suits these rows and put it in place. The owner may vanish meanwhile, then nobody goes on."""
    form = None
    try:
        _wait_until_few_come(rows, go_on)
        with one_thread():
            form = _filled_form(rows, lock, go_on)
    finally:
        with lock.writing():
            left, index = rows.note_touched(False), owner()
            if index is not None and index._rows is rows:
                index._building = False
                if form is not None:
                    _take_in(form, rows, left)
                    index._form = form
                    index._settle()


def _wait_until_few_come(rows: VectorRows, go_on: GoOn) -> None:
    """While many vectors are added the lists would soon be too few."""
    before = 0
    while abs(len(rows) - before) > FEW_MORE * before:
        before = len(rows)
        go_on(SETTLE_SECONDS)


def _filled_form(rows: VectorRows, lock: ReadWriteLock, go_on: GoOn) -> Scan | Lists:
    """A form that holds all rows but a few, which were touched last and are noted."""
    with lock.reading():
        rows.note_touched()
        todo = np.arange(rows.count)
    form = _new_form(rows, lock, go_on)
    while len(todo) > PIECE:
        for start in range(0, len(todo), PIECE):
            go_on(0)
            _take_in(form, rows, todo[start : start + PIECE], lock.reading)
        with lock.reading():
            todo = rows.note_touched()
    _take_in(form, rows, todo, lock.reading)
    return form


def _take_in(
    form: Scan | Lists, rows: VectorRows, some: Rows, locked: Callable[[], AbstractContextManager[None]] = nullcontext
) -> None:
    """Bring these rows of the form up to date."""
    with locked():
        living = some[rows.owners[some] > 0]
        vectors = rows.vectors[living]
    form.drop(some)
    form.put(living, form.prepared(vectors))


def _new_form(rows: VectorRows, lock: ReadWriteLock, go_on: GoOn) -> Scan | Lists:
    with lock.reading():
        held, dimension = rows.rows(), rows.vectors.shape[1]
        if len(held) < LARGE:
            return Scan(dimension)
        lists = list_count(len(held))
        some = np.random.default_rng(0).choice(held, min(len(held), SAMPLE_PER_LIST * lists), replace=False)
        sample = rows.vectors[some]
    return trained_lists(sample, lists, len(held), go_on)
