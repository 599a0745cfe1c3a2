"""Plain text: kept verbatim, cut into paragraphs at blank lines."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.decoding import read_text
from ingest.document import Block, ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import clean

_PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The file's text as it is. Raises DocumentFailure `empty` where there is only white space."""
    text = clean(read_text(path))
    blocks = tuple(paragraphs(text))
    if not blocks:
        raise DocumentFailure("empty", "The file holds only white space.")
    return ParsedDocument(text, "", "text/plain", blocks)


def paragraphs(text: str, start: int = 0, end: int | None = None) -> list[Block]:
    """The stretches between blank lines of `text[start:end]`, trailing white space left out."""
    end = len(text) if end is None else end
    found = _PARAGRAPH.finditer(text, start, end)
    return [Block(m.start(), m.start() + len(m.group().rstrip()), "paragraph") for m in found]
