"""Which form of the FAISS index suits so many vectors, and the work in the background that leads from one to another.

The work reads rows under the index's lock, a piece at a time, and thinks between the pieces without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from indexes import shared_partition
from indexes.background import GoOn
from indexes.faiss_forms import Form, Lists, Moving, Prepared, Scan
from indexes.faiss_partition import (
    PIECE,
    SAMPLE_PER_LIST,
    Partition,
    keys_of,
    list_count,
    nearest_lists,
    quantizer_of,
    trained_partition,
    with_known,
)
from indexes.locks import ReadWriteLock
from indexes.vector import Vectors
from indexes.vector_rows import Rows, VectorRows

LARGE = 75_000
"""From this many vectors on they go into lists; below half as many they are scanned again. A scan takes 3 ms here, more
than the lists of a million (`tests/benchmarks/vector_index.md`)."""

MUCH = 2
"""Lists are made anew for this many times the vectors that they were made for, or this fraction."""

SETTLE_SECONDS = 1.0
FEW_MORE = 0.01
"""Lists are begun when their number of vectors changes by less than this share in so many seconds."""

MOVED = 1_024
"""Vectors that change their form at a time; searches wait for that, about 5 ms."""


def suits(form: Form, count: int) -> bool:
    """Whether this is the form for so many vectors."""
    if isinstance(form, Scan):
        return count < LARGE
    return isinstance(form, Lists) and count >= LARGE // 2 and _still_suits(form.made_for, count)


def wait_until_few_come(rows: VectorRows, go_on: GoOn) -> None:
    """While many vectors are added the lists would soon be too few."""
    before = 0
    while abs(len(rows) - before) > FEW_MORE * before:
        before = len(rows)
        go_on(SETTLE_SECONDS)


def made_form(
    rows: VectorRows, lock: ReadWriteLock, shared: Path | None, go_on: GoOn
) -> tuple[Form, Callable[[Vectors], Prepared]]:
    """An empty form that suits these rows, and how they are prepared for it."""
    if len(rows) < LARGE:
        scan = Scan(rows.vectors.shape[1])
        return scan, scan.prepared
    partition = shared_partition.obtained(
        shared,
        rows.vectors.shape[1],
        lambda partition: _still_suits(partition.made_for, len(rows)),
        lambda: _made_partition(rows, lock, go_on),
        go_on,
    )
    lists = Lists(partition, len(rows))
    return lists, partial(lists.prepared, known=partition)


def move_all(
    moving: Moving, prepared: Callable[[Vectors], Prepared], rows: VectorRows, lock: ReadWriteLock, go_on: GoOn
) -> None:
    """Move every row that is left, those first that are quickly dropped together."""
    for start in range(0, len(moving.todo), MOVED):
        go_on(0)
        with lock.reading():
            some = moving.left(moving.todo[start : start + MOVED])
            vectors = rows.vectors[some]
        ready = prepared(vectors)
        with lock.writing():
            moving.move(some, ready)


def _still_suits(made_for: int, count: int) -> bool:
    return made_for <= MUCH * count <= MUCH**2 * made_for


def _made_partition(rows: VectorRows, lock: ReadWriteLock, go_on: GoOn) -> Partition:
    """A partition for these rows, with the list of each."""
    with lock.reading():
        held = rows.rows()
    count = list_count(len(held))
    some = np.random.default_rng(0).choice(held, min(len(held), SAMPLE_PER_LIST * count), replace=False)
    sample = np.empty((len(some), rows.vectors.shape[1]), dtype=np.float16)
    for start, vectors in _by_piece(rows, some, lock, go_on):
        sample[start : start + PIECE] = vectors
    partition = trained_partition(sample, count, len(held), go_on)
    quantizer, keys, lists = quantizer_of(partition.centroids), [], []
    for _, vectors in _by_piece(rows, held, lock, go_on):
        keys.append(keys_of(vectors))
        lists.append(nearest_lists(quantizer, vectors).astype(np.int32))
    return with_known(partition, np.concatenate(keys), np.concatenate(lists))


def _by_piece(rows: VectorRows, some: Rows, lock: ReadWriteLock, go_on: GoOn) -> Iterator[tuple[int, Vectors]]:
    """What lies in these rows, and from which place on; something else than before where they changed meanwhile."""
    for start in range(0, len(some), PIECE):
        go_on(0)
        with lock.reading():
            vectors = rows.vectors[some[start : start + PIECE]]
        yield start, vectors
