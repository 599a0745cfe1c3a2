"""The contract of a keyword index: which ids hold these words, within this set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexes.vector import Hits, Ids


@dataclass(frozen=True)
class KeywordEntry:
    """One text to index.

    `heading` is searched with the text (a title and heading path); both are plain text, never query syntax.
    """

    id: int
    text: str
    heading: str = ""


class KeywordIndex(Protocol):
    """Maps integer ids to texts and ranks them by BM25 (Robertson and Zaragoza, 2009).

    All engines use the same analysis of words (`indexes.words`). Changes become visible at
    `commit`, all together. `Hits.scores` are BM25 scores: above 0, larger is better, without an upper
    bound, comparable only within one query; equal scores come in order of id. What was removed may weigh in them, as
    rarity and mean length, until the index is compact (`compact`); then they depend on the texts in it alone.
    """

    average_words: float | None
    """The length that BM25 measures each text's by, in words; None for the mean of the texts in the index."""

    def add(self, entries: Sequence[KeywordEntry]) -> None:
        """Index these texts. An id that is already there is replaced."""
        ...

    def remove(self, ids: Ids) -> None:
        """Forget these ids. Ids that are not there are ignored."""
        ...

    def commit(self) -> None:
        """Make every change since the last commit visible to the next search."""
        ...

    def compact(self) -> bool:
        """Take a step, of about a tenth of a second, towards an index as if nothing had ever been removed.

        Whether there may be another one to take. Does nothing, and says no, while changes wait for their commit.
        """
        ...

    def search(self, query: str, k: int, allowed: Ids | None = None) -> Hits:
        """The k best ids for the words of `query`, each distinct word counted once. No known word means no hits.

        `allowed`, sorted and unique, restricts the search *before* the top k is taken. The result
        is the unrestricted ranking with the restriction applied (same scores, same order).
        """
        ...

    def scores(self, query: str, ids: Ids) -> NDArray[np.float32]:
        """Each id's score as `search` gives it, in the order given; 0 without any of the words, or not there."""
        ...

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """Whether each analysed word occurs in each text: shape (len(words), len(ids)).

        False for an id that is not there.
        """
        ...

    def document_frequency(self, words: Sequence[str]) -> list[int]:
        """For each analysed word (see `indexes.words.analyse`), in how many texts it occurs."""
        ...

    def __len__(self) -> int:
        """How many texts are visible."""
        ...

    def close(self) -> None:
        """Release what the index holds. Idempotent. A search that is under way in another thread ends unharmed."""
        ...
