"""DOCX: read straight from WordprocessingML.

Measured against `unstructured` and python-docx on 30 files: those drop the text in text boxes and equations, refuse
the strict variant, and take a spaCy pipeline along; this walks the same XML in a few milliseconds.
Elements are matched by local name because the strict and the transitional variant differ in namespaces only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute, core_properties, local
from ingest.loaders.building import DocumentBuilder, one_line

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_CONTAINERS = frozenset(
    ("sdt sdtContent ins moveTo customXml smartTag AlternateContent Choice body footnote endnote hdr ftr").split()  # noqa: SIM905
)
_SKIPPED = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "rPr", "pPr", "delInstrText"))
_OFF = frozenset(("0", "false", "off"))
_HEADING_NAME = re.compile(r"heading (\d)")
_LAYOUT_CELL = 1500


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Body, text boxes and tables in order, then notes, headers, footers. Hidden and deleted runs are left out."""
    archive = Archive(path)
    main = next((t for kind, t in archive.relations("").values() if kind == "officeDocument"), "word/document.xml")
    root = archive.xml(main)
    if root is None:
        raise DocumentFailure("invalid_file", "The file is damaged: it has no main document part.")
    relations = archive.relations(main)
    styles = _read_styles(archive, next((t for kind, t in relations.values() if kind == "styles"), "word/styles.xml"))
    walk = _Walk(styles, root)
    body = next(root.iter("{*}body"), root)
    walk.container(body)
    for part in _side_parts(relations):
        side = archive.xml(part)
        if side is not None:
            walk.side(side)
    properties = core_properties(archive)
    return walk.builder.build(MEDIA_TYPE, title=properties.pop("title", "") or walk.title, metadata=properties)


@dataclass(frozen=True)
class _Style:
    """What a paragraph style means for structure."""

    level: int = 0
    listed: bool = False
    is_title: bool = False


@dataclass
class _Paragraph:
    """What one paragraph holds: its text, the text boxes anchored in it, the page breaks around its text."""

    count_asked_breaks: bool
    text: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)
    breaks_before: int = 0
    breaks_after: int = 0

    def joined(self) -> str:
        return "".join(self.text)


class _Walk:
    """One pass over the document; list items collect into one block."""

    def __init__(self, styles: dict[str, _Style], root: Element) -> None:
        self.builder = DocumentBuilder()
        self.title = ""
        self._styles = styles
        # Word marks a page break where it was last drawn; only without these marks count those asked for.
        self._drawn = next(root.iter("{*}lastRenderedPageBreak"), None) is not None
        asked = any(attribute(found, "type") == "page" for found in root.iter("{*}br"))
        self._page = 1 if self._drawn or asked else None
        self._items: list[str] = []
        self._items_page: int | None = None
        self._seen_sides: set[str] = set()

    def container(self, element: Element) -> None:
        """Append every paragraph and table in `element`."""
        for child in element:
            name = local(child)
            if name == "p":
                self._paragraph(child)
            elif name == "tbl":
                self._table(child)
            elif name in _CONTAINERS:
                self.container(child)
        if local(element) == "body":
            self._end_list()

    def side(self, root: Element) -> None:
        """Append a part beside the body (notes, a header), once where several say the same."""
        self._page = None
        for child in [root] if local(root) in ("hdr", "ftr") else root:
            text = one_line(" ".join(_read(p).joined() for p in _paragraphs(child)))
            if attribute(child, "type") in ("separator", "continuationSeparator") or text in self._seen_sides:
                continue
            self._seen_sides.add(text)
            self.builder.add("paragraph", text)

    def _paragraph(self, element: Element) -> None:
        paragraph = _read(element, count_asked_breaks=not self._drawn)
        self._turn(paragraph.breaks_before)
        style, item_level = self._role(element)
        text = paragraph.joined().strip()
        if text and style.is_title and not self.title:
            self.title = one_line(text)
        if text and item_level is not None and not style.level:
            self._items_page = self._page if not self._items else self._items_page
            self._items.append("  " * item_level + "- " + text.replace("\n", "\n  " + "  " * item_level))
        elif text:
            self._end_list()
            kind = "heading" if style.level and len(text) <= 300 else "paragraph"
            if kind == "heading":
                self.builder.add("heading", one_line(text), level=style.level, page=self._page)
            else:
                self.builder.add("paragraph", text, page=self._page)
        for box in paragraph.boxes:
            self._end_list()
            self.container(box)
        self._turn(paragraph.breaks_after)

    def _turn(self, pages: int) -> None:
        if self._page is not None:
            self._page += pages

    def _role(self, element: Element) -> tuple[_Style, int | None]:
        """The paragraph's style, and its depth where it is an item of a list."""
        properties = next((child for child in element if local(child) == "pPr"), None)
        style, depth = _Style(), None
        for child in properties if properties is not None else ():
            name, value = local(child), attribute(child, "val")
            if name == "pStyle":
                style = self._styles.get(value or "", style)
            elif name == "outlineLvl" and value in set("012345"):
                style = _Style(int(value) + 1, style.listed, style.is_title)
            elif name == "numPr":
                depth = _list_depth(child)
        return style, 0 if depth is None and style.listed else depth

    def _table(self, table: Element) -> None:
        self._end_list()
        rows = [[_cell_text(cell) for cell in _children(row, "tc")] for row in _children(table, "tr")]
        widest = max((len(row) for row in rows), default=0)
        longest = max((len(cell) for row in rows for cell in row), default=0)
        if widest < 2 or longest > _LAYOUT_CELL:  # a box around text, not a table of data
            for row in _children(table, "tr"):
                for cell in _children(row, "tc"):
                    self.container(cell)
                    self._end_list()
            return
        page = self._page
        lines = [" | ".join(row).rstrip() for row in rows if any(row)]
        self.builder.add("table", "\n".join(lines), page=page)
        self._turn(sum(1 for found in table.iter("{*}lastRenderedPageBreak")))

    def _end_list(self) -> None:
        if self._items:
            self.builder.add("list", "\n".join(self._items), page=self._items_page)
            self._items.clear()


def _read(element: Element, *, count_asked_breaks: bool = False) -> _Paragraph:
    found = _Paragraph(count_asked_breaks)
    _collect(element, found)
    return found


def _collect(element: Element, found: _Paragraph) -> None:
    for child in element:
        name = local(child)
        if name in _SKIPPED or (name == "r" and _is_hidden(child)):
            continue
        if name == "t":
            found.text.append(child.text or "")
        elif name == "txbxContent":
            found.boxes.append(child)
        elif name in ("br", "lastRenderedPageBreak"):
            _take_break(child, name, found)
        elif name in _LITERALS:
            found.text.append(_LITERALS[name])
        elif name == "checkBox" or name == "checkbox":
            found.text.append("☒ " if _is_checked(child) else "☐ ")
        elif name == "sdtPr":
            if not any(local(inner) == "checkbox" for inner in child):
                continue
        else:
            _collect(child, found)
            if name in ("oMath", "num", "p") and found.text:
                found.text.append(" ")


_LITERALS = {"tab": "\t", "cr": "\n", "noBreakHyphen": "\u2011", "softHyphen": "", "ptab": "\t"}


def _take_break(element: Element, name: str, found: _Paragraph) -> None:
    if name == "br" and attribute(element, "type") != "page":
        found.text.append("\n" if attribute(element, "type") is None else " ")
    elif name == "lastRenderedPageBreak" or found.count_asked_breaks:
        if "".join(found.text).strip():
            found.breaks_after += 1
        else:
            found.breaks_before += 1


def _is_hidden(run: Element) -> bool:
    for properties in run:
        if local(properties) == "rPr":
            return any(local(p) == "vanish" and (attribute(p, "val") or "1") not in _OFF for p in properties)
    return False


def _is_checked(box: Element) -> bool:
    return any(local(c) == "checked" and (attribute(c, "val") or "1") not in _OFF for c in box)


def _list_depth(properties: Element) -> int | None:
    values = {local(child): attribute(child, "val") or "" for child in properties}
    if values.get("numId") == "0":
        return None
    level = values.get("ilvl", "0")
    return min(int(level), 8) if level.isascii() and level.isdigit() else 0


def _children(element: Element, wanted: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, also where content controls or tracked insertions wrap them."""
    for child in element:
        name = local(child)
        if name == wanted:
            yield child
        elif name in _CONTAINERS:
            yield from _children(child, wanted)


def _paragraphs(element: Element) -> Iterator[Element]:
    for child in element:
        name = local(child)
        if name == "p":
            yield child
        elif name not in _SKIPPED:
            yield from _paragraphs(child)


def _cell_text(cell: Element) -> str:
    pieces = []
    for paragraph in _paragraphs(cell):
        read = _read(paragraph)
        pieces.append(read.joined())
        pieces.extend(_cell_text(box) for box in read.boxes)
    return one_line(" ".join(pieces))


def _read_styles(archive: Archive, part: str) -> dict[str, _Style]:
    try:
        root = archive.xml(part)
    except DocumentFailure as failure:
        if failure.code == "invalid_file":
            return {}  # the text can be read without its styles
        raise
    elements = {attribute(style, "styleId") or "": style for style in root.iter("{*}style")} if root is not None else {}
    return {name: _resolve_style(name, elements) for name in elements}


def _resolve_style(name: str, elements: dict[str, Element]) -> _Style:
    """Follow `basedOn` until the outline level and the numbering are known."""
    level, listed, is_title = 0, False, False
    seen: set[str] = set()
    while name in elements and name not in seen:
        seen.add(name)
        parent = ""
        for child in elements[name].iter():
            key, value = local(child), attribute(child, "val") or ""
            if key == "name":
                heading = _HEADING_NAME.match(value.lower())
                is_title = is_title or value.lower() == "title"
                level = level or (min(int(heading.group(1)) or 1, 6) if heading else int(value.lower() == "title"))
                listed = listed or value.lower().startswith("list ")
            elif key == "outlineLvl" and value in set("012345"):
                level = level or int(value) + 1
            elif key == "numPr":
                listed = listed or _list_depth(child) is not None
            elif key == "basedOn":
                parent = value
        name = parent
    return _Style(level, listed, is_title)


def _side_parts(relations: dict[str, tuple[str, str]]) -> list[str]:
    order = ("footnotes", "endnotes", "header", "footer")
    parts = [(order.index(kind), target) for kind, target in relations.values() if kind in order]
    return [target for _, target in sorted(parts)]
