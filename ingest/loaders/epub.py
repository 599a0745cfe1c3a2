"""EPUB: the pages of the book's spine, in order, read as HTML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ingest.decoding import decode
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute, local, parse_xml
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.html import add_html, declared_encoding

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_PAGES = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/xml", "application/xml"))


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Title and author come from the package document."""
    archive = Archive(path)
    if _is_encrypted(archive):
        raise DocumentFailure("encrypted", "The book is protected (DRM) and cannot be read.")
    package_path = _package_path(archive)
    data = archive.read(package_path)
    if data is None:
        raise DocumentFailure("invalid_file", "The file is damaged: it has no package document.")
    package = parse_xml(data, recover=True)
    builder = DocumentBuilder()
    for name in _spine(package, posixpath.dirname(package_path)):
        page = archive.read(name)
        if page:
            add_html(builder, decode(page, declared_encoding(page)))
    metadata = _metadata(package)
    return builder.build("application/epub+zip", title=metadata.pop("title", ""), metadata=metadata)


def _is_encrypted(archive: Archive) -> bool:
    """Fonts alone may be obfuscated; that hides no text."""
    root = archive.xml("META-INF/encryption.xml") if "META-INF/encryption.xml" in archive.names else None
    targets = [attribute(found, "URI") or "" for found in root.iter("{*}CipherReference")] if root is not None else []
    return any(target.lower().endswith((".xhtml", ".html", ".htm", ".xml", ".opf")) for target in targets)


def _package_path(archive: Archive) -> str:
    container = archive.xml("META-INF/container.xml")
    for found in container.iter("{*}rootfile") if container is not None else ():
        if attribute(found, "full-path"):
            return str(attribute(found, "full-path"))
    return next((name for name in sorted(archive.names) if name.endswith(".opf")), "content.opf")


def _spine(package: Element, folder: str) -> Iterator[str]:
    items = {item.get("id"): item for item in package.iter("{*}item")}
    for reference in package.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and (item.get("media-type") or "application/xhtml+xml") in _PAGES:
            yield posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))


def _metadata(package: Element) -> dict[str, str]:
    names = {"title": "title", "creator": "author", "date": "date", "description": "subject"}
    found: dict[str, str] = {}
    for block in package.iter("{*}metadata"):
        for child in block.iter():
            ours = names.get(local(child))
            text = "".join(child.itertext()).strip()
            if ours and text:
                found[ours] = f"{found[ours]}, {text}" if ours == "author" and ours in found else found.get(ours, text)
    return found
