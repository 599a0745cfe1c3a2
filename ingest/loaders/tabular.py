"""CSV and TSV: one table, a row a line, cells joined by ` | `, the header row first as in the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ingest.decoding import read_text
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder, clean, one_line

_SEPARATORS = (",", ";", "\t", "|")


def load_csv(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The table, its separator told from its first lines."""
    text = clean(read_text(path))
    return _load(text, likely_separator(text), "text/csv")


def load_tsv(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The table, cells separated by tabs."""
    return _load(clean(read_text(path)), "\t", "text/tab-separated-values")


def likely_separator(text: str) -> str:
    """The separator that cuts most of the first lines into the same number of cells; a comma where none does.

    >>> likely_separator("a;b;c\\n1,5;2;3\\n")
    ';'
    """
    lines = [line for line in text[:65_536].split("\n")[:30] if line.strip()]

    def score(separator: str) -> tuple[int, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
        usual = max(set(counts), key=counts.count, default=1)
        return (counts.count(usual) if usual > 1 else 0, usual)

    return max(_SEPARATORS, key=score) if lines and max(map(score, _SEPARATORS))[0] else ","


def row_line(cells: Iterable[str]) -> str:
    """One row as one line; empty cells at its end are dropped."""
    return " | ".join(one_line(cell) for cell in cells).rstrip(" |")


def _load(text: str, separator: str, media_type: str) -> ParsedDocument:
    csv.field_size_limit(2**30)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    builder = DocumentBuilder()
    try:
        lines = [row_line(row) for row in rows]
    except csv.Error as error:
        raise DocumentFailure("invalid_file", f"The table cannot be read ({error}).") from error
    builder.add("table", "\n".join(line for line in lines if line))
    if not len(builder):
        raise DocumentFailure("empty", "The file holds no cell with text.")
    return builder.build(media_type)
