"""XLSX: each sheet a heading, its tables and the lines between them."""

from __future__ import annotations

from pathlib import Path

from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.archive import Archive, core_properties
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.ooxml import package
from ingest.loaders.partition import add_elements, partition

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Cell values as last calculated. A sheet's page is its number in the workbook."""
    archive = Archive(path)
    builder = DocumentBuilder()
    add_elements(builder, partition("xlsx", package(archive)))
    if not len(builder):
        raise DocumentFailure("no_text", "The workbook opened, but none of its cells holds a value.")
    properties = core_properties(archive)
    return builder.build(MEDIA_TYPE, title=properties.pop("title", ""), metadata=properties)
