"""ODT: headings, paragraphs, lists and tables straight from `content.xml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute, local
from ingest.loaders.building import DocumentBuilder, one_line

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_NOT_TEXT = frozenset(("tracked-changes", "annotation", "annotation-end", "sequence-decls", "forms", "variable-decls"))


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Body text in order, then headers and footers. Deleted (tracked) and hidden text is left out."""
    archive = Archive(path)
    if _is_encrypted(archive):
        raise DocumentFailure("encrypted", "The file is protected by a password. Save it without one.")
    root = archive.xml("content.xml")
    if root is None:
        raise DocumentFailure("invalid_file", "The file is damaged: it has no content part.")
    builder = DocumentBuilder()
    for body in root.iter("{*}body"):
        _add(builder, body)
    styles = archive.xml("styles.xml")
    for furniture in styles.iter("{*}header", "{*}footer") if styles is not None else ():
        builder.add("paragraph", one_line(_text(furniture)))
    metadata = _metadata(archive)
    return builder.build("application/vnd.oasis.opendocument.text", title=metadata.pop("title", ""), metadata=metadata)


def _is_encrypted(archive: Archive) -> bool:
    manifest = archive.xml("META-INF/manifest.xml")
    return manifest is not None and next(manifest.iter("{*}encryption-data"), None) is not None


def _add(builder: DocumentBuilder, element: Element) -> None:
    for child in element:
        name = local(child)
        if name in _NOT_TEXT or attribute(child, "display") == "none":
            continue
        if name == "h":
            level = attribute(child, "outline-level") or "1"
            builder.add("heading", one_line(_text(child)), level=min(max(int(level), 1), 6) if level.isdigit() else 1)
        elif name == "p":
            builder.add("paragraph", _text(child))
            for box in child.iter("{*}text-box"):
                _add(builder, box)
        elif name == "list":
            builder.add("list", "\n".join(_items(child, 0)))
        elif name == "table":
            rows = [_row(row) for row in child.iter("{*}table-row")]
            builder.add("table", "\n".join(row for row in rows if row))
        else:
            _add(builder, child)


def _items(element: Element, depth: int) -> Iterator[str]:
    for item in element:
        mark = "- "
        for child in item:
            if local(child) == "list":
                yield from _items(child, min(depth + 1, 20))
            else:
                text = one_line(_text(child))
                if text:
                    yield "  " * depth + mark + text
                    mark = "  "


def _row(row: Element) -> str:
    cells = [one_line(_text(cell)) for cell in row if local(cell) in ("table-cell", "covered-table-cell")]
    return " | ".join(cells).rstrip(" |")


def _text(element: Element) -> str:
    return "".join(_pieces(element)).strip()


def _pieces(element: Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        name = local(child)
        if name == "s":
            yield " " * _count(child)
        elif name in ("tab", "line-break"):
            yield "\t" if name == "tab" else "\n"
        elif name not in _NOT_TEXT and name not in ("text-box", "object", "title", "desc", "note-citation"):
            yield from _pieces(child)
            if name in ("p", "h", "table-cell", "note"):
                yield " "
        yield child.tail or ""


def _count(spaces: Element) -> int:
    """How many spaces one `text:s` stands for."""
    value = attribute(spaces, "c") or "1"
    return min(int(value), 200) if value.isascii() and value.isdigit() else 1


def _metadata(archive: Archive) -> dict[str, str]:
    names = {"title": "title", "creator": "author", "date": "date", "subject": "subject", "keyword": "keywords"}
    root = archive.xml("meta.xml") if "meta.xml" in archive.names else None
    values = {local(child): (child.text or "").strip() for child in root.iter()} if root is not None else {}
    return {ours: values[theirs] for theirs, ours in names.items() if values.get(theirs)}
