"""Every marker that leaves names a passage; every citation is an exact span; cuts change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.citations import CitationFilter, RemovedMarker, find_quote
from rag.models import Quote
from tests.rag.answers import passage
from tests.rag.test_guard import TEXTS

TEXTS_OF = [
    "The port is 8000 by default.\nSet it in [server], see [3]\nand restart.",
    "Keys stand in the environment. Never in a file.",
    "第三章:端口号是8000。重启服务器。",
    "The port is 8000 by default.",
]
PASSAGES = [passage(i + 1, text) for i, text in enumerate(TEXTS_OF)]


def filtered(text: str, sizes: list[int] | None = None) -> tuple[str, CitationFilter]:
    """The text through a filter, whole or in pieces of these sizes, over and over."""
    through, out, at, turn = CitationFilter(PASSAGES), "", 0, 0
    sizes = sizes or [max(len(text), 1)]
    while at < len(text):
        out += through.feed(text[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return out + through.finish(), through


@pytest.mark.parametrize(
    ("text", "expected", "numbers", "removed"),
    [
        ("a [1].", "a [1].", [1], []),
        ("a [7]. b", "a. b", [], ["[7]"]),
        ("a [0] b", "a b", [], ["[0]"]),
        ("a [²] b", "a b", [], ["[²]"]),
        ("a [1, 9]", "a [1]", [1], ["[1, 9]"]),
        ("a [2;1] b [1 & 2]", "a [2][1] b [1][2]", [2, 1, 1, 2], []),
        ("a [1-3]", "a [1][2][3]", [1, 2, 3], []),
        ("a [3–9]", "a [3][4]", [3, 4], ["[3–9]"]),
        ("a [3-1] [999999999999999999-1]", "a", [], ["[3-1]", "[999999999999999999-1]"]),
        ("a [1][2]", "a [1][2]", [1, 2], []),
        ("a【1】b", "a[1]b", [1], []),
        ("a【2†L3-L5】【8†x】", "a[2]", [2], ["【8†x】"]),
        ("[^1] [^7] [^note]", "[1] [^note]", [1], ["[^7]"]),
        ("[1†source]", "[1]", [1], []),
        ("[１]", "[1]", [1], []),
        ("[1](http://evil.example) and [1]: x", "[1] and [1] : x", [1, 1], []),
        ("[9](//evil.example)x", "x", [], ["[9]"]),
        ("`a[0]` and a[0]", "`a[0]` and a", [], ["[0]"]),
        ("```\na[0] [9]\n```\n[9]", "```\na[0] [9]\n```\n", [], ["[9]"]),
        ("[x] [note 1] [ ] [] [2024-05-01] [1.5] [1", "[x] [note 1] [ ] [] [2024-05-01] [1.5] [1", [], []),
        ("x[7]y", "x y", [], ["[7]"]),
        ("www[9].evil.example", "www .evil.example", [], ["[9]"]),
        ("a [7", "a [7", [], []),
        ("a ", "a ", [], []),
        ("", "", [], []),
    ],
)
def test_markers(text: str, expected: str, numbers: list[int], removed: list[str]) -> None:
    for sizes in ([len(text) or 1], [1], [2], [3, 1]):
        out, through = filtered(text, sizes)
        assert out == expected
        assert [citation.number for citation in through.citations] == numbers
        assert [marker.raw for marker in through.removed] == removed


def test_what_was_removed_says_where() -> None:
    _, through = filtered("One [8]. Two [1][9].")
    assert through.removed == [RemovedMarker("[8]", 3), RemovedMarker("[9]", 12)]


def test_ordinary_text_is_not_held_back() -> None:
    through = CitationFilter(PASSAGES)
    assert through.feed("The port is 8000") == "The port is 8000"
    assert through.feed(" [") == ""
    assert through.feed("1") == ""
    assert through.feed("]") == ""  # `(` or `:` may follow
    assert through.feed(".") == " [1]."
    assert through.feed(" [no") == ""  # a link's words, perhaps
    assert through.feed("te] x") == " [note] x"


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ("The port is 8000 by default. [1]", ["The port is 8000 by default."]),
        ("I looked. The port is 8000 by default. [4]", [TEXTS_OF[3]]),
        ("Set it in [server], see and restart. [1]", ["Set it in [server], see [3]\nand restart."]),
        ("- “Never in a file.” [2]", ["Never in a file."]),
        ("**Never in a file.** [2]", ["Never in a file."]),
        ("端口号是8000。重启服务器。 [3]", ["端口号是8000。重启服务器。"]),
        ("The port is 8000 by default [1][4].", ["The port is 8000 by default", "The port is 8000 by default"]),
        ("It is written that keys never stand in files [2].", [TEXTS_OF[1]]),
        ("[2]", [TEXTS_OF[1]]),
        (
            "Keys stand in the environment. [2] Never in a file. [2]",
            ["Keys stand in the environment.", "Never in a file."],
        ),
    ],
)
def test_a_citation_is_what_the_answer_repeats_or_the_whole_passage(text: str, quotes: list[str]) -> None:
    _, through = filtered(text, [4])
    assert [citation.quote for citation in through.citations] == quotes


def test_what_the_guard_makes_harmless_is_found_again() -> None:
    sentence = "See [the page]({{ site.url }}/a), a[x]: int, and <<producing messages>> there."
    part = passage(1, f"Before. {sentence} After.")
    through = CitationFilter([part])
    out = through.feed(f"{sentence} [1]") + through.finish()
    assert not out.startswith(sentence)
    assert [citation.quote for citation in through.citations] == [sentence]
    assert find_quote("<<producing messages", part.text) == (part.text.index("<<"), part.text.index(">>"))


def test_brackets_in_a_quote_are_the_documents_own_and_its_marker_stands_for_it() -> None:
    text = "Take a[0] of [2], see [21], [3](https://a.example/3) [\u202ehere]({{ x }}) <<this.\nAnd so on."
    part = passage(2, text)
    through = CitationFilter([PASSAGES[0], part])
    end = text.index("\n")
    out = through.feed("He says: ") + through.feed(text[:end].replace("\u202e", ""), Quote(part, 0, end))
    out += through.feed(" [2][1], and more [2], [7].") + through.finish()
    said = "Take a[0] of [2], see [21], [3](https://a.example/3) [here]({{ x }}) <&lt;this."
    assert out == f"He says: {said} [2][1], and more [2],."
    assert [(c.number, c.quote) for c in through.citations] == [(2, text[:end]), (1, TEXTS_OF[0]), (2, text)]
    assert [marker.raw for marker in through.removed] == ["[7]"]
    assert all(out[c.marker_start : c.marker_end] == f"[{c.number}]" for c in through.citations)


def check_citations(out: str, through: CitationFilter) -> None:
    """Markers are where they are said to be, and quotes are exact spans of the document."""
    for citation in through.citations:
        part = PASSAGES[citation.number - 1]
        assert out[citation.marker_start : citation.marker_end] == f"[{citation.number}]"
        document = "\n" * part.start + part.text
        assert document[citation.start : citation.end] == citation.quote != ""
        assert (citation.document_id, citation.version_id) == (part.document_id, part.version_id)
        assert (citation.file_id, citation.filename, citation.store_id) == (part.file_id, part.filename, part.store_id)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_cuts_change_nothing_and_every_citation_is_exact(text: str, sizes: list[int]) -> None:
    out, through = filtered(text, sizes)
    whole, at_once = filtered(text)
    assert (out, through.citations, through.removed) == (whole, at_once.citations, at_once.removed)
    check_citations(out, through)


class Liar(CitationFilter):
    """Lets everything through as it comes and knows of no citation."""

    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


def test_a_filter_that_does_nothing_is_found_out() -> None:
    through = Liar(PASSAGES)
    assert through.feed("a [7].") + through.finish() != filtered("a [7].")[0]
