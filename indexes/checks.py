"""What every vector index checks and computes alike: the arguments, exact cosines, and the order of hits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexes.errors import ChangeRequest
from indexes.vector import Hits, Ids, Vectors

LENGTH_TOLERANCE = 1e-3
BITS = 17


def checked_dimension(dimension: int) -> int:
    """The width, or ChangeRequest (`wrong_dimension`) when it is below 1."""
    if dimension < 1:
        raise ChangeRequest(
            f"An index needs vectors of at least 1 dimension; {dimension} was given.", code="wrong_dimension"
        )
    return dimension


def checked_vectors(vectors: ArrayLike, dimension: int) -> Vectors:
    """The rows as a fresh float32 array of shape (n, dimension), every row of exactly unit length.

    Raises ChangeRequest (`wrong_dimension`, `not_finite`, `not_unit_length`).
    """
    rows = np.array(vectors, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ChangeRequest(
            f"This index holds vectors of {dimension} dimensions; an array of shape {rows.shape} was given.",
            code="wrong_dimension",
        )
    if not np.isfinite(rows).all():
        raise ChangeRequest("A vector holds a value that is not finite (NaN or infinity).", code="not_finite")
    lengths = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) > LENGTH_TOLERANCE)
    if wrong.size:
        raise ChangeRequest(
            f"Vectors must be of unit length; row {wrong[0]} has length {lengths[wrong[0]]:.6g}. Normalise them.",
            code="not_unit_length",
        )
    unit: Vectors = (rows / lengths[:, None]).astype(np.float32)
    return unit


def checked_query(query: ArrayLike, dimension: int) -> NDArray[np.float32]:
    """The query as a float32 array of shape (dimension,), of exactly unit length. Raises as `checked_vectors`."""
    vector = np.asarray(query)
    if vector.ndim != 1:
        raise ChangeRequest(
            f"A query is one vector of {dimension} dimensions; an array of shape {vector.shape} was given.",
            code="wrong_dimension",
        )
    unit: NDArray[np.float32] = checked_vectors(vector[None, :], dimension)[0]
    return unit


def checked_ids(ids: ArrayLike, count: int) -> Ids:
    """The ids as int64, shape (count,). Raises ChangeRequest (`wrong_ids`).

    There must be `count` of them, distinct and positive.
    """
    array = np.array(ids, dtype=np.int64)
    if array.shape != (count,):
        raise ChangeRequest(f"{count} vectors need {count} ids; shape {array.shape} was given.", code="wrong_ids")
    if count and array.min() < 1:
        raise ChangeRequest(f"Ids are positive; {array.min()} was given.", code="wrong_ids")
    if np.unique(array).size != count:
        raise ChangeRequest("The same id was given twice in one call.", code="wrong_ids")
    return array


def checked_count(k: int) -> int:
    """k, or ChangeRequest (`wrong_k`) when it is below 0."""
    if k < 0:
        raise ChangeRequest(f"k is how many hits are wanted, 0 or more; {k} was given.", code="wrong_k")
    return k


def cosines(rows: Vectors, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each row with the query, in [-1, 1]; equal rows have equal scores wherever they stand.

    A float32 product (BLAS, FAISS) sums in an order that depends on a row's place, so that two copies of a vector can
    differ in the last bit and their tie is lost. Here each row is summed alone, in float64.
    """
    products = np.einsum("ij,j->i", rows.astype(np.float64), query.astype(np.float64))
    clipped: NDArray[np.float32] = np.clip(products, -1.0, 1.0).astype(np.float32)
    return clipped


def rounded(scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Scores to 17 leading bits, so that equal texts tie.

    A keyword engine adds up a text's words in an order that depends on the query's form and the text's place, so that
    the last bits of a float32 say nothing.
    """
    mantissas, exponents = np.frexp(scores)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissas, BITS)), exponents - BITS), dtype=np.float32)


def distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each once, ascending. `np.unique` hashes, which takes a second for a million."""
    ascending = np.sort(numbers)
    return ascending[np.diff(ascending, prepend=-1) > 0]


def best(ids: Ids, scores: NDArray[np.float32], k: int) -> Hits:
    """The k best of these hits: larger scores first, equal scores by id."""
    order = np.lexsort((ids, -scores))[:k]
    return Hits(ids=ids[order], scores=scores[order])
