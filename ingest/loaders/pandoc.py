"""RTF, reStructuredText and Org: pandoc makes HTML of them. It runs inside the parser's own confinement."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ingest.decoding import read_text
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.html import add_html

_HEAP = "-M700m"
_TEMPLATE = "$if(title)$<h1>$title$</h1>$endif$$if(subtitle)$<p>$subtitle$</p>$endif$\n$body$\n"
_OUT_OF_HEAP = 251


def load_rtf(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Rich text."""
    return _load(path.read_bytes(), "rtf", "application/rtf")


def load_rst(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """ReStructuredText; files that it includes are not read."""
    return _load(read_text(path).encode(), "rst", "text/x-rst")


def load_org(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Org; files that it includes are not read."""
    return _load(read_text(path).encode(), "org", "text/x-org")


def _load(data: bytes, source_format: str, media_type: str) -> ParsedDocument:
    builder = DocumentBuilder()
    add_html(builder, _to_html(data, source_format))
    return builder.build(media_type)


def _to_html(data: bytes, source_format: str) -> str:
    import pypandoc

    template = Path("template.html")  # the working folder is this file's scratch
    template.write_text(_TEMPLATE)
    options = ["--sandbox", "--standalone", "--wrap=none", f"--template={template}", "--metadata=pagetitle:-"]
    done = subprocess.run(
        [pypandoc.get_pandoc_path(), *options, "-f", source_format, "-t", "html", "+RTS", _HEAP, "-RTS"],
        input=data,
        capture_output=True,
        check=False,
    )
    if done.returncode == _OUT_OF_HEAP:
        raise DocumentFailure("too_large", "Converting the file takes too much memory. Split it.")
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip()[:300]
        raise DocumentFailure("invalid_file", f"The file cannot be converted: {reason or done.returncode}.")
    return done.stdout.decode("utf-8", "replace")
