"""Recognises a text that has been seen before, word for word or nearly so."""

from __future__ import annotations

import re
from collections import Counter

SIMILAR = 0.9
"""Share of common shingles (Jaccard) above which two texts are near duplicates (Broder, 1997)."""
SHINGLE = 5
"""Words in a shingle."""

# A word; in scripts written without spaces, each letter.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")


class SeenTexts:
    """Texts seen so far. Looking one up costs its own length, however many were seen."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._numbers: list[tuple[str, ...]] = []
        self._holders: dict[int, list[int]] = {}
        """Which texts hold a shingle."""

    def add(self, text: str) -> None:
        """Remember this text."""
        words = _words(text)
        shingles = _shingles(words)
        for shingle in shingles:
            self._holders.setdefault(shingle, []).append(len(self._sizes))
        self._sizes.append(len(shingles))
        self._numbers.append(_numbers(words))

    def __contains__(self, text: object) -> bool:
        """Was this text seen, case, punctuation and white space aside, or one more than 0.9 like it?

        Texts that differ in a number are never duplicates: two versions of a price list say different things.
        """
        words = _words(str(text))
        shingles, numbers = _shingles(words), _numbers(words)
        common = Counter(holder for shingle in shingles for holder in self._holders.get(shingle, ()))
        return any(
            shared > SIMILAR * (len(shingles) + self._sizes[holder] - shared) and numbers == self._numbers[holder]
            for holder, shared in common.items()
        )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold()) or text.split()


def _shingles(words: list[str]) -> set[int]:
    if len(words) <= SHINGLE:
        return {hash(tuple(words))}
    return {hash(tuple(words[at : at + SHINGLE])) for at in range(len(words) - SHINGLE + 1)}


def _numbers(words: list[str]) -> tuple[str, ...]:
    return tuple(word for word in words if any(letter.isdigit() for letter in word))
