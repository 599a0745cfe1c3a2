"""PPTX: slide by slide; titles, text and tables, then what `unstructured` leaves out: charts, diagrams, notes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.document import ParsedDocument
from ingest.loaders.archive import Archive, core_properties, local, parse_xml
from ingest.loaders.building import DocumentBuilder, one_line
from ingest.loaders.ooxml import package
from ingest.loaders.partition import add_elements, partition

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Slides in the order of the show, each a page; a slide's title is a heading."""
    from pptx import Presentation

    archive = Archive(path)
    file = package(archive)
    elements = partition("pptx", file)  # its notes would stand before the title that they belong under
    by_page = {page: list(found) for page, found in groupby(elements, lambda element: element.metadata.page_number)}
    file.seek(0)
    builder = DocumentBuilder()
    for page, slide in enumerate(Presentation(file).slides, start=1):
        add_elements(builder, by_page.get(page, ()))
        _add_graphics(builder, slide, page)
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None and notes.text.strip():
            builder.add("paragraph", f"Notes: {notes.text.strip()}", page=page)
    properties = core_properties(archive)
    return builder.build(MEDIA_TYPE, title=properties.pop("title", ""), metadata=properties)


def _add_graphics(builder: DocumentBuilder, slide: Any, page: int) -> None:
    """The words of charts (titles, series, categories with their values) and of diagrams."""
    for relation in slide.part.rels.values():
        kind = relation.reltype.rsplit("/", 1)[-1]
        if kind not in ("chart", "chartEx", "diagramData") or relation.is_external:
            continue
        root = parse_xml(relation.target_part.blob)
        if kind == "diagramData":
            points = (_text(point) for point in root.iter("{*}pt"))
            builder.add("list", "\n".join(f"- {point}" for point in points if point), page=page)
        else:
            titles = (_text(title) for title in root.iter("{*}title"))
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


def _text(element: Element) -> str:
    paragraphs = ("".join(run.text or "" for run in paragraph.iter("{*}t")) for paragraph in element.iter("{*}p"))
    return one_line(" ".join(paragraphs))
