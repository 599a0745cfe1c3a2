"""Office packages made ready for libraries that read them by themselves."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping

from ingest.loaders.archive import Archive

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
_MARKUP = (".xml", ".rels")
_MEDIA = ("/media/", "/embeddings/", "/fonts/", "thumbnail")


def package(archive: Archive, replaced: Mapping[str, bytes] | None = None) -> io.BytesIO:
    """The package, uncompressed: its parts checked against expanding without measure, its pictures left out.

    The strict variant, which python-docx, python-pptx and openpyxl refuse, becomes the transitional one: they differ
    in the names of namespaces only. `replaced` gives other bytes for some parts.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as container:
        for name in archive.listing:
            if any(mark in name for mark in _MEDIA):
                container.writestr(name, b"")
                continue
            data = (replaced or {}).get(name) or archive.read(name) or b""
            container.writestr(name, to_transitional(data) if name.endswith(_MARKUP) else data)
    made.seek(0)
    return made


def to_transitional(data: bytes) -> bytes:
    """A part with the namespaces of the transitional variant."""
    return _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", data)
