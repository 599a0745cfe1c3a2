"""BM25 for a caller who may not see all of a store: rarity and length are judged without what is hidden.

An index counts every text that it holds. Its scores would tell such a caller whether a hidden text has a word: the word
would weigh less. So what an index proposes is scored again here, by words of the texts themselves and by how many of
the texts that the caller sees hold each; and the length that counts as neither long nor short is a constant.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexes.sparse import text_vector, word_number
from indexes.vector import Ids
from indexes.words import analyse

SAMPLE = 10_000
"""Of more texts than this, the share that holds a word is that of so many of them, evenly spread."""

Texts = Callable[[Sequence[int]], Iterable[tuple[int, str, str]]]
"""(number, text, heading) of chunks."""


class ChunkWords:
    """The words of chunks as weights (`indexes.sparse`), those asked for lately kept: some 7 KB each. A chunk never
    changes. Safe to use from several threads."""

    def __init__(self, capacity: int = 4_000) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[int, Mapping[int, float]] = OrderedDict()
        self._lock = Lock()

    def of(self, ids: Ids, texts: Texts) -> list[Mapping[int, float]]:
        """The weights of each of these chunks; none for one whose text is gone."""
        with self._lock:
            found = {id_: self._kept[id_] for id_ in ids.tolist() if id_ in self._kept}
        missing = [id_ for id_ in ids.tolist() if id_ not in found]
        new = {id_: text_vector([*analyse(heading), *analyse(text)]) for id_, text, heading in texts(missing)}
        with self._lock:
            self._kept.update(new)
            for id_ in found.keys() & self._kept.keys():
                self._kept.move_to_end(id_)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return [found.get(id_) or new.get(id_, {}) for id_ in ids.tolist()]


class Seen:
    """How many chunks a caller sees, and in how many of them a word occurs, as a view was at one position."""

    def __init__(self, position: tuple[int, int], visible: Ids) -> None:
        self.position = position
        self.total = len(visible)
        self._sample = visible[:: -(-self.total // SAMPLE) or 1]
        self._counts: dict[str, int] = {}

    def counts(self, words: Sequence[str], contains: Callable[[Sequence[str], Ids], NDArray[np.bool_]]) -> list[int]:
        """For each analysed word, in how many chunks it occurs."""
        new = [word for word in words if word not in self._counts]
        if new:
            held = contains(new, self._sample).sum(axis=1)
            factor = self.total / max(len(self._sample), 1)
            self._counts |= {word: round(float(n) * factor) for word, n in zip(new, held, strict=True)}
        return [self._counts[word] for word in words]


def bm25(
    words: Sequence[str], total: int, counts: Sequence[int], chunks: Sequence[Mapping[int, float]]
) -> NDArray[np.float32]:
    """The score of each chunk for distinct analysed words, of which `counts` of `total` chunks hold each."""
    rarity = [
        (word_number(word), np.log1p((total - n + 0.5) / (n + 0.5))) for word, n in zip(words, counts, strict=True)
    ]
    return np.array([sum(idf * held.get(number, 0.0) for number, idf in rarity) for held in chunks], dtype=np.float32)
