"""XLSX: each sheet a heading and its tables, a row a line; an empty row ends a table."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, core_properties
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.tabular import row_line

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_MOST_EMPTY_CELLS = 100


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Cell values as last calculated. A sheet's page is its number in the workbook."""
    import openpyxl

    archive = Archive(path)
    for name in archive.names:
        if name.endswith((".xml", ".rels")):
            archive.check_size(name)
    builder = DocumentBuilder()
    with path.open("rb") as file:  # by its path openpyxl would refuse a name that does not end in .xlsx
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        for number, sheet in enumerate(workbook.worksheets, start=1):
            _add_sheet(builder, sheet, number)
        workbook.close()
    if not len(builder):
        raise DocumentFailure("no_text", "The workbook opened, but none of its cells holds a value.")
    properties = core_properties(archive)
    return builder.build(MEDIA_TYPE, title=properties.pop("title", ""), metadata=properties)


def _add_sheet(builder: DocumentBuilder, sheet: Any, number: int) -> None:
    sheet.reset_dimensions()  # a declared size may be wrong, and wrong by millions of rows
    tables = list(_tables(sheet))
    if tables:
        builder.add("heading", sheet.title, level=1, page=number)
    for table in tables:
        builder.add("table", table, page=number)


def _tables(sheet: Any) -> Iterator[str]:
    lines: list[str] = []
    for row in sheet.iter_rows(values_only=True):
        line = row_line(_cells(row))
        if line:
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _cells(row: tuple[Any, ...]) -> Iterator[str]:
    """The cells' texts; long stretches of empty ones (a stray value far to the right) shrink to one."""
    empty = 0
    started = False
    for value in row:
        if value is None:
            empty += 1
            continue
        yield from [""] * (min(empty, _MOST_EMPTY_CELLS) if started else 0)
        empty, started = 0, True
        yield _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
