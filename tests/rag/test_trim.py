"""Cuts at sentences and words, against every possible cut tried in the test."""

from __future__ import annotations

import random

import pytest

from rag.trim import longest_beginning, longest_ending, sentence_ends, word_ends

TEXTS = [
    "One two. Three four five! Is it? Yes",
    "線を引く。次の文です！終わり",
    "no border at all in this line of words",
    "line one\nline two\n\n  line three  \n",
    "x" * 200,
    "",
    "   ",
    'He said "stop." Then 3.5 m… and on.',
]


def count(text: str) -> int:
    """A token is two characters."""
    return (len(text) + 1) // 2


def test_sentences_end_where_a_reader_would_say() -> None:
    assert [TEXTS[0][:end] for end in sentence_ends(TEXTS[0])] == [
        "One two.",
        "One two. Three four five!",
        "One two. Three four five! Is it?",
    ]
    assert sentence_ends("線を引く。次の文です！終わり") == [5, 11]
    assert sentence_ends("a\n\nb\nc") == [1, 4]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("slack", [0, 3, 1000])
def test_the_longest_cut_that_fits_is_found(text: str, slack: int) -> None:
    for limit in range(count(text) + 3):
        fitting = [end for end in sentence_ends(text) if count(text[:end]) <= limit]
        expected = max(fitting, default=0)
        if not expected or limit - count(text[:expected]) > slack:
            expected = max([expected, *(end for end in word_ends(text) if count(text[:end]) <= limit)])
        assert longest_beginning(text, count, limit, slack) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_endings_fit_and_start_at_a_word(text: str) -> None:
    for limit in range(count(text) + 3):
        start = longest_ending(text, count, limit, random.Random(limit).choice((0, 1000)))
        assert count(text[start:]) <= limit or start == len(text)
        assert start == len(text) or not text[start].isspace()


def test_the_whole_text_may_be_its_own_ending() -> None:
    assert longest_ending("One two. Three.", count, 100, 0) == 0
    assert longest_ending("One two. Three.", count, 3, 0) == 9
