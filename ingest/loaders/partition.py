"""Parsing by `unstructured`: its elements become the text and the blocks of a document.

Three things are settled before it is imported. It must not call home (`DO_NOT_TRACK`). It must not download a spaCy
model into site-packages while parsing: it gets a blank English pipeline that only finds sentences. And since it would
then take every short line for a title, its guess is switched off: headings come from real heading styles and tags.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder, one_line

if TYPE_CHECKING:
    from unstructured.documents.elements import Element

logger = logging.getLogger(__name__)

_SETTINGS = {"DO_NOT_TRACK": "1", "UNSTRUCTURED_DISABLE_NOTICE": "1", "UNSTRUCTURED_TITLE_MAX_WORD_LENGTH": "0"}
_SAMPLE = b"Subject: a\nContent-Type: text/html\n\n<h1>A</h1><p>It is. So.</p><ul><li>b</ul><table><tr><td>c</table>"
_DEEPEST = 8
_LABEL = re.compile(r"\(?(\d{1,4}|[a-zA-Z]|[ivxlcIVXLC]{1,6})[.)]\s")


def partition(name: str, file: IO[bytes] | None, **options: Any) -> list[Element]:
    """The elements of `file` by `unstructured.partition.<name>`; `file` is None where the options give the text.

    Raises DocumentFailure `invalid_file` for whatever the partitioner raises but want of memory.
    """
    function = _partitioner(name)
    try:
        source = options if file is None else {"file": file, **options}
        elements: list[Element] = function(languages=[""], **source)  # "": do not detect the language
    except MemoryError:
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise DocumentFailure(
            "invalid_file", f"The file is damaged or unusual and cannot be read ({reason})."
        ) from error
    return elements


def warm(name: str) -> None:
    """Import a partitioner and what every partition needs, so that a fork of this process has it."""
    _partitioner(name)
    partition("email", io.BytesIO(_SAMPLE), process_attachments=False)


def add_elements(builder: DocumentBuilder, elements: Iterable[Element]) -> None:
    """Append the blocks that the elements amount to. Headers and footers come last, once each."""
    items: list[Element] = []
    sides: dict[str, None] = {}
    sheet = None
    for element in elements:
        if element.category == "ListItem":
            items.append(element)
            continue
        _add_list(builder, items)
        page = element.metadata.page_number
        if element.metadata.page_name != sheet:
            sheet = element.metadata.page_name
            builder.add("heading", one_line(sheet or ""), level=1, page=page)
        if element.category in ("Header", "Footer"):
            sides[one_line(element.text)] = None
        elif element.category == "Title":
            builder.add("heading", one_line(element.text), level=_level(element), page=page)
        elif element.category == "Table":
            builder.add("table", _rows(element.metadata.text_as_html) or element.text, page=page)
        elif element.category != "PageBreak":
            builder.add("code" if element.category == "CodeSnippet" else "paragraph", element.text or "", page=page)
    _add_list(builder, items)
    for side in sides:
        builder.add("paragraph", side)


def _add_list(builder: DocumentBuilder, items: list[Element]) -> None:
    """One block of the items collected so far, indented from the outermost of them."""
    if not items:
        return
    depths = [item.metadata.category_depth or 0 for item in items]
    outermost = min(depths)
    lines = (
        "  " * min(depth - outermost, _DEEPEST) + _marked(one_line(item.text))
        for depth, item in zip(depths, items, strict=True)
    )
    builder.add("list", "\n".join(lines), page=items[0].metadata.page_number)
    items.clear()


def _marked(item: str) -> str:
    """An item with a dash in front, unless it brings a number or letter of its own."""
    return item if _LABEL.match(item) else f"- {item}"


def _level(element: Element) -> int:
    return min(max((element.metadata.category_depth or 0) + 1, 1), 6)


def _rows(markup: str | None) -> str:
    """A table's rows as lines, its cells joined by ` | `; "" where there is no markup."""
    if not markup:
        return ""
    from lxml import html

    rows = ([_cell(cell) for cell in row.iter("td", "th")] for row in html.fromstring(markup).iter("tr"))
    return "\n".join(" | ".join(row).rstrip() for row in rows if any(row))


def _cell(cell: Any) -> str:
    """pandas writes a worksheet's line break as a backslash and an n, and a day as its midnight."""
    return one_line(cell.text_content().replace("\\n", " ")).removesuffix(" 00:00:00")


def _partitioner(name: str) -> Any:
    os.environ.update(_SETTINGS)
    from unstructured.nlp import tokenize

    if tokenize._load_spacy_model is not _blank_pipeline:
        tokenize._load_spacy_model = _blank_pipeline
        logger.info("unstructured reads sentences with a blank spaCy pipeline; headings come from styles and tags")
    return getattr(importlib.import_module(f"unstructured.partition.{name}"), f"partition_{name}")


def _blank_pipeline() -> Any:
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    return pipeline
