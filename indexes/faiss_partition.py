"""Into which lists vectors go: those about the nearest of some centroids, which are trained on a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.background import GoOn
from indexes.vector import Vectors

PIECE = 4_096
"""Vectors that are worked on at a time, so that the work can be given up in between."""

LISTS_PER_ROOT = 4.0
"""Lists per square root of the number of vectors: 4,000 for a million."""

SAMPLE_PER_LIST = 40
ROUNDS = 8
"""What the lists are trained on, and how often: vectors per list, rounds of k-means."""

RANGE = 4.0
"""A value is quantised within this many times its mean size at least, and within what the sample needs."""

FAISS: Any = faiss  # its stubs leave out what its Python layer adds
BY_PRODUCT = FAISS.METRIC_INNER_PRODUCT

ListNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Centroids, how values are quantised about them, and the list of each vector that was there at the time."""

    made_for: int
    """How many vectors there were."""
    centroids: Vectors
    """Shape (lists, dimension), of unit length."""
    span: Vectors
    """Shape (2, dimension): the lowest value of a residual, and the width of what is told apart."""
    stray: float
    """How far two products from quantised vectors are from the cosines, together."""
    keys: NDArray[np.uint64]
    """What `keys_of` gives for each vector, ascending; keys, so that it matters neither whose it is nor where."""
    lists: NDArray[np.int32]
    """The list of each of `keys`."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS work in the calling thread alone; what else uses OpenMP in this thread keeps its setting afterwards.

    A second one gains little, as memory is what takes the time, and beside other work it is waited for: a scan of
    30,000 vectors took 40 ms instead of 2 on a machine with eight times the work that it has cores for.
    """
    before = FAISS.omp_get_max_threads()
    FAISS.omp_set_num_threads(1)
    try:
        yield
    finally:
        FAISS.omp_set_num_threads(before)


def list_count(vectors: int) -> int:
    """Into how many lists so many vectors go."""
    return max(1, round(LISTS_PER_ROOT * math.sqrt(vectors)))


def trained_partition(sample: NDArray[np.floating[Any]], count: int, made_for: int, go_on: GoOn) -> Partition:
    """A partition that knows no vector's list yet. The sample must be shuffled: its first vectors are where the
    centroids begin. `go_on` is called between pieces of work of a fraction of a second, and may raise."""
    centroids = trained_centroids(sample, count, go_on)
    some = sample[:PIECE].astype(np.float32)
    span = _span(some - centroids[nearest_lists(quantizer_of(centroids), some)])
    stray = 2 * _farthest_stray(inverted_lists(centroids, span), some[:1_000])
    return Partition(made_for, centroids, span, stray, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int32))


def with_known(partition: Partition, keys: NDArray[np.uint64], lists: NDArray[np.int32]) -> Partition:
    """The same, knowing the lists of the vectors of these keys."""
    order = np.argsort(keys)
    return replace(partition, keys=keys[order], lists=lists[order])


def trained_centroids(sample: NDArray[np.floating[Any]], count: int, go_on: GoOn) -> Vectors:
    """k-means on the sphere: each centroid is the direction of the mean of its vectors. As `trained_partition`."""
    centroids = sample[:count].astype(np.float32)
    for _ in range(ROUNDS):
        quantizer, sums = quantizer_of(centroids), np.zeros_like(centroids)
        for start in range(0, len(sample), PIECE):
            go_on(0)
            piece = sample[start : start + PIECE].astype(np.float32)
            _add_up(sums, piece, nearest_lists(quantizer, piece))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids).astype(np.float32)
    go_on(0)
    return centroids


def quantizer_of(centroids: Vectors) -> Any:
    """What finds the nearest centroids."""
    quantizer = FAISS.IndexFlatIP(centroids.shape[1])
    quantizer.add(centroids)
    return quantizer


def inverted_lists(centroids: Vectors, span: Vectors) -> Any:
    """An empty FAISS index of lists about these centroids, 8 bits a value within the span."""
    (count, dimension), kind = centroids.shape, FAISS.ScalarQuantizer.QT_8bit
    index = FAISS.IndexIVFScalarQuantizer(quantizer_of(centroids), dimension, count, kind, BY_PRODUCT, True)
    FAISS.copy_array_to_vector(span.ravel(), index.sq.trained)
    index.is_trained = True
    return index


def nearest_lists(quantizer: Any, vectors: Vectors) -> ListNumbers:
    """The list that each of these vectors belongs to."""
    with one_thread():
        lists: ListNumbers = quantizer.search(vectors, 1)[1][:, 0]
    return lists


def known_lists(partition: Partition, quantizer: Any, vectors: Vectors) -> ListNumbers:
    """As `nearest_lists`, looked up for those vectors that the partition was made for."""
    keys = keys_of(vectors)
    places = np.searchsorted(partition.keys[:-1], keys)
    lists = partition.lists[places].astype(np.int64)
    new = partition.keys[places] != keys
    if new.any():
        lists[new] = nearest_lists(quantizer, vectors[new])
    return lists


def keys_of(vectors: Vectors) -> NDArray[np.uint64]:
    """A number for each vector that another one hardly has: a sum of its values' bits with fixed, odd weights."""
    weights = np.random.default_rng(0).integers(2**63, size=vectors.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    keys: NDArray[np.uint64] = vectors.view(np.uint32).astype(np.uint64) @ weights
    return keys


def _add_up(sums: Vectors, vectors: Vectors, places: ListNumbers) -> None:
    """Add each vector to the sum at its place."""
    order = np.argsort(places, kind="stable")
    taken, starts = np.unique(places[order], return_index=True)
    sums[taken] += np.add.reduceat(vectors[order], starts)


def _span(residuals: Vectors) -> Vectors:
    """Never less than an ordinary vector needs: one that is like nothing in the sample loses little."""
    least = RANGE / np.sqrt(residuals.shape[1])
    low = np.minimum(residuals.min(axis=0), -least)
    high = np.maximum(residuals.max(axis=0), least)
    return np.stack([low, high - low]).astype(np.float32)


def _farthest_stray(index: Any, some: Vectors) -> float:
    errors = index.sa_decode(index.sa_encode(some)) - some
    return float(np.abs(errors @ some.T).max())
