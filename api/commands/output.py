"""Printing: one JSON document or JSON lines for machines, tables and plain lines for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any


def print_json(document: Any, *, one_line: bool = False) -> None:
    """One JSON document on stdout; on one line where it is an event among others."""
    print(json.dumps(document, ensure_ascii=True, indent=None if one_line else 2), flush=True)


def print_text(text: str = "") -> None:
    """A line for people on stdout. What the terminal must not act on (control characters) is shown, not sent."""
    print(harmless(text))


def note(text: str) -> None:
    """A line for people on stderr."""
    print(harmless(text), file=sys.stderr)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under headings; as wide as they need to be, so that they can be cut and searched."""
    cells = [[harmless(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headings), *cells]) for i in range(len(headings))]
    for line in [list(headings), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def harmless(text: str) -> str:
    """Text of a document or of a file's name without what a terminal would act on (escape sequences)."""
    shown = "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    shown = shown.replace("\x7f", "\N{REPLACEMENT CHARACTER}")
    for control in range(0x80, 0xA0):
        shown = shown.replace(chr(control), "\N{REPLACEMENT CHARACTER}")
    return shown


def tolerant_streams() -> None:
    """Let a terminal without UTF-8 show what it can instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
