"""The default vector index: FAISS in memory. Exact while that is quick, approximate beyond.

Up to `LARGE` vectors every one is compared. Beyond, lists are made in a thread while the scan serves on, and vectors
move over piece by piece, so that none is held twice; lists are made anew when the number of vectors has doubled or
halved since. Either form only proposes rows: the cosines are computed from the vectors themselves, so that a score is
always exact, and the scan, which proposes whatever might be among the nearest, is exact as a whole.

FAISS numbers its vectors by row and knows nothing of ids or ties, so both are kept here.
"""

from __future__ import annotations

import logging
import weakref
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexes.background import Background, GivenUp, GoOn
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
from indexes.faiss_building import made_form, move_all, suits, wait_until_few_come
from indexes.faiss_forms import Form, Moving, Scan
from indexes.faiss_partition import one_thread
from indexes.locks import ReadWriteLock
from indexes.vector import Hits, Ids, Vectors
from indexes.vector_rows import Rows, VectorRows

GATHER_COUNT = 5_000
GATHER_SHARE = 0.05
"""At most this many allowed rows, or of a scan this share of all, are multiplied here instead of masked in FAISS."""

EXTRA = 48
"""Hits fetched beyond k, so that those near the k-th seldom need a second look."""

log = logging.getLogger(__name__)


class FaissIndex:
    """A `VectorIndex` over a `Scan` or `Lists`, or both while vectors move.

    FAISS crashes when it is searched during an addition, and its calls release the interpreter's lock: hence the lock.
    """

    def __init__(self, dimension: int, folder: Path | None = None, shared: Path | None = None) -> None:
        """`folder` takes the file of the vectors, where they are many (see `VectorRows`); `shared` what lists are made
        from, for others and for later (see `shared_partition`)."""
        self.dimension = checked_dimension(dimension)
        self._folder, self._shared = folder, shared
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

    def memory(self) -> int:
        """See `VectorIndex.memory`."""
        with self._lock.reading():
            return self._rows.memory() + self._form.memory()

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
        self._form: Form = Scan(self.dimension)
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
        """As `_near`, of the rows in the mask, of which there are more than k, by FAISS."""
        wanted = k + EXTRA
        while True:
            scores, found = self._form.search(vector, wanted, mask)
            least = scores[k - 1] - self._form.stray
            if len(found) < wanted or scores[-1] < least:
                near: Rows = found[scores >= least]
                return near
            wanted *= 4

    def _settle(self) -> None:
        """After a change, see that the form suits."""
        if self._building:
            return
        if isinstance(self._form, Scan) and 3 * (self._rows.count - len(self._rows)) > self._rows.count:
            self._compact()
        if not suits(self._form, len(self._rows)):
            self._building = True
            self._background.start(partial(_build, weakref.ref(self), self._rows, self._lock, self._shared))

    def _compact(self) -> None:
        """Give up the room of free rows, which a scan looks at in vain."""
        try:
            self._rows.compact()
        except TryLater as error:
            log.warning("free rows are kept: %s", error)
            return
        self._form = Scan(self.dimension)
        self._form.put(self._rows.rows(), self._form.prepared(self._rows.vectors))


def _build(
    owner: weakref.ref[FaissIndex], rows: VectorRows, lock: ReadWriteLock, shared: Path | None, go_on: GoOn
) -> None:
    """Put the form that suits these rows in place. The owner may vanish meanwhile, then nobody goes on."""
    done = None
    try:
        wait_until_few_come(rows, go_on)
        with one_thread():
            form, prepared = made_form(rows, lock, shared, go_on)
            move_all(_begun(owner, rows, lock, form), prepared, rows, lock, go_on)
        done = form
    finally:
        with lock.writing():
            index = owner()
            if index is not None and index._rows is rows:
                index._building = False
                if done is not None:
                    index._form = done
                    index._settle()


def _begun(owner: weakref.ref[FaissIndex], rows: VectorRows, lock: ReadWriteLock, form: Form) -> Moving:
    with lock.writing():
        index = owner()
        if index is None or index._rows is not rows:
            raise GivenUp
        index._form = moving = Moving(index._form, form, rows.rows())
        return moving
