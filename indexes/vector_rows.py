"""Which row holds the vector of which id, and the vectors themselves.

An engine numbers what it holds by row. A row that was freed keeps its number and is taken again, so that no row ever
moves. A few vectors lie in memory; many in a file that is mapped, which the system keeps in memory as far as there is
room and reads again where there is not. The file has no name: it goes with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from indexes.checks import distinct
from indexes.errors import TryLater
from indexes.vector import Ids, Vectors

Rows = NDArray[np.int64]

SPREAD = 32
"""Up to this many times the number of ids, a table of all numbers up to the largest id is made for a filter."""

MAPPED_BYTES = 64 * 2**20
"""From this size on, vectors lie in a file."""

GROWTH = 1.25
"""By how much the room for vectors grows when it is full."""


class VectorRows:
    """Ids, rows and vectors. Does not lock: its owner does."""

    def __init__(self, dimension: int, folder: Path | None = None) -> None:
        """`folder` is where the file of many vectors goes; None means where temporary files go."""
        self.vectors: Vectors = np.empty((0, dimension), dtype=np.float32)
        """The vector of each row; there is room for more rows than are in use."""
        self.owners: Ids = np.empty(0, dtype=np.int64)
        """The id of each row; 0 for one that is free or was never used."""
        self.count = 0
        """All rows in use lie below this."""
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._ids: Ids = np.empty(0, dtype=np.int64)
        """What is held, ascending."""
        self._rows: Rows = np.empty(0, dtype=np.int64)
        """The row of each of `_ids`."""
        self._free: Rows = np.empty(0, dtype=np.int64)

    def make_room(self, count: int) -> None:
        """See that so many rows more can be put. Raises TryLater (`disk_full`) and changes nothing otherwise."""
        if self.count + count <= len(self.owners):
            return
        room, was_mapped = max(self.count + count, int(GROWTH * self.count)), self._file is not None
        vectors, owners = self._allocated(room), np.zeros(room, dtype=np.int64)
        if not was_mapped:
            vectors[: self.count] = self.vectors[: self.count]
        owners[: self.count] = self.owners[: self.count]
        self.vectors, self.owners = vectors, owners

    def put(self, ids: Ids, vectors: Vectors) -> Rows:
        """Take a row for each of these ids, ascending and not yet held. There must be room."""
        again, new = self._free[: len(ids)], max(len(ids) - len(self._free), 0)
        rows = np.concatenate([again, np.arange(self.count, self.count + new)])
        self._free, self.count = self._free[len(again) :], self.count + new
        self.vectors[rows], self.owners[rows] = vectors, ids
        places = np.searchsorted(self._ids, ids)
        self._ids, self._rows = _inserted(self._ids, places, ids), _inserted(self._rows, places, rows)
        return rows

    def free(self, ids: Ids) -> Rows:
        """Give up the rows of those ids that are held, and say which they were."""
        places = self._places(ids)
        rows = self._rows[places]
        self.owners[rows] = 0
        self._free = np.concatenate([self._free, rows])
        self._ids, self._rows = np.delete(self._ids, places), np.delete(self._rows, places)
        return rows

    def compact(self) -> None:
        """Give up the room of free rows; the rows are numbered anew."""
        before, self._file = self._file, None
        try:
            vectors = self._allocated(len(self))
        except TryLater:
            self._file = before
            raise
        if before is not None:
            before.close()  # it stays mapped as long as anyone looks into it
        np.take(self.vectors, self._rows, axis=0, out=vectors)
        self.vectors, self.owners, self.count = vectors, self._ids.copy(), len(self)
        self._rows, self._free = np.arange(len(self)), self._free[:0]

    def rows(self) -> Rows:
        """Every row in use, by id."""
        return self._rows

    def rows_of(self, ids: Ids) -> Rows:
        """The rows of those of these ids that are held, each once."""
        return self._rows[self._places(ids)]

    def mask_of(self, ids: Ids) -> NDArray[np.bool_]:
        """For each row, whether it holds one of these ids, ascending; faster than `rows_of` where they are many."""
        last = int(self._ids[-1]) if len(self) else 0
        if last > SPREAD * len(self):
            mask = np.zeros(self.count, dtype=bool)
            mask[self.rows_of(ids)] = True
            return mask
        wanted = np.zeros(last + 1, dtype=bool)
        wanted[ids[np.searchsorted(ids, 1) : np.searchsorted(ids, last, side="right")]] = True
        found: NDArray[np.bool_] = wanted[self.owners[: self.count]]
        return found

    def find(self, ids: Ids) -> tuple[NDArray[np.bool_], Rows]:
        """Which of these ids are held, and the rows of those, in the order given."""
        places = np.searchsorted(self._ids, ids)
        there = self._is_at(places, ids)
        return there, self._rows[places[there]]

    def ids(self) -> Ids:
        """Every id, ascending."""
        return self._ids.copy()

    def __len__(self) -> int:
        return len(self._ids)

    def memory(self) -> int:
        """Bytes; a file that is mapped is not counted, as the system can do without it."""
        held = (self.owners, self._ids, self._rows, self._free)
        return sum(array.nbytes for array in held) + (self.vectors.nbytes if self._file is None else 0)

    def _is_at(self, places: Rows, ids: Ids) -> NDArray[np.bool_]:
        if not len(self._ids):
            return np.zeros(len(ids), dtype=bool)
        found: NDArray[np.bool_] = self._ids[np.minimum(places, len(self._ids) - 1)] == ids
        return found

    def _places(self, ids: Ids) -> Rows:
        """Where in `_ids` those of `ids` stand that are there, without repetition."""
        places = np.searchsorted(self._ids, ids)
        return distinct(places[self._is_at(places, ids)])

    def _allocated(self, room: int) -> Vectors:
        """Room for so many vectors: more of the file where there is one."""
        shape = (room, self.vectors.shape[1])
        size = 4 * room * shape[1]
        if size < MAPPED_BYTES:
            return np.empty(shape, dtype=np.float32)
        if self._file is not None:
            return _mapped(self._file, size, shape)
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (it is open as long as the rows are)
        weakref.finalize(self, file.close)
        vectors, self._file = _mapped(file, size, shape), file
        return vectors


def _inserted(array: Rows, places: Rows, values: Rows) -> Rows:
    """`np.insert`, quicker where everything goes behind."""
    behind = len(places) == 0 or places[0] == len(array)
    return np.concatenate([array, values]) if behind else np.insert(array, places, values)


def _mapped(file: IO[bytes], size: int, shape: tuple[int, int]) -> Vectors:
    """The file as an array. Its blocks are reserved: writing to a mapped page that has none kills the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise TryLater(f"The disk has no room for {size:,} bytes of vectors: {error}", code="disk_full") from error
    return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))
