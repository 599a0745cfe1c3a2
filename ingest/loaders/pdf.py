"""PDF: text with page numbers by pypdfium2; paragraphs and headings from where lines stand and how tall they are."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder, one_line

MEDIA_TYPE = "application/pdf"
MAX_CHARACTERS = 64 * 2**20
_WRONG_PASSWORD = 4
_UNSUPPORTED_SECURITY = 5
_END_OF_LINE_HYPHEN = re.compile("[\ufffe\x02]\\s*\n?")
_MEANT_AS_HEADING = 1.2
_LONGEST_HEADING = 160
_LARGEST_SHARE = 0.2
_GAP = 1.5


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The text of all pages. A file that opens with the empty password opens.

    Raises DocumentFailure `encrypted`, `invalid_file` (also for no pages), `no_text` (probably a scan), `too_large`.
    """
    import pypdfium2 as pdfium

    document = _open(pdfium, path)
    try:
        pages, unreadable = _read_pages(pdfium, document)
        metadata = _metadata(pdfium, document)
    finally:
        document.close()
    builder = DocumentBuilder()
    _add_lines(builder, pages)
    if not len(builder):
        raise DocumentFailure(
            "no_text",
            f"The PDF has {len(pages)} page(s) but no text. It looks like a scan: run text recognition (OCR) on it.",
        )
    if unreadable:
        metadata["warnings"] = f"{unreadable} of {len(pages)} pages could not be read and are left out"
    return builder.build(MEDIA_TYPE, title=metadata.pop("title", ""), metadata=metadata)


@dataclass(frozen=True)
class _Line:
    """A line of a page; `top` and `height` in points from the page's lower edge, 0 where unknown."""

    text: str
    top: float = 0.0
    height: float = 0.0


def _open(pdfium: Any, path: Path) -> Any:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if _opens(pdfium, path):
            raise DocumentFailure("invalid_file", "The PDF has no pages.") from error
        if code == _WRONG_PASSWORD:
            raise DocumentFailure("encrypted", "The PDF asks for a password. Save it without one.") from error
        if code == _UNSUPPORTED_SECURITY:
            raise DocumentFailure("encrypted", "The PDF is encrypted in a way that cannot be opened.") from error
        raise DocumentFailure("invalid_file", f"The PDF is damaged and does not open ({error}).") from error
    return document


def _opens(pdfium: Any, path: Path) -> bool:
    """Whether only pages are missing: the code of the error may be that of the file before."""
    document = pdfium.raw.FPDF_LoadDocument(os.fsencode(path), None)
    if document:
        pdfium.raw.FPDF_CloseDocument(document)
    return bool(document)


def _read_pages(pdfium: Any, document: Any) -> tuple[list[list[_Line]], int]:
    """The lines of each page, and how many pages could not be read. One bad page does not lose the others."""
    pages: list[list[_Line]] = []
    unreadable = characters = 0
    for number in range(len(document)):
        try:
            page = document[number]
            textpage = page.get_textpage()
        except pdfium.PdfiumError:
            unreadable += 1
            pages.append([])
            continue
        lines = list(_lines(textpage))
        textpage.close()
        page.close()
        pages.append(lines)
        characters += sum(len(line.text) for line in lines)
        if characters > MAX_CHARACTERS:
            raise DocumentFailure("too_large", f"The PDF holds more than {MAX_CHARACTERS} characters. Split it.")
    if unreadable == len(pages):
        raise DocumentFailure("invalid_file", "The PDF is damaged: none of its pages can be read.")
    return pages, unreadable


def _lines(textpage: Any) -> Iterator[_Line]:
    text = textpage.get_text_range(errors="replace")
    placed = len(text) == textpage.count_chars()  # then a position in the text is the index of a character
    position = 0
    for piece in text.split("\n"):
        stripped = piece.strip()
        if not stripped or not placed:
            yield _Line(stripped)
        else:
            yield _Line(stripped, *_place(textpage, position + piece.index(stripped[0])))
        position += len(piece) + 1


def _place(textpage: Any, index: int) -> tuple[float, float]:
    _, bottom, _, top = textpage.get_charbox(index, loose=True)
    return top, round((top - bottom) * 2) / 2


def _add_lines(builder: DocumentBuilder, pages: list[list[_Line]]) -> None:
    levels = _heading_levels(pages)
    for number, lines in enumerate(pages, start=1):
        pitch = _line_pitch(lines)
        group: list[_Line] = []
        for line in lines:
            if group and _breaks(group[-1], line, pitch, levels):
                _add_group(builder, group, levels, number)
                group = []
            if line.text:
                group.append(line)
        _add_group(builder, group, levels, number)


def _add_group(builder: DocumentBuilder, group: list[_Line], levels: dict[float, int], page: int) -> None:
    if not group:
        return
    text = _END_OF_LINE_HYPHEN.sub("", "\n".join(line.text for line in group))
    level = levels.get(group[0].height, 0)
    if level and len(text) <= _LONGEST_HEADING and any(character.isalpha() for character in text):
        builder.add("heading", one_line(text), level=level, page=page)
    else:
        builder.add("paragraph", text, page=page)


def _breaks(above: _Line, below: _Line, pitch: float, levels: dict[float, int]) -> bool:
    """Whether a new block begins: a blank line, another heading level, a gap, or the next column."""
    if not below.text:
        return True
    if levels.get(above.height, 0) != levels.get(below.height, 0):
        return True
    if not (above.height and below.height):
        return False
    step = above.top - below.top
    return step > _GAP * max(pitch, above.height if levels.get(above.height) else 0) or step < -2 * above.height


def _line_pitch(lines: list[_Line]) -> float:
    """The usual distance from one line to the next, in points; infinite where that is unknown."""
    placed = [line for line in lines if line.height]
    steps = [a.top - b.top for a, b in itertools.pairwise(placed) if 0 < a.top - b.top < 4 * a.height]
    return median(steps) if len(steps) >= 3 else max((1.3 * line.height for line in placed), default=float("inf"))


def _heading_levels(pages: list[list[_Line]]) -> dict[float, int]:
    """Heights of lines that mean a heading, with their levels; empty where size tells nothing.

    The height that most characters have is the body's. Taller ones are headings unless they hold a large share of
    the text (a slide deck, a form), for then size means something else.
    """
    weights: Counter[float] = Counter()
    for line in (line for lines in pages for line in lines if line.height):
        weights[line.height] += len(line.text)
    if not weights:
        return {}
    body = max(weights, key=lambda height: weights[height])
    taller = sorted((height for height in weights if height >= _MEANT_AS_HEADING * body), reverse=True)
    if sum(weights[height] for height in taller) > _LARGEST_SHARE * sum(weights.values()):
        return {}
    ranks: dict[float, int] = {}
    rank, last = 0, float("inf")
    for height in taller:
        if height < 0.93 * last:  # heights that differ by a hair are one level
            rank, last = rank + 1, height
        ranks[height] = min(rank, 6)
    return ranks


def _metadata(pdfium: Any, document: Any) -> dict[str, str]:
    names = {"title": "Title", "author": "Author", "subject": "Subject", "keywords": "Keywords", "date": "CreationDate"}
    found: dict[str, str] = {}
    for ours, theirs in names.items():
        try:
            value = document.get_metadata_value(theirs)
        except (pdfium.PdfiumError, UnicodeDecodeError):
            continue
        if value:
            found[ours] = value
    return found
