"""How rare an English word is, wherever it stands: the background against which the words of an answer tell.

`words.txt` holds the commonest ordinary words, names left out, most frequent first. It was made by
`python -m tests.benchmarks.common_words` from the order of two vocabularies: that of the packaged embedding model,
which is sorted by frequency, and that of `cl100k_base`, which knows capitals and so tells names from words.

A background that is shipped, and not the store's own frequencies: the same answer over the same passages is judged
alike in every installation, without asking an index, and neither was better (`tests.benchmarks.groundedness`).
Words of other languages are rare ones here, all alike.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files

from indexes.words import analyse

FLATNESS = 10
"""Added to every rank: the very commonest words do not differ much."""


def weight(term: str) -> float:
    """What an analysed word counts, from 0 (the commonest) to 1 (one that is not among them): by Zipf's law the
    logarithm of a word's rank is that of its rarity."""
    ranks = _ranks()
    last = len(_words())
    return math.log((ranks.get(term, last) + FLATNESS) / FLATNESS) / math.log((last + FLATNESS) / FLATNESS)


def is_common(word: str) -> bool:
    """Whether a word, case-folded, is an ordinary one."""
    return word in _words()


@lru_cache(maxsize=1)
def _words() -> dict[str, int]:
    lines = files("rag.evaluation").joinpath("words.txt").read_text(encoding="utf-8").split()
    return {word: rank for rank, word in enumerate(lines)}


@lru_cache(maxsize=1)
def _ranks() -> dict[str, int]:
    """The rank of each analysed word: that of its commonest form."""
    ranks: dict[str, int] = {}
    for word, rank in _words().items():
        ranks.setdefault(analyse(word)[0], rank)
    return ranks
