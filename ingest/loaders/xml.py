"""XML of any vocabulary: headings, paragraphs and tables where names tell them, `name: value` lines for the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.decoding import decode
from ingest.document import ParsedDocument
from ingest.loaders.archive import local, parse_xml
from ingest.loaders.building import DocumentBuilder, one_line
from ingest.loaders.html import add_html

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_TITLES = frozenset(("title", "article-title", "heading", "head", "subtitle"))
_PARAGRAPHS = frozenset(("p", "para", "simpara", "abstract", "caption", "note", "blockquote", "li", "item-text"))
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_MARKUP = re.compile(r"<(?:p|div|br|a|ul|h\d|strong|em|img)\b[^>]*>", re.IGNORECASE)
_LONG = 200


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The text of all elements in order. Entities stay unexpanded, nothing is fetched."""
    data = path.read_bytes()
    root = parse_xml(_DECLARATION.sub("", decode(data, _declared(data))).encode("utf-8", "replace"))
    walk = _Walk()
    walk.element(root, 0)
    walk.flush()
    return walk.builder.build("application/xml", title=walk.title)


def _declared(data: bytes) -> str | None:
    found = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w.:-]+)""", data)
    return found.group(1).decode("ascii") if found else None


class _Walk:
    """One pass; neighbouring `name: value` lines collect into one block."""

    def __init__(self) -> None:
        self.builder = DocumentBuilder()
        self.title = ""
        self._lines: list[str] = []

    def element(self, element: Element, depth: int) -> None:
        """Append an element's text."""
        name = local(element)
        if not name:
            return
        own = one_line(element.text or "") or any(one_line(child.tail or "") for child in element)
        if name in _TITLES:
            self._heading(one_line("".join(element.itertext())), depth)
        elif name == "table":
            self._table(element)
        elif own and (name in _PARAGRAPHS or len(element)):
            self._paragraph(one_line("".join(element.itertext())))
        elif own:
            self._leaf(name, element.text or "")
        else:
            before = len(self._lines)
            for child in element:
                self.element(child, depth + 1)
            if len(self._lines) > before + 1:
                self.flush()

    def flush(self) -> None:
        """End the block of lines collected so far."""
        self.builder.add("paragraph", "\n".join(self._lines))
        self._lines.clear()

    def _heading(self, text: str, depth: int) -> None:
        if not text:
            return
        self.flush()
        self.title = self.title or text
        self.builder.add("heading", text[:300], level=min(max(depth - 1, 1), 6))

    def _paragraph(self, text: str) -> None:
        self.flush()
        self.builder.add("paragraph", text)

    def _leaf(self, name: str, text: str) -> None:
        if len(_MARKUP.findall(text)) >= 2:  # feeds carry escaped HTML
            self.flush()
            add_html(self.builder, text)
        elif len(text) > _LONG:
            self._paragraph(one_line(text))
        else:
            self._lines.append(f"{name}: {one_line(text)}")

    def _table(self, table: Element) -> None:
        self.flush()
        rows = [" | ".join(one_line("".join(cell.itertext())) for cell in row) for row in table.iter("{*}tr", "{*}row")]
        if any(rows):
            self.builder.add("table", "\n".join(row for row in rows if row.strip(" |")))
        else:
            self._paragraph(one_line("".join(table.itertext())))
