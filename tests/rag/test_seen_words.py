"""BM25 by what a caller sees, against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexes.sparse import AVERAGE_WORDS, K1, B
from indexes.words import analyse
from rag.seen_words import ChunkWords, bm25

TEXTS = {3: "The kettle whistles, and the kettle boils.", 5: "A lamp." * 60, 8: "", 9: "Nothing of the kind."}


def kept() -> ChunkWords:
    return ChunkWords(capacity=2)


def defined(words: list[str], total: int, counts: list[int], text: str) -> float:
    said = analyse(f"Heading {text}")
    dampened = K1 * (1 - B + B * len(said) / AVERAGE_WORDS)
    score = 0.0
    for word, holding in zip(words, counts, strict=True):
        rarity = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
        score += rarity * said.count(word) * (K1 + 1) / (said.count(word) + dampened)
    return score


@pytest.mark.parametrize(("question", "counts"), [("kettle lamp zebra", [1, 1, 0]), ("the", [2]), ("", [])])
def test_scores_are_those_of_the_definition(question: str, counts: list[int]) -> None:
    words, ids, store = analyse(question), np.array([9, 5, 3, 8, 7]), kept()
    asked: list[int] = []

    def texts(missing: object) -> list[tuple[int, str, str]]:
        asked.extend(missing)  # type: ignore[call-overload]
        return [(id_, TEXTS[id_], "Heading") for id_ in missing if id_ in TEXTS]  # type: ignore[attr-defined]

    for _ in range(2):  # what is kept says the same as what is read
        scores = bm25(words, 4, counts, store.of(ids, texts))
        expected = [defined(words, 4, counts, TEXTS[id_]) if id_ in TEXTS else 0.0 for id_ in ids.tolist()]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert len(asked) == 5 + 3
    assert len(bm25(words, 4, counts, [])) == 0
