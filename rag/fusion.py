"""Making one ranking of a dense and a keyword ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RRF_K = 60


@dataclass(frozen=True)
class Scored:
    """Candidates of one query, column by column; NaN where a leg has no score.

    `dense` is a cosine, `keyword` a BM25 score; `in_dense` and `in_keyword` say which leg proposed a candidate.
    """

    ids: NDArray[np.int64]
    dense: NDArray[np.float32]
    keyword: NDArray[np.float32]
    in_dense: NDArray[np.bool_]
    in_keyword: NDArray[np.bool_]


def fuse_scaled(scored: Scored, dense_weight: float) -> NDArray[np.float64]:
    """The weighted mean of both legs, each scaled to [0, 1] within the query (a convex combination after Bruch et al.,
    2023, "An Analysis of Fusion Functions for Hybrid Retrieval"); larger is better.

    The scale runs from 0, which means unrelated in both legs, to the best candidate. It does not depend on how many
    candidates a leg proposed, as one from the weakest of them would.
    """
    return dense_weight * _scaled(scored.dense) + (1.0 - dense_weight) * _scaled(scored.keyword)


def fuse_rrf(scored: Scored, dense_weight: float, k: int = RRF_K) -> NDArray[np.float64]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009), weighted; larger is better."""
    total = np.zeros(len(scored.ids))
    for scores, proposed, weight in (
        (scored.dense, scored.in_dense, dense_weight),
        (scored.keyword, scored.in_keyword, 1.0 - dense_weight),
    ):
        total[proposed] += 2.0 * weight / (k + _ranks(scores[proposed], scored.ids[proposed]))
    return total


def best_first(ids: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions ordered by descending score, ties by ascending id."""
    return np.lexsort((ids, -scores))


def merge_by_rank(rankings: Sequence[Sequence[int]], k: int = RRF_K) -> dict[int, float]:
    """One score for each id over several rankings whose scores cannot be compared; larger is better."""
    total: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            total[item] = total.get(item, 0.0) + 1.0 / (k + rank)
    return total


def _scaled(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    values = np.clip(np.nan_to_num(scores.astype(np.float64)), 0.0, None)
    best = values.max(initial=0.0)
    return values / best if best > 0 else values


def _ranks(scores: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    ranks = np.empty(len(scores))
    ranks[best_first(ids, scores.astype(np.float64))] = np.arange(1, len(scores) + 1)
    return ranks
