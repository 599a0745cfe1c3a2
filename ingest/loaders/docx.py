"""DOCX: `unstructured` reads it, after its text was put where `unstructured` looks.

Left to itself it drops the text of text boxes, content controls, tracked insertions, equations and notes, keeps hidden
text, and takes a heading by a style of one's own for a paragraph. So the main part is rewritten first: what wraps text
is unwrapped, what holds text apart becomes paragraphs, hidden text goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute, core_properties, local, parse_xml
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.ooxml import package, to_transitional
from ingest.loaders.partition import add_elements, partition

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_UNWRAPPED = ("sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "fldSimple", "dir", "bdo")
_REMOVED = ("del", "moveFrom", "Fallback", "sdtPr", "sdtEndPr", "customXmlPr", "smartTagPr")
_NOTES = ("footnotes", "endnotes")
_OFF = frozenset(("0", "false", "off"))


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Body in order, each text box after the paragraph that it hangs on, then notes, headers, footers."""
    archive = Archive(path)
    main = next((t for kind, t in archive.relations("").values() if kind == "officeDocument"), "word/document.xml")
    root = _part(archive, main)
    if root is None:
        raise DocumentFailure("invalid_file", "The file is damaged: it has no main document part.")
    _prepare(archive, main, root)
    builder = DocumentBuilder()
    add_elements(builder, partition("docx", package(archive, {main: _bytes(root)})))
    properties = core_properties(archive)
    return builder.build(MEDIA_TYPE, title=properties.pop("title", ""), metadata=properties)


def _part(archive: Archive, name: str) -> Element | None:
    data = archive.read(name)
    return None if data is None else parse_xml(to_transitional(data))


def _bytes(root: Element) -> bytes:
    from lxml import etree

    data: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)
    return data


def _prepare(archive: Archive, main: str, root: Element) -> None:
    from lxml import etree

    etree.strip_elements(root, etree.Entity, with_tail=False)  # unexpanded; their definitions stay behind
    body = next(root.iter(f"{_W}body"), root)
    related = archive.relations(main).values()
    for note in _notes(archive, [target for kind, target in related if kind in _NOTES]):
        _insert_last(body, note)
    for element in list(body.iter("{*}r", *(f"{{*}}{name}" for name in _REMOVED))):
        if local(element) != "r" or _is_hidden(element):
            _remove(element)
    for wrapper in list(body.iter(*(f"{{*}}{name}" for name in _UNWRAPPED))):
        _unwrap(wrapper)
    for equation in list(body.iter("{*}oMath")):
        _flatten(equation)
    for box in reversed(list(body.iter("{*}txbxContent"))):
        _lift(box)
    _show_page_breaks(body)
    styles = next((target for kind, target in related if kind == "styles"), "word/styles.xml")
    _name_headings(body, _headings(archive, styles))


def _notes(archive: Archive, parts: list[str]) -> Iterator[Element]:
    for part in parts:
        root = _part(archive, part)
        for note in root if root is not None else ():
            if attribute(note, "type") not in ("separator", "continuationSeparator", "continuationNotice"):
                yield from note


def _insert_last(body: Element, block: Element) -> None:
    """Append to the body, but before the properties of its last section."""
    if len(body) and local(body[-1]) == "sectPr":
        body[-1].addprevious(block)
    else:
        body.append(block)


def _is_hidden(run: Element) -> bool:
    properties = run.find(f"{_W}rPr/{_W}vanish")
    return properties is not None and (attribute(properties, "val") or "1") not in _OFF


def _remove(element: Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _unwrap(wrapper: Element) -> None:
    """Put an element's children in its place."""
    for child in list(wrapper):
        wrapper.addprevious(child)
    _remove(wrapper)


def _flatten(equation: Element) -> None:
    """Put a run with an equation's characters in its place; the two sides of a fraction stay apart."""
    characters = "".join("/" if local(part) == "den" else part.text or "" for part in equation.iter("{*}t", "{*}den"))
    run = equation.makeelement(f"{_W}r", {}, None)
    text = run.makeelement(f"{_W}t", {"{http://www.w3.org/XML/1998/namespace}space": "preserve"}, None)
    text.text = f" {characters} "
    run.append(text)
    target = equation.getparent() if local(equation.getparent()) == "oMathPara" else equation
    target.addprevious(run)
    _remove(equation)


def _lift(box: Element) -> None:
    """Move a text box's blocks behind the paragraph that it hangs on."""
    anchor = next(box.iterancestors(f"{_W}p"), None)
    if anchor is None:
        return
    for block in reversed(list(box)):
        anchor.addnext(block)


def _show_page_breaks(body: Element) -> None:
    """Word marks a page break where it was last drawn; only without these marks count those asked for."""
    if next(body.iter(f"{_W}lastRenderedPageBreak"), None) is not None:
        return
    for asked in list(body.iter(f"{_W}br")):
        if attribute(asked, "type") == "page":
            asked.addnext(asked.makeelement(f"{_W}lastRenderedPageBreak", {}, None))


def _headings(archive: Archive, part: str) -> dict[str, str]:
    """Of styles based on a heading's style: their id to its id."""
    try:
        root = _part(archive, part)
    except DocumentFailure as failure:
        if failure.code == "invalid_file":
            return {}
        raise
    styles = {attribute(s, "styleId") or "": s for s in root.iter(f"{_W}style")} if root is not None else {}
    return {name: heading for name in styles if (heading := _heading_of(name, styles)) not in (None, name)}


def _heading_of(name: str, styles: dict[str, Element]) -> str | None:
    seen: set[str] = set()
    while name in styles and name not in seen:
        seen.add(name)
        values = {local(child): attribute(child, "val") or "" for child in styles[name]}
        if values.get("name", "").lower().startswith(("heading ", "title")):
            return name
        name = values.get("basedOn", "")
    return None


def _name_headings(body: Element, headings: dict[str, str]) -> None:
    for style in body.iter(f"{_W}pStyle"):
        if heading := headings.get(style.get(f"{_W}val", "")):
            style.set(f"{_W}val", heading)
