"""From a parsed document to its chunks: spans of the text, sized in the embedder's own tokens.

    document ── sections (by headings) ── merged where tiny ── cut into spans where too long ── counted exactly
                                                                   │
                       blocks ── atoms (langchain-text-splitters) ─┘

A long section is cut where that hurts least: every possible border has a cost (a block's end, a
sentence's end, a word's end), and so has a chunk that is far from the size of its neighbours. Thus 300 tokens become
150 + 150 rather than 254 + 46, and the cut lies at a sentence near the middle.

Sizes are estimated from one tokenizer pass over the whole text; whatever leaves here has been counted
as it will be embedded, header and all, because token counts do not add up across joins.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise

from indexes.errors import ChangeRequest
from ingest.document import Block, BlockKind, ParsedDocument
from rag.tokenizers import Tokenizer

SPLITTER_VERSION = 2
"""Raised whenever the same document and settings would give other chunks."""

SMALLEST_LIMIT = 32
"""Tokens. Below this not even one character is sure to fit beside its header."""

CHARACTERS_PER_TOKEN = 16
"""A chunk never holds more characters than this times the limit, however few tokens they make: some models
read a word of 100,000 characters as one unknown token."""

HEADING_SEPARATOR = " › "
_HEADING_CHARACTERS = 300
_PASS_CHARACTERS = 200_000
_MARKDOWN_MARKS = re.compile(r"^ {0,3}#{1,6}(?= )|(?<= )#+ *$|\{:? ?#[^{}]*\} *$")  # with the anchor `{ #name }`
_JOIN_SLACK = 2  # tokens that a join of header and text may add


@dataclass(frozen=True)
class ChunkSettings:
    """How to split. Raises ChangeRequest (`invalid_chunking`) for numbers that make no sense."""

    max_tokens: int | None = None
    """Tokens of a chunk as embedded, its header included; None or more than the embedder's limit means that limit."""
    overlap_tokens: int = 0
    """At most so many tokens of the previous chunk of the same section are repeated, from a sentence or word on."""
    header: bool = True
    """Put the title and the headings above, and a cut table's first row, in front of the text that is embedded."""
    merge_below: float = 0.25
    """A section smaller than this share of a chunk is merged with siblings where they fit: 0 none, 0.5 all that fit."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < SMALLEST_LIMIT:
            raise _invalid(f"max_tokens is {self.max_tokens}; use at least {SMALLEST_LIMIT}", "max_tokens")
        if self.overlap_tokens < 0:
            raise _invalid(f"overlap_tokens is {self.overlap_tokens}; use 0 or more", "overlap_tokens")
        if not 0 <= self.merge_below <= 0.5:
            raise _invalid(f"merge_below is {self.merge_below}; use a share from 0 to 0.5", "merge_below")

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over every setting and the splitter's version."""
        canonical = json.dumps({**asdict(self), "version": SPLITTER_VERSION}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ChunkSpan:
    """One chunk: `document.text[start:end]`, neither empty nor with white space at its ends."""

    start: int
    end: int
    heading_path: tuple[str, ...]
    """The headings, outermost first, under which the whole chunk stands."""
    page: int | None
    """The page on which the chunk starts, where the format has pages."""
    tokens: int
    """Exact tokens of `embedding_text(header, document.text[start:end])`."""
    header: str
    """Title and headings above, without those that the chunk itself begins with, and on a line of its own the first row
    of a table that the chunk goes on with; "" where none is left."""


def embedding_text(header: str, text: str) -> str:
    """What is embedded and keyword-indexed for a chunk: its header, a line break, its text."""
    return f"{header}\n{text}" if header else text


def split_document(
    document: ParsedDocument, tokenizer: Tokenizer, limit: int, settings: ChunkSettings
) -> list[ChunkSpan]:
    """The chunks of a document, in order; none for a text of white space only.

    `tokenizer` and `limit` are the embedder's own (`Embedder.tokenizer`, `Embedder.limit`, tokens). Every
    character but white space lies in a chunk, starts strictly increase, and no chunk takes more than `limit`
    tokens as embedded.
    Raises ChangeRequest (`invalid_chunking`) where the limit is too small to hold the text.
    """
    most = min(limit, settings.max_tokens or limit)
    if most < SMALLEST_LIMIT:
        raise _invalid(f"the embedder takes {limit} tokens; splitting needs at least {SMALLEST_LIMIT}", "limit")
    if settings.overlap_tokens > most // 2:
        raise _invalid(
            f"overlap_tokens is {settings.overlap_tokens}, more than half of a chunk of {most} tokens; "
            f"use at most {most // 2}",
            "overlap_tokens",
        )
    return list(_Splitter(document, tokenizer, most, settings).chunks())


def _invalid(message: str, param: str) -> ChangeRequest:
    return ChangeRequest(f"Cannot split like this: {message}.", code="invalid_chunking", param=param)


@dataclass(frozen=True)
class _Section:
    """A heading and the text up to the next heading; after merging, a run of such sections."""

    start: int
    end: int
    first: tuple[int, ...]
    """Positions of the headings above and of its own: equal headings in different places differ."""
    scope: tuple[int, ...]
    """Those that stand above (or at the head of) everything in it; equal to `first` until merged."""
    bare: bool
    """Nothing but headings."""


@dataclass(frozen=True)
class _Border:
    """A place where a chunk may begin, and what it costs to cut there (0 is free, 1 hurts)."""

    position: int
    cost: float


class _Splitter:
    """One document being split: its text, blocks, sections and token positions."""

    def __init__(self, document: ParsedDocument, tokenizer: Tokenizer, most: int, settings: ChunkSettings) -> None:
        self.text = document.text
        self.markdown = document.media_type == "text/markdown"
        self.title = self.first_line(document.title.strip()) if self.markdown else _one_line(document.title)
        self.tokenizer = tokenizer
        self.most = most
        self.settings = settings
        self.blocks = _covering_blocks(document)
        self.block_starts = [block.start for block in self.blocks]
        self.headings = {
            block.start: self.heading_text(block.start, block.end) for block in self.blocks if block.kind == "heading"
        }
        self.sections = _sections(self.blocks)
        self.section_starts = [section.start for section in self.sections]
        self.token_starts = _token_starts(tokenizer, self.text)
        self.title_size = tokenizer.count(self.title)
        self.separator_size = tokenizer.count(HEADING_SEPARATOR)
        self.heading_sizes = {
            block.start: self.size(block.start, block.end) for block in self.blocks if block.kind == "heading"
        }
        self.header_sizes = [self.header_size(section.first) for section in self.sections]
        self.tables = [block for block in self.blocks if block.kind == "table"]
        self.table_starts = [block.start for block in self.tables]
        self.fitting_header = lru_cache(maxsize=1024)(self._fitting_header)

    def chunks(self) -> Iterator[ChunkSpan]:
        for section in self.merged_sections():
            budget = self.budget(section.start, section.end)
            alone = self.size(section.start, section.end) <= budget
            previous = -1
            for span in self.cut(section.start, section.end, budget - (0 if alone else self.settings.overlap_tokens)):
                for chunk in self.fitted(*span, budget, previous):
                    yield chunk
                    previous = chunk.start

    # Sizes

    def size(self, start: int, end: int) -> int:
        """Estimated tokens of a span; long runs that make few tokens count by their characters."""
        tokens = bisect_left(self.token_starts, end) - bisect_left(self.token_starts, start)
        return max(tokens, -(-(end - start) // CHARACTERS_PER_TOKEN))

    def budget(self, start: int, end: int) -> int:
        """Estimated tokens of text that fit beside the longest header that a chunk of this span may get."""
        if not self.settings.header:
            return self.most
        longest = max(self.header_sizes[self.section_at(start) : self.section_at(end - 1) + 1])
        room = self.most - min(longest, self.most // 4) - _JOIN_SLACK
        tables = self.tables[bisect_left(self.table_starts, start) : bisect_left(self.table_starts, end)]
        cut = [table for table in tables if self.size(table.start, table.end) > room]
        return room - max((self.tokenizer.count(self.first_row(table)) for table in cut), default=0)

    def header_size(self, key: Sequence[int]) -> int:
        """Estimated tokens of the whole header under these headings."""
        if key and self.headings[key[0]].casefold() == self.title.casefold():
            key = key[1:]
        return self.title_size + sum(self.heading_sizes[position] + self.separator_size for position in key)

    # Sections

    def section_at(self, position: int) -> int:
        return max(0, bisect_right(self.section_starts, position) - 1)

    def merged_sections(self) -> list[_Section]:
        """Sections, with tiny ones joined to their neighbours under the same parent heading."""
        merged: list[_Section] = []
        for section in self.sections:
            if merged and self.may_join(merged[-1], section):
                section = _joined(merged.pop(), section)
            merged.append(section)
        return merged

    def may_join(self, left: _Section, right: _Section) -> bool:
        scope = _common([left.scope, right.first])
        if scope not in (left.first, left.first[:-1]):
            return False  # they share no parent heading
        if left.bare and scope == left.first:
            return True  # a heading without a body belongs to what stands below it
        budget = self.budget(right.start, right.end)
        if self.size(left.start, right.end) > budget:
            return False
        small = budget * self.settings.merge_below
        return left.bare or min(self.size(left.start, left.end), self.size(right.start, right.end)) < small

    # Cutting

    def cut(self, start: int, end: int, budget: int) -> list[tuple[int, int]]:
        """Neighbouring spans of about equal size within the budget, which together are the span."""
        if self.size(start, end) <= budget:
            return [(start, end)]
        borders = self.borders(start, end, budget)
        cuts = [start, *_balanced_cuts(borders, end, budget, self.size), end]
        return list(pairwise(cuts))

    def borders(self, start: int, end: int, budget: int) -> list[_Border]:
        """Where chunks may begin, in order, the first at `start`; no two are further apart than the budget."""
        found: list[_Border] = []
        index = max(0, bisect_right(self.block_starts, start) - 1)
        before: Block | None = None
        while index < len(self.blocks) and self.blocks[index].start < end:
            block = self.blocks[index]
            inside = max(block.start, start), min(block.end, end)
            if inside[0] < inside[1]:
                found.append(_Border(inside[0], _cost_between(before, block)))
                found.extend(self.borders_within(*inside, block.kind, budget))
                before = block
            index += 1
        return found

    def borders_within(self, start: int, end: int, kind: BlockKind, budget: int) -> Iterator[_Border]:
        """The borders inside of a block, finer than the budget; tables and code stay whole where they fit."""
        size = self.size(start, end)
        atom = max(1, budget // 8)
        if size <= (budget if kind in ("table", "code") else atom):
            return
        characters = max(1, (end - start) * atom // size)
        for at, piece in self.pieces(start, end, _SEPARATORS[kind], characters):
            if at > start:
                yield _Border(at, _cost_within(self.text, at, kind))
            if self.size(at, at + len(piece)) > max(1, budget // 2):
                yield from self.borders_within_sentence(at, at + len(piece), kind, characters, budget)

    def borders_within_sentence(
        self, start: int, end: int, kind: BlockKind, characters: int, budget: int
    ) -> Iterator[_Border]:
        """Borders inside of text that has no sentences or lines: clauses, words, at last letters."""
        for at, piece in self.pieces(start, end, _SEPARATORS_WITHIN, characters):
            if at > start:
                yield _Border(at, _cost_within(self.text, at, kind))
            if self.size(at, at + len(piece)) > budget:
                yield from self.borders_within_word(at, at + len(piece), max(1, budget // 2))

    def pieces(self, start: int, end: int, separators: list[str], characters: int) -> Iterator[tuple[int, str]]:
        """A partition of the span into pieces, each with its position."""
        for piece in _pieces(self.text[start:end], separators, characters):
            yield start, piece
            start += len(piece)

    def borders_within_word(self, start: int, end: int, step: int) -> Iterator[_Border]:
        """Borders inside of text that has no better ones, `step` tokens apart."""
        at = start
        while True:
            following = bisect_left(self.token_starts, at) + step
            token = self.token_starts[following] if following < len(self.token_starts) else end
            at = _between_letters(self.text, at, min(token, at + step * CHARACTERS_PER_TOKEN))
            if at >= end:
                return
            yield _Border(at, _COST_LETTER)

    # Chunks

    def fitted(self, start: int, end: int, budget: int, previous: int) -> Iterator[ChunkSpan]:
        """The span as a chunk, widened to the left by the overlap; or cut again where the estimate was too low."""
        start, end = _stripped(self.text, start, end)
        if start == end:
            return
        if previous >= 0 and self.settings.overlap_tokens:
            widened = self.chunk(self.widened(start, previous), end)
            if widened.tokens <= self.most:
                yield widened
                return
        chunk = self.chunk(start, end)
        if chunk.tokens <= self.most:
            yield chunk
            return
        for span in self.cut_again(chunk):
            yield from self.fitted(*span, budget, -1)

    def cut_again(self, chunk: ChunkSpan) -> list[tuple[int, int]]:
        """At least two shorter spans. The estimate was too low, so the next budget is that much lower."""
        if chunk.end - chunk.start < 2:
            raise _invalid(
                f"the character {self.text[chunk.start]!r} takes {chunk.tokens} tokens with its header, "
                f"more than the {self.most} of a chunk; use a larger max_tokens or no header",
                "max_tokens",
            )
        size = self.size(chunk.start, chunk.end)
        budget = max(1, min(size - 1, size * self.most // chunk.tokens - 1))
        spans = self.cut(chunk.start, chunk.end, budget)
        if len(spans) > 1:
            return spans
        middle = (chunk.start + chunk.end) // 2
        return [(chunk.start, middle), (middle, chunk.end)]

    def widened(self, start: int, previous: int) -> int:
        """An earlier start within the overlap, behind the previous chunk's: a sentence's, or else a word's."""
        first = max(0, bisect_left(self.token_starts, start) - self.settings.overlap_tokens)
        lowest = self.token_starts[first] if first < len(self.token_starts) else start
        lowest = max(previous + 1, lowest, start - self.settings.overlap_tokens * CHARACTERS_PER_TOKEN)
        word = start
        for at in range(lowest, start):
            if self.text[at].isspace() or not _starts_word(self.text, at):
                continue
            if _cost_within(self.text, _before_space(self.text, at), "list") <= _COST_SENTENCE:
                return at
            word = min(word, at)
        return word

    def chunk(self, start: int, end: int) -> ChunkSpan:
        text = self.text[start:end]
        first, last = self.section_at(start), self.section_at(end - 1)
        key = _common([section.first for section in self.sections[first : last + 1]])
        block = self.blocks[max(0, bisect_right(self.block_starts, start) - 1)]
        header = self.fitting_header(self.header_parts(key, text)) if self.settings.header else ""
        tokens = self.tokenizer.count(embedding_text(header, text))
        if self.settings.header and block.kind == "table" and start > block.start and (row := self.first_row(block)):
            longer = embedding_text(header, row)
            counted = self.tokenizer.count(embedding_text(longer, text))
            if counted <= self.most:
                header, tokens = longer, counted
        return ChunkSpan(
            start=start,
            end=end,
            heading_path=tuple(self.headings[position] for position in key),
            page=block.page,
            tokens=tokens,
            header=header,
        )

    # Headers

    def heading_text(self, start: int, end: int) -> str:
        heading = self.text[start:end]
        return self.first_line(heading) if self.markdown else _one_line(heading)

    def header_parts(self, key: Sequence[int], text: str) -> tuple[str, tuple[str, ...]]:
        """Title and headings for a header, without repetition and without the line that `text` begins with."""
        own = self.first_line(text).casefold()
        headings = [self.headings[position] for position in key]
        if headings and headings[0].casefold() == self.title.casefold():
            headings = headings[1:]
        title = "" if self.title.casefold() == own else self.title
        return title, tuple(heading for heading in headings if heading.casefold() != own)

    def first_row(self, table: Block) -> str:
        """What the columns are called, as far as the table says; "" where that takes more than a quarter of a chunk."""
        row = _one_line(self.text[table.start : table.end].partition("\n")[0])
        return row if self.tokenizer.count(row) <= self.most // 4 else ""

    def first_line(self, text: str) -> str:
        line = text[: 4 * _HEADING_CHARACTERS].partition("\n")[0]
        return _one_line(_MARKDOWN_MARKS.sub("", line) if self.markdown else line)

    def _fitting_header(self, parts: tuple[str, tuple[str, ...]]) -> str:
        """Title and headings in at most a quarter of the limit: outer headings go first, then ends are cut off."""
        title, headings = parts
        most = self.most // 4
        kept = [heading for heading in headings if heading]
        fixed = [title] if title else []
        while len(kept) > 1 and self.tokenizer.count(HEADING_SEPARATOR.join(fixed + kept)) > most:
            del kept[0]
        header = HEADING_SEPARATOR.join(fixed + kept)
        share = most // max(1, len(fixed + kept))
        while self.tokenizer.count(header) > most:
            header = HEADING_SEPARATOR.join(filter(None, (self.head(part, share) for part in fixed + kept)))
            share -= 1
        return header

    def head(self, part: str, most: int) -> str:
        """The first `most` tokens of it."""
        starts = self.tokenizer.offsets(part)
        return part if len(starts) <= most else part[: starts[max(0, most)][0]].rstrip()


# Sections


def _covering_blocks(document: ParsedDocument) -> list[Block]:
    """The blocks, with text that lies outside of any as further paragraphs: a loader's slip must not lose text."""
    blocks: list[Block] = []
    at = 0
    for block in document.blocks:
        if document.text[at : block.start].strip():
            blocks.append(Block(at, block.start, "paragraph", page=block.page))
        blocks.append(block)
        at = block.end
    if document.text[at:].strip():
        blocks.append(Block(at, len(document.text), "paragraph", page=blocks[-1].page if blocks else None))
    return blocks


def _sections(blocks: Sequence[Block]) -> list[_Section]:
    """One section per heading, and one for what stands before the first. Together they span all blocks."""
    sections: list[_Section] = []
    path: list[Block] = []
    for block in blocks:
        if block.kind == "heading":
            path = [*(above for above in path if above.level < block.level), block]
        if block.kind == "heading" or not sections:
            key = tuple(heading.start for heading in path)
            sections.append(_Section(block.start, block.end, key, key, block.kind == "heading"))
        else:
            last = sections[-1]
            sections[-1] = _Section(last.start, block.end, last.first, last.scope, False)
    return sections


def _joined(left: _Section, right: _Section) -> _Section:
    scope = _common([left.scope, right.first])
    return _Section(left.start, right.end, left.first, scope, left.bare and right.bare)


def _common(keys: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The headings that all of these share, from the outermost on."""
    low, high = min(keys), max(keys)
    length = next((place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
    return low[:length]


# Borders and what they cost

_COST_BLOCK, _COST_PAGE = 0.0, -0.05
_COST_LINE, _COST_SENTENCE = 0.08, 0.08
_COST_CLAUSE, _COST_WORD = 0.5, 0.8
_COST_AFTER_HEADING, _COST_LETTER = 2.0, 2.0
_COST_ONE_MORE = 0.2

_ENDS = ".!?…"
_ENDS_ALONE = "。！？｡؟۔।॥"  # end a sentence without a space behind them
_CLOSERS = "\"'”’»)]」』）】"
_CLAUSE_ENDS = ",;:،"
_CLAUSE_ENDS_ALONE = "，、；："

# Each begins with a plain class of characters where it can: the regular expression engine skips to those. The others
# part text that is written without spaces and are used only where it has such punctuation.
_PARAGRAPH = r"\n[ \t]*\n"
_SENTENCE = rf"\s(?:(?<=[{_ENDS}]\s)|(?<=[{_ENDS}][\"'”’»)\]]\s))"
_SENTENCE_ALONE = (
    rf"(?<=[{_ENDS_ALONE}])(?![{_ENDS_ALONE}」』）】”’\s])|(?<=[{_ENDS_ALONE}][」』）】”’])(?![{_ENDS_ALONE}」』）】”’\s])"
    rf"|\s(?<=[{_ENDS_ALONE}」』]\s)"
)
_CLAUSE = rf"\s(?<=[{_CLAUSE_ENDS}]\s)"
_CLAUSE_ALONE = rf"(?<=[{_CLAUSE_ENDS_ALONE}])"
_UNSPACED = frozenset({_SENTENCE_ALONE, _CLAUSE_ALONE})

_SEPARATORS: dict[BlockKind, list[str]] = {
    "heading": [r"\n", _SENTENCE, _SENTENCE_ALONE],
    "paragraph": [_PARAGRAPH, _SENTENCE, _SENTENCE_ALONE],
    "list": [_PARAGRAPH, r"\n", _SENTENCE, _SENTENCE_ALONE],
    "table": [r"\n"],
    "code": [_PARAGRAPH, r"\n"],
}
_SEPARATORS_WITHIN = [r"[|\t]", _SENTENCE, _SENTENCE_ALONE, _CLAUSE, _CLAUSE_ALONE, r"\s+"]


def _pieces(text: str, separators: list[str], characters: int) -> list[str]:
    """A partition of the text into pieces of at most so many characters, where its separators allow."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    unspaced = re.search(f"[{_ENDS_ALONE}{_CLAUSE_ENDS_ALONE}]", text)
    return RecursiveCharacterTextSplitter(
        separators=separators if unspaced else [each for each in separators if each not in _UNSPACED],
        is_separator_regex=True,
        keep_separator="start",
        strip_whitespace=False,
        chunk_size=characters,
        chunk_overlap=0,
    ).split_text(text)


def _cost_between(before: Block | None, block: Block) -> float:
    if before is None:
        return _COST_BLOCK
    if before.kind == "heading":
        return _COST_AFTER_HEADING
    return _COST_PAGE if before.page != block.page else _COST_BLOCK


def _cost_within(text: str, at: int, kind: BlockKind) -> float:
    """What a cut at this place costs, read from the characters around it."""
    before = text[at - 1]
    if before in _CLOSERS and at > 1:
        before = text[at - 2]
    if text.startswith("\n", at):
        if text[at + 1 : at + 80].lstrip(" \t").startswith("\n"):
            return _COST_BLOCK  # a blank line
        if kind != "paragraph":
            return _COST_LINE
    if before in _ENDS or before in _ENDS_ALONE:
        return _COST_SENTENCE
    return _COST_CLAUSE if before in _CLAUSE_ENDS + _CLAUSE_ENDS_ALONE else _COST_WORD


def _balanced_cuts(borders: Sequence[_Border], end: int, budget: int, size: Callable[[int, int], int]) -> Iterator[int]:
    """The borders to cut at: cheap ones, such that the spans are about equal and none is over the budget.

    From each start, the rest is thought of as the fewest equal spans that fit; the next cut is the border
    with the least sum of its own cost and its squared relative distance from that size.
    """
    usable = budget - budget // 16  # borders seldom lie just where a full chunk would end
    at = 0
    while at + 1 < len(borders) and (rest := size(borders[at].position, end)) > budget:
        spans = -(-rest // usable)
        target = rest / spans
        best, least = at + 1, float("inf")
        for index in range(at + 1, len(borders)):
            taken = size(borders[at].position, borders[index].position)
            if taken > budget:
                break
            cost = borders[index].cost + (taken / target - 1) ** 2
            if spans <= 3 and rest - taken > (spans - 1) * budget:
                cost += _COST_ONE_MORE
            if cost <= least:
                best, least = index, cost
        at = best
        yield borders[at].position


# Text


def _token_starts(tokenizer: Tokenizer, text: str) -> array[int]:
    """Where each token of the text starts: one pass, in stretches that bound the tokenizer's memory."""
    starts: array[int] = array("q")
    at = 0
    while at < len(text):
        end = _stretch_end(text, at)
        starts.extend([at + start for start, _ in tokenizer.offsets(text[at:end])])
        at = end
    return starts


def _stretch_end(text: str, at: int) -> int:
    end = at + _PASS_CHARACTERS
    if end >= len(text):
        return len(text)
    space = max(text.rfind("\n", at + 1, end), text.rfind(" ", at + 1, end))
    return space if space > 0 else end


def _one_line(text: str) -> str:
    line = " ".join(text[: 4 * _HEADING_CHARACTERS].split())
    return line if len(line) <= _HEADING_CHARACTERS else line[: _HEADING_CHARACTERS - 1].rstrip() + "…"


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, start + len(piece.strip()))


def _starts_word(text: str, at: int) -> bool:
    return text[at - 1].isspace() or text[at - 1] in _ENDS_ALONE


def _before_space(text: str, at: int) -> int:
    while at > 1 and text[at - 1].isspace():
        at -= 1
    return at


def _between_letters(text: str, start: int, at: int) -> int:
    """The last place up to `at`, behind `start`, that parts no letter from its marks and no emoji."""
    for place in range(at, max(start, at - 16), -1):
        if place >= len(text) or not (_is_mark(text[place]) or text[place - 1] == "\u200d"):
            return place
    return max(at, start + 1)


def _is_mark(letter: str) -> bool:
    return (
        letter == "\u200d"
        or unicodedata.category(letter) in ("Mn", "Me", "Mc")
        or "\U0001f3fb" <= letter <= "\U0001f3ff"
    )
