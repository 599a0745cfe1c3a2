"""What must be found by what: documents and questions meet in `analyse`."""

from __future__ import annotations

import doctest
import random
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import words
from indexes.errors import Unsupported
from indexes.words import LONGEST, WORDS_VERSION, analyse, content_words, without_common_words


def test_examples() -> None:
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("naive cafe", "naïve CAFÉ"),
        ("naïve café", "NAIVE cafe"),
        ("cafe\u0301", "café"),
        ("strasse", "STRASSE"),
        ("Straße", "strasse"),
        ("istanbul", "İSTANBUL"),
        ("fine", "ﬁne"),
        ("ABC 123", "ＡＢＣ １２３"),
        ("running shoes", "he runs in a shoe"),
        ("dont", "don't"),
        ("don’t", "don't"),
        ("company", "the company's"),
        ("user", "users' manual"),
        ("reilly", "O'Reilly"),
        ("école", "l'école"),
        ("conn", "ERR_CONN-0x7f"),
        ("err_conn-0X7F", "see ERR_CONN-0x7f."),
        ("ab-1234", "(AB-1234)"),
        ("1234", "AB-1234"),
        ("bar_baz", "bar_baz"),
        ("baz", "foo.bar_baz"),
        ("foo.bar_baz", "call foo.bar_baz()"),
        ("c++", "in C++, of course"),
        ("C#", "c# and f#"),
        ("state of the art", "state-of-the-art"),
        ("e\u2011mail", "e-mail"),
        ("ann@example.com", "<ann@example.com>"),
        ("検索", "全文検索システム"),
        ("東京", "GPU東京2024"),
        ("水", "水"),
        ("ภาษา", "ภาษาไทย"),
        ("서울", "서울특별시"),
        ("किताबें", "हिन्दी की किताबें।"),
        ("Ελλαδα", "ΕΛΛΆΔΑ"),
        ("елка", "Ёлка"),
        ("🎉", "party🎉time"),
        ("👍🏽", "👍"),
        ("document", "docu\u00adment"),
        ("نص", "نَصّ"),
        ("z" * 300, "Z" * 300),
        ("y" * 5000, "Y" * 5000),
    ],
)
def test_a_question_finds_all_its_words_in_the_text(question: str, text: str) -> None:
    assert analyse(question)
    assert set(analyse(question)) <= set(analyse(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C++", "C#"),
        ("AB-1234", "AB-1235"),
        ("हिन्दी", "हन्दा"),
        ("か", "が"),
        ("🎉", "🎂"),
        ("東京", "京都"),
        ("1.5", "15"),
    ],
)
def test_what_differs_stays_apart(one: str, other: str) -> None:
    assert analyse(one) != analyse(other)


@pytest.mark.parametrize("nothing", ["", " \t\n", "?!… — ()", "'", "__", "\x00", "\ud800", "\u200b\u200d\ufeff", "-.-"])
def test_no_words(nothing: str) -> None:
    assert analyse(nothing) == []
    assert content_words(nothing) == []


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_gives_words_that_an_engine_can_hold(text: str) -> None:
    found = analyse(text)
    for word in found:
        assert word
        assert not any(letter.isspace() for letter in word)
        assert len(word.encode()) < 60_000
    assert analyse(text) == found
    assert len(content_words(text)) == len(set(content_words(text)))
    assert bool(content_words(text)) == bool(found)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(categories=("Lu", "Ll", "Lo", "Nd")), min_size=1))
def test_every_letter_and_digit_counts(text: str) -> None:
    assert analyse(text), [unicodedata.name(letter, "?") for letter in text]


def test_parts_of_the_text_give_the_words_of_the_whole() -> None:
    pieces = ["The AB-1234", "don't", "東京", "ERR_CONN", "naïve", "🎉", "runs"]
    random.Random(1).shuffle(pieces)
    assert analyse(" ".join(pieces)) == [word for piece in pieces for word in analyse(piece)]


def test_a_hex_dump_gives_parts_but_no_monster() -> None:
    found = analyse(":".join(["7f"] * 500))
    assert found == ["7f"] * 500
    assert max(map(len, analyse("a-" * 20 + "b" * 5000))) == LONGEST


def test_content_words() -> None:
    assert content_words("What is the capital of France, and what isn't?") == analyse("capital France")
    assert content_words("Rivers, rivers and the river") == ["river"]
    assert content_words("to be or not to be") == ["to", "be", "or", "not"]


def test_other_languages() -> None:
    assert analyse("Häuser", "german") == analyse("Haus", "german")
    assert analyse("книги", "russian") == analyse("книга", "russian")
    with pytest.raises(Unsupported, match="english"):
        analyse("x", "klingon")


def test_the_analysis_is_pinned_by_its_version() -> None:
    """When this changes, `WORDS_VERSION` must too: indexes made before have to be rebuilt."""
    assert WORDS_VERSION.startswith("1-")
    assert analyse("The O'Reilly book's 2nd ed. (ISBN 978-0596), naïve C++ 全文 🎉") == [
        *("the", "oreilli", "reilli", "book", "2nd", "ed", "isbn", "978-0596", "978", "0596"),
        *("naiv", "c++", "c", "全文", "🎉"),
    ]


def test_importing_the_file_loads_no_stemmer() -> None:
    code = "import sys, indexes.words; sys.exit('Stemmer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("How do I renew my library card?", "renew library card"),
        ("What is ERR_CONN-0x7f?", "ERR_CONN-0x7f"),
        ("to be or not to be", "to be or not to be"),
        ("東京 の 天気", "東京 の 天気"),
        ("???", "???"),
        ("", ""),
    ],
)
def test_common_words_leave_a_question(question: str, left: str) -> None:
    assert without_common_words(question) == left
    assert set(content_words(question)) == set(analyse(left))
