"""Cutting a text into what says something by itself: sentences, list items, table rows, code blocks and headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

Kind = Literal["sentence", "item", "row", "code", "heading"]

MOST_CODE_LINES = 8
"""Lines of a code block, its fences left out, that still stands whole."""
LONGEST_CODE = 1200
"""Characters of one."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a text that can be quoted whole: `text[start:end]`, without white space around it."""

    start: int
    end: int
    kind: Kind


FENCE = re.compile(r" {0,3}(?:```|~~~)")
"""How a line begins that opens or closes a block of code."""
_LINE = re.compile(r"[^\n]*\n?")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦▪–]|\(?\d{1,3}[.)])[ \t]+\S")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+\S")
_ROW = re.compile(r"[^\n|]*\|[^\n|]*\||[^\n\t]+\t[^\n]*\S")
_RULE = re.compile(r"[\s|:=*_-]+$")
# Possessive, and from the first mark on only: a long run of dots is looked at once.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s+[^\sa-z])|[。！？｡।؟]+[」』”）]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|[A-Za-z]\.[A-Za-z]|Mrs?|Ms|Dr|Prof|St|No|Nr|vs|Fig|Eq|Sec|cf|etc|approx)\.$"
)
_OPEN_END = re.compile(r"[.!?…:;。！？：；][\"'”’»)\]]*$")


def segments(text: str) -> list[Segment]:
    """Sentences, list items, table rows, code blocks and headings of `text`, in order, without overlap."""
    found: list[Segment] = []
    paragraph: list[tuple[int, int]] = []
    lines = [match.span() for match in _LINE.finditer(text) if match.group()]
    at = 0
    while at < len(lines):
        start, end = lines[at]
        line = text[start:end]
        if FENCE.match(line):
            found += _sentences(text, paragraph)
            paragraph = []
            at, code = _code(text, lines, at)
            found += code
            continue
        kind = _kind(line)
        if kind == "sentence":
            paragraph.append((start, end))
        else:
            found += _sentences(text, paragraph)
            paragraph = []
            if kind == "item":
                at, end = _item_end(text, lines, at)
            if kind is not None:
                found += _trimmed(text, start, end, kind)
        at += 1
    return found + _sentences(text, paragraph)


def _kind(line: str) -> Kind | None:
    """What a line outside of code is; None for a blank line or a rule."""
    if _RULE.match(line):
        return None
    if _HEADING.match(line):
        return "heading"
    if _ITEM.match(line):
        return "item"
    return "row" if _ROW.match(line) else "sentence"


def _code(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[int, list[Segment]]:
    """A fenced block whole, when it is closed and short; otherwise its lines. Returns the line after it."""
    fence = text[slice(*lines[at])].strip()[:3]
    close = next((i for i in range(at + 1, len(lines)) if text[slice(*lines[i])].strip().startswith(fence)), None)
    inside = lines[at + 1 : close]
    short = len(inside) <= MOST_CODE_LINES
    if close is not None and short and lines[close][1] - lines[at][0] <= LONGEST_CODE:
        return close + 1, _trimmed(text, lines[at][0], lines[close][1], "code")
    after = len(lines) if close is None else close + 1
    return after, [part for start, end in inside for part in _trimmed(text, start, end, "code")]


def _item_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[int, int]:
    """An item takes the lines that go on with it: up to a blank line or a line of another kind."""
    while at + 1 < len(lines):
        line = text[slice(*lines[at + 1])]
        here = text[slice(*lines[at])].rstrip()
        if (
            _kind(line) != "sentence"
            or FENCE.match(line)
            or (_OPEN_END.search(here) and not line.startswith((" ", "\t")))
        ):
            break
        at += 1
    return at, lines[at][1]


def _sentences(text: str, lines: Sequence[tuple[int, int]]) -> list[Segment]:
    """The sentences of one paragraph, whose lines may break anywhere."""
    if not lines:
        return []
    width = max(end - start for start, end in lines)
    cuts = {lines[-1][1]}
    for (start, end), (after, _) in pairwise(lines):
        if _line_ends_sentence(text[start:end].strip(), text[after : after + 1], end - start, width):
            cuts.add(end)
    begin, stop = lines[0][0], lines[-1][1]
    for match in _SENTENCE_END.finditer(text, begin, stop):
        if not _ABBREVIATION.search(text, max(match.end() - 12, begin), match.end()):
            cuts.add(match.end())
    found: list[Segment] = []
    for cut in sorted(cuts):
        found += _trimmed(text, begin, cut, "sentence")
        begin = cut
    return _with_headings(text, found)


def _line_ends_sentence(line: str, after: str, length: int, width: int) -> bool:
    """A line that stops well before the margin, before a capital, was not broken by the margin."""
    if _OPEN_END.search(line):
        return True
    return length < 0.6 * width and not after.islower()


def _with_headings(text: str, found: list[Segment]) -> list[Segment]:
    """A few words without an end, in front of a sentence: a heading whose mark-up the format has lost."""
    marked = []
    for part, after in zip(found, [*found[1:], None], strict=True):
        words = text[part.start : part.end]
        heading = after is not None and len(words) <= 60 and not _OPEN_END.search(words) and "\n" not in words
        marked.append(replace(part, kind="heading") if heading else part)
    return marked


def _trimmed(text: str, start: int, end: int, kind: Kind) -> list[Segment]:
    """The span without the white space at its ends; nothing when that is all."""
    inner = text[start:end]
    if not inner.strip():
        return []
    if kind != "code":
        start += len(inner) - len(inner.lstrip())
    else:
        start += len(inner) - len(inner.lstrip("\n"))
    return [Segment(start, start + len(text[start:end].rstrip()), kind)]
