"""What retrieval asks of a generation's indexes, whether they follow the catalog here or are written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.filters import Filter
from indexes.vector import Hits, Ids
from rag.fusion import Scored

Scores = NDArray[np.float32]
Tags = frozenset[str] | None
"""What a caller holds (`Caller.tags`); None sees everything."""
Statistics = tuple[int, Sequence[int]]
Vector = Callable[[], Scores]


class Searchable(Protocol):
    """Both legs of one generation."""

    def search(
        self, vector: Vector | None, words: str | None, condition: Filter | None, depth: int, tags: Tags
    ) -> Scored:
        """What each leg proposes, at most `depth` chunks each, and both scores of all of them; None leaves a leg out.
        The question's `vector` is asked for once, here, so that it can be computed beside the other leg's search.

        Documents without any of these `tags` are as if they were not there: neither hits nor scores nor errors depend
        on them. A chunk that is not visible in the catalog may be among the hits. Raises ChangeRequest for a filter by
        a key that no document has.
        """
        ...

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `KeywordIndex.contains`."""
        ...

    def statistics(self, words: Sequence[str], tags: Tags) -> Statistics:
        """How many chunks there are, about, and in how many each analysed word occurs, among what these tags show."""
        ...

    def __len__(self) -> int:
        """How many chunks there are, about."""
        ...


def both_legs(dense: Hits | None, keyword: Hits | None, rescore: Callable[[Ids, Ids], tuple[Scores, Scores]]) -> Scored:
    """The proposals of both legs together.

    `rescore` gives the dense scores of its first ids and the keyword scores of its second ones: those that the other
    leg alone proposed.
    """
    empty = np.empty(0, dtype=np.int64)
    dense_ids = dense.ids if dense is not None else empty
    keyword_ids = keyword.ids if keyword is not None else empty
    ids = np.union1d(dense_ids, keyword_ids)
    in_dense, in_keyword = np.isin(ids, dense_ids), np.isin(ids, keyword_ids)
    scores = [np.full(len(ids), np.nan, dtype=np.float32) for _ in range(2)]
    for hits, column in ((dense, scores[0]), (keyword, scores[1])):
        if hits is not None:
            column[np.searchsorted(ids, hits.ids)] = hits.scores
    no_dense = ids[~in_dense] if dense is not None else empty
    no_keyword = ids[~in_keyword] if keyword is not None else empty
    if len(no_dense) or len(no_keyword):
        more_dense, more_keyword = rescore(no_dense, no_keyword)
        scores[0][np.searchsorted(ids, no_dense)] = more_dense
        scores[1][np.searchsorted(ids, no_keyword)] = more_keyword
    return Scored(ids, scores[0], scores[1], in_dense, in_keyword)
