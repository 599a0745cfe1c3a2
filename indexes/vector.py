"""The contract of a vector index: which ids are nearest to this vector, within this set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""One-dimensional array of catalog ids (positive, never reused)."""

Vectors = NDArray[np.float32]
"""Shape (n, dimension), every row of unit length."""


@dataclass(frozen=True)
class Hits:
    """What one query found, best first.

    `scores` are cosines in [-1, 1], larger is nearer; equal scores come in order of id.
    Both arrays have the same length, at most the k that was asked for.
    """

    ids: Ids
    scores: NDArray[np.float32]


class VectorIndex(Protocol):
    """Maps integer ids to unit vectors and finds the nearest.

    An index is a view: it can be thrown away and rebuilt from the catalog. Its caller makes sure
    that no two threads change it at once; searches may run beside each other and beside a change
    (the index locks for itself where its engine needs that).
    """

    dimension: int

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors, shape (n, dimension), under n distinct ids. An id that is already there is replaced.

        Raises ChangeRequest when the width is wrong, a value is not finite, or a row is not of
        unit length (within 1e-3).
        """
        ...

    def remove(self, ids: Ids) -> None:
        """Forget these ids. Ids that are not there are ignored."""
        ...

    def search(self, query: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Hits:
        """The k nearest ids to `query` (shape (dimension,), unit length).

        `allowed`, sorted and unique, restricts the search *before* the top k is taken: if k
        allowed ids are in the index, k are returned. None means no restriction; an empty array
        means that nothing is allowed.

        An index of many vectors may miss some of the nearest (at most one in fifty, over many
        queries) and return the next nearest instead; scores are exact and k is kept all the same.
        """
        ...

    def scores(self, query: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
        """The cosine of `query` with each id, in the order given; NaN for an id that is not there."""
        ...

    def ids(self) -> Ids:
        """All ids in the index, ascending."""
        ...

    def __len__(self) -> int: ...

    def memory(self) -> int:
        """Bytes of this process's memory that the index takes, about; pages of mapped files are not counted."""
        ...

    def close(self) -> None:
        """Release what the index holds (files, connections). Idempotent."""
        ...
