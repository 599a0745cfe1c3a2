"""Plain text: kept verbatim, cut into paragraphs at blank lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ingest.decoding import read_pieces, read_text
from ingest.document import Block, ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import clean

PART_CHARACTERS = 1 << 20
_PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The file's text as it is. Raises DocumentFailure `empty` where there is only white space."""
    text = clean(read_text(path))
    blocks = tuple(paragraphs(text))
    if not blocks:
        raise DocumentFailure("empty", "The file holds only white space.")
    return ParsedDocument(text, "", "text/plain", blocks)


def load_parts(path: Path, characters: int = PART_CHARACTERS) -> Iterator[ParsedDocument]:
    """The same text in parts of about so many characters, which follow each other without a gap; each ends where a
    paragraph does, where that can be."""
    left = ""
    for piece in read_pieces(path, characters):
        left += clean(piece)
        if end := _part_end(left):
            yield _part(left[:end])
            left = left[end:]
    if left:
        yield _part(left)


def _part_end(text: str) -> int:
    """Behind the last blank line; where there is none, the last line, the last word, or all of it."""
    found = (text.rfind(mark) + len(mark) for mark in ("\n\n", "\n", " ") if mark in text)
    return next(found, len(text))


def _part(text: str) -> ParsedDocument:
    return ParsedDocument(text, "", "text/plain", tuple(paragraphs(text)))


def paragraphs(text: str, start: int = 0, end: int | None = None) -> list[Block]:
    """The stretches between blank lines of `text[start:end]`, trailing white space left out."""
    end = len(text) if end is None else end
    found = _PARAGRAPH.finditer(text, start, end)
    return [Block(m.start(), m.start() + len(m.group().rstrip()), "paragraph") for m in found]
