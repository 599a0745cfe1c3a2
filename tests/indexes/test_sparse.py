from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from indexes import sparse
from indexes.sparse import text_vector, word_number


def test_examples() -> None:
    assert doctest.testmod(sparse).failed == 0


def test_numbers_are_the_same_for_good() -> None:
    """They are in every collection that was ever filled: BLAKE2b of four bytes, the first one lowest.

    By hand: `printf river | b2sum -l 32` says 62f4ae7e.
    """
    assert word_number("river") == 0x7EAEF462
    assert [word_number(word) for word in ("全文", "\ud800")] == [547213020, 3881294392]


@given(st.lists(st.sampled_from(["river", "stone", "東京", "🎉"])), st.floats(1, 1000))
def test_weights_lie_between_none_and_all(words: list[str], average: float) -> None:
    vector = text_vector(words, average)
    assert set(vector) == {word_number(word) for word in words}
    assert list(vector) == sorted(vector)
    assert all(0 < weight < sparse.K1 + 1 for weight in vector.values())
    assert text_vector(words[::-1], average) == vector


def test_more_of_a_word_weighs_more_and_a_longer_text_less() -> None:
    number = word_number("river")
    weights = [text_vector(["river"] * count + ["stone"] * (10 - count), 10)[number] for count in range(1, 10)]
    assert weights == sorted(set(weights))
    lengths = [text_vector(["river"] + ["stone"] * more, 10)[number] for more in range(20)]
    assert lengths == sorted(set(lengths), reverse=True)
    assert text_vector(["river"] + ["stone"] * 9, 10)[number] == 1.0
