"""Loaders turn a file into a `ParsedDocument`.

A loader is a function `load(path, filename) -> ParsedDocument`; it raises DocumentFailure for what a person can act
on and lets anything else rise. Adding one: its file, its line in this table, and a media type that `sniff` answers.
Loaders open hostile files: call them through `ingest.sandbox.ParserPool`, which runs them in a confined process.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ingest import sniff
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure

Loader = Callable[[Path, str], ParsedDocument]

LOADERS: Mapping[str, str] = MappingProxyType(
    {
        sniff.PDF: "ingest.loaders.pdf:load",
        sniff.DOCX: "ingest.loaders.docx:load",
        sniff.PPTX: "ingest.loaders.pptx:load",
        sniff.XLSX: "ingest.loaders.xlsx:load",
        sniff.ODT: "ingest.loaders.pandoc:load_odt",
        sniff.EPUB: "ingest.loaders.pandoc:load_epub",
        sniff.RTF: "ingest.loaders.pandoc:load_rtf",
        sniff.RST: "ingest.loaders.pandoc:load_rst",
        sniff.ORG: "ingest.loaders.pandoc:load_org",
        sniff.MSG: "ingest.loaders.msg:load",
        sniff.EML: "ingest.loaders.mail:load",
        sniff.HTML: "ingest.loaders.html:load",
        sniff.XML: "ingest.loaders.xml:load",
        sniff.JSON: "ingest.loaders.data:load_json",
        sniff.JSON_LINES: "ingest.loaders.data:load_json_lines",
        sniff.CSV: "ingest.loaders.tabular:load_csv",
        sniff.TSV: "ingest.loaders.tabular:load_tsv",
        sniff.MARKDOWN: "ingest.loaders.markdown:load",
        sniff.PLAIN: "ingest.loaders.text:load",
    }
)
NEEDS_A_PROGRAM = frozenset((sniff.ODT, sniff.EPUB, sniff.RTF, sniff.RST, sniff.ORG))
"""Media types whose loader starts another program (pandoc); all others are denied that."""

PARTITIONED: Mapping[str, str] = MappingProxyType(
    {
        sniff.EML: "email",
        sniff.MSG: "msg",
        sniff.DOCX: "docx",
        sniff.PPTX: "pptx",
        sniff.XLSX: "xlsx",
        sniff.ODT: "odt",
        sniff.EPUB: "epub",
        sniff.RTF: "rtf",
        sniff.RST: "rst",
        sniff.ORG: "org",
    }
)
"""Media types that a partitioner of `unstructured` reads: its name in `ingest.loaders.partition`."""


def warm(media_type: str, loaders: Mapping[str, str] = LOADERS) -> None:
    """Import a loader and what it imports when it runs; done ahead, it saves each fork from it. Raises ImportError."""
    loader_for(media_type, loaders)
    if media_type in PARTITIONED:
        importlib.import_module("ingest.loaders.partition").warm(PARTITIONED[media_type])
    elif media_type == sniff.PDF:
        importlib.import_module("pypdfium2")


def loader_for(media_type: str, loaders: Mapping[str, str] = LOADERS) -> Loader:
    """The loader of a media type, imported now. Raises DocumentFailure `unsupported_file` for an unknown one."""
    if media_type not in loaders:
        raise DocumentFailure("unsupported_file", f"{media_type} is not one of: {', '.join(sorted(loaders))}.")
    module, function = loaders[media_type].split(":")
    loader: Loader = getattr(importlib.import_module(module), function)
    return loader
