"""What retrieval asks of a generation's indexes, whether they follow the catalog here or are written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.checks import distinct
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
    ids = distinct(np.concatenate([empty, *(hits.ids for hits in (dense, keyword) if hits is not None)]))
    scores, proposed, lacking = [], [], []
    for hits in (dense, keyword):
        column, inside = np.full(len(ids), np.nan, dtype=np.float32), np.zeros(len(ids), dtype=np.bool_)
        if hits is not None:
            places = ids.searchsorted(hits.ids)
            column[places], inside[places] = hits.scores, True
        scores.append(column)
        proposed.append(inside)
        lacking.append(np.flatnonzero(~inside) if hits is not None else empty)
    if len(lacking[0]) or len(lacking[1]):
        more = rescore(ids[lacking[0]], ids[lacking[1]])
        for column, places, missing in zip(scores, lacking, more, strict=True):
            column[places] = missing
    return Scored(ids, scores[0], scores[1], proposed[0], proposed[1])
