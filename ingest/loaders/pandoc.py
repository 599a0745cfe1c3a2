"""EPUB, ODT, RTF, reStructuredText and Org: pandoc converts them for `unstructured`.

Pandoc runs inside the parser's own confinement, with its own sandbox on. What a format says of itself (title, author,
date) `unstructured` leaves behind, so pandoc is asked for that apart.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from ingest.decoding import read_text
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, attribute
from ingest.loaders.building import DocumentBuilder, one_line
from ingest.loaders.partition import add_elements, partition
from ingest.loaders.rtf import in_unicode

_HEAP = "-M700m"
_OUT_OF_HEAP = 'exitcode "251"'
_TEMPLATE = "$title$\n$for(author)$$author$$sep$, $endfor$\n$date$"
_KEYS = ("title", "author", "date")


def load_epub(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The pages of the book's spine, in order."""
    archive = Archive(path)
    archive.check_all()
    if _is_protected(archive):
        raise DocumentFailure("encrypted", "The book is protected (DRM) and cannot be read.")
    return _load(path.read_bytes(), "epub", "application/epub+zip")


def load_odt(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The body, then headers and footers, which pandoc leaves out."""
    archive = Archive(path)
    archive.check_all()
    manifest = archive.xml("META-INF/manifest.xml")
    if manifest is not None and next(manifest.iter("{*}encryption-data"), None) is not None:
        raise DocumentFailure("encrypted", "The file is protected by a password. Save it without one.")
    sides = DocumentBuilder()
    styles = archive.xml("styles.xml")
    for side in styles.iter("{*}header", "{*}footer") if styles is not None else ():
        sides.add("paragraph", one_line(" ".join(side.itertext())))
    return _load(path.read_bytes(), "odt", "application/vnd.oasis.opendocument.text", sides)


def load_rtf(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Rich text."""
    return _load(in_unicode(path.read_bytes()), "rtf", "application/rtf")


def load_rst(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """ReStructuredText; files that it includes are not read."""
    return _load(read_text(path).encode(), "rst", "text/x-rst")


def load_org(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Org; files that it includes are not read."""
    return _load(read_text(path).encode(), "org", "text/x-org")


def _load(data: bytes, source: str, media_type: str, sides: DocumentBuilder | None = None) -> ParsedDocument:
    os.environ["GHCRTS"] = _HEAP
    try:
        elements = partition(source, io.BytesIO(data))
    except DocumentFailure as failure:
        if _OUT_OF_HEAP in str(failure.__cause__):
            raise DocumentFailure("too_large", "Converting the file takes too much memory. Split it.") from failure
        raise
    said = _metadata(data, source)
    builder = DocumentBuilder()
    if source == "org":  # its title is a line of the text, which the conversion drops
        builder.add("heading", one_line(said["title"]), level=1)
    add_elements(builder, elements)
    if sides is not None:
        builder.add("paragraph", sides.text)
    return builder.build(media_type, title=said.pop("title"), metadata=said)


def _metadata(data: bytes, source: str) -> dict[str, str]:
    """Title, author and date as the format gives them, "" where it does not."""
    import pypandoc

    with tempfile.TemporaryDirectory() as folder:
        file, template = Path(folder, f"file.{source}"), Path(folder, "template.txt")
        file.write_bytes(data)
        template.write_text(_TEMPLATE)
        options = ["--wrap=none", f"--template={template}"]
        told = pypandoc.convert_file(str(file), "plain", format=source, extra_args=options, sandbox=True)
    lines = [*told.split("\n"), "", "", ""]
    return dict(zip(_KEYS, lines, strict=False))


def _is_protected(archive: Archive) -> bool:
    """Fonts alone may be obfuscated; that hides no text."""
    root = archive.xml("META-INF/encryption.xml") if "META-INF/encryption.xml" in archive.names else None
    targets = [attribute(found, "URI") or "" for found in root.iter("{*}CipherReference")] if root is not None else []
    return any(target.lower().endswith((".xhtml", ".html", ".htm", ".xml", ".opf")) for target in targets)
