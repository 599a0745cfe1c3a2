"""PPTX: slide by slide from DrawingML; titles, text, tables, charts, diagrams and the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute, core_properties, local
from ingest.loaders.building import DocumentBuilder, one_line

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_TITLES = frozenset(("title", "ctrTitle"))
_FURNITURE = frozenset(("sldNum", "dt", "ftr", "hdr", "sldImg"))
_CONTAINERS = frozenset(("grpSp", "AlternateContent", "Choice"))


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Slides in the order of the show, each a page; a slide's title is a heading."""
    archive = Archive(path)
    main = next((t for kind, t in archive.relations("").values() if kind == "officeDocument"), "ppt/presentation.xml")
    root = archive.xml(main)
    if root is None:
        raise DocumentFailure("invalid_file", "The file is damaged: it has no main presentation part.")
    builder = DocumentBuilder()
    for number, part in enumerate(_slides(archive, main, root), start=1):
        _add_slide(builder, archive, part, number)
    properties = core_properties(archive)
    return builder.build(MEDIA_TYPE, title=properties.pop("title", ""), metadata=properties)


def _slides(archive: Archive, main: str, root: Element) -> Iterator[str]:
    relations = archive.relations(main)
    for listed in root.iter("{*}sldId"):
        for key, value in listed.attrib.items():
            if str(key).endswith("}id") and str(value) in relations:
                yield relations[str(value)][1]


def _add_slide(builder: DocumentBuilder, archive: Archive, part: str, number: int) -> None:
    slide = archive.xml(part)
    tree = next(slide.iter("{*}spTree"), None) if slide is not None else None
    if tree is None:
        return
    relations = archive.relations(part)
    shapes = list(_shapes(tree))
    shapes.sort(key=lambda shape: _placeholder(shape) not in _TITLES)  # stable: the title first, then as drawn
    for shape in shapes:
        _add_shape(builder, archive, relations, shape, number)
    for kind, target in relations.values():
        if kind == "notesSlide":
            _add_notes(builder, archive, target, number)


def _shapes(tree: Element) -> Iterator[Element]:
    for child in tree:
        name = local(child)
        if name in ("sp", "graphicFrame", "cxnSp"):
            yield child
        elif name in _CONTAINERS:
            yield from _shapes(child)


def _add_shape(
    builder: DocumentBuilder, archive: Archive, relations: dict[str, tuple[str, str]], shape: Element, page: int
) -> None:
    kind = _placeholder(shape)
    if kind in _FURNITURE:
        return
    if kind in _TITLES:
        builder.add("heading", one_line(" ".join(text for _, _, text in _paragraphs(shape))), level=1, page=page)
        return
    for table in shape.iter("{*}tbl"):
        rows = [[_text(cell) for cell in row if local(cell) == "tc"] for row in table if local(row) == "tr"]
        builder.add("table", "\n".join(" | ".join(row).rstrip() for row in rows if any(row)), page=page)
        return
    if local(shape) == "graphicFrame":
        _add_graphic(builder, archive, relations, shape, page)
        return
    _add_text(builder, shape, page, listed=kind in ("body", "obj", "subTitle") and kind != "subTitle")


def _add_text(builder: DocumentBuilder, shape: Element, page: int, *, listed: bool) -> None:
    lines = [(level, bulleted, text) for level, bulleted, text in _paragraphs(shape) if text.strip()]
    several = len(lines) > 1
    if several and (listed or any(bulleted for _, bulleted, _ in lines)):
        builder.add("list", "\n".join("  " * level + "- " + one_line(text) for level, _, text in lines), page=page)
    else:
        builder.add("paragraph", "\n".join(text for _, _, text in lines), page=page)


def _add_graphic(
    builder: DocumentBuilder, archive: Archive, relations: dict[str, tuple[str, str]], shape: Element, page: int
) -> None:
    """The words of a chart (titles, series, categories with their values) or of a diagram."""
    wanted = {str(value) for inner in shape.iter() for value in inner.attrib.values()}
    for name, (kind, target) in relations.items():
        if name not in wanted or kind not in ("chart", "diagramData", "chartEx"):
            continue
        root = archive.xml(target)
        if root is None:
            continue
        if kind == "diagramData":
            builder.add(
                "list", "\n".join(f"- {one_line(text)}" for _, _, text in _paragraphs(root) if text.strip()), page=page
            )
        else:
            titles = [one_line(_text(title)) for title in root.iter("{*}title")]
            builder.add("paragraph", "\n".join(title for title in titles if title), page=page)
            builder.add("table", "\n".join(_series(root)), page=page)


def _series(chart: Element) -> Iterator[str]:
    for series in chart.iter("{*}ser"):
        name = " ".join(_values(series, "tx"))
        labels = _values(series, "cat") or _values(series, "xVal")
        values = _values(series, "val") or _values(series, "yVal")
        pairs = [f"{label}: {value}" for label, value in zip(labels, values, strict=False)] or values
        yield " | ".join([name, *pairs])


def _values(series: Element, part: str) -> list[str]:
    return [(v.text or "").strip() for child in series if local(child) == part for v in child.iter("{*}v")]


def _add_notes(builder: DocumentBuilder, archive: Archive, part: str, page: int) -> None:
    root = archive.xml(part)
    tree = next(root.iter("{*}spTree"), None) if root is not None else None
    for shape in _shapes(tree) if tree is not None else ():
        if _placeholder(shape) in (None, "body"):
            text = "\n".join(text for _, _, text in _paragraphs(shape) if text.strip())
            builder.add("paragraph", f"Notes: {text}" if text else "", page=page)


def _placeholder(shape: Element) -> str | None:
    """The role of a shape in its layout: `title`, `body`…; None for a free one."""
    for found in shape.iter("{*}ph"):
        return attribute(found, "type") or "obj"
    return None


def _paragraphs(element: Element) -> Iterator[tuple[int, bool, str]]:
    """Level, whether it has a bullet of its own, and text of each paragraph."""
    for paragraph in element.iter("{*}p"):
        pieces: list[str] = []
        level, bulleted = 0, False
        for inner in paragraph.iter():
            name = local(inner)
            if name == "t":
                pieces.append(inner.text or "")
            elif name == "br":
                pieces.append("\n")
            elif name == "tab":
                pieces.append("\t")
            elif name == "pPr":
                value = inner.get("lvl", "0")
                level = min(int(value), 8) if value.isascii() and value.isdigit() else 0
                bulleted = any(local(mark) in ("buChar", "buAutoNum") for mark in inner)
        yield level, bulleted, "".join(pieces)


def _text(element: Element) -> str:
    return one_line(" ".join(text for _, _, text in _paragraphs(element)))
