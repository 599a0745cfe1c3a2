"""EML and MHTML: headers, then the body by `unstructured`, then the names of attachments."""

from __future__ import annotations

import io
from collections.abc import Iterable
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.decoding import decode
from ingest.document import ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import DocumentBuilder, one_line
from ingest.loaders.html import add_html, declared_encoding
from ingest.loaders.partition import add_elements, partition

if TYPE_CHECKING:
    from unstructured.documents.elements import Element

_MUCH_MORE = 2
_HEADERS = ("Subject", "From", "To", "Cc", "Date")


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Attachments are named, never opened."""
    data = path.read_bytes()
    message = BytesParser(policy=policy.compat32).parsebytes(data)
    headers = {name: header(message, name) for name in _HEADERS}
    builder = DocumentBuilder()
    add_headers(builder, headers)
    bodies, attachments = _parts(message)
    plain = "\n\n".join(text for kind, text in bodies if kind != "text/html")
    html = "\n".join(text for kind, text in bodies if kind == "text/html")
    add_body(builder, _plain(data, plain), html)
    add_attachments(builder, attachments)
    metadata = {"author": headers["From"], "date": headers["Date"], "subject": headers["Subject"]}
    return builder.build("message/rfc822", title=headers["Subject"], metadata=metadata)


def header(message: Message, name: str) -> str:
    """A header's text on one line; a broken one as it stands."""
    return decoded(str(message.get(name, "")))


def decoded(value: str) -> str:
    """A header's value, its encoded words decoded as far as they can be.

    >>> decoded("=?utf-8?q?Gr=C3=BC=C3=9Fe?= from Ada")
    'Grüße from Ada'
    """
    try:
        parts = decode_header(value)
    except (ValueError, HeaderParseError):
        return one_line(value)
    texts = (part if isinstance(part, str) else decode(part, charset) for part, charset in parts)
    return one_line("".join(texts))


def add_headers(builder: DocumentBuilder, headers: dict[str, str]) -> None:
    """One block with a line for each header that says something."""
    builder.add("paragraph", "\n".join(f"{name}: {value}" for name, value in headers.items() if value))


def add_attachments(builder: DocumentBuilder, names: Iterable[str]) -> None:
    """One block that names them, where there are any."""
    wanted = [one_line(name)[:200] for name in names]
    if any(wanted):
        builder.add("paragraph", "Attachments: " + ", ".join(name for name in wanted if name))


def add_body(builder: DocumentBuilder, plain: list[Element], html: str) -> None:
    """The plain form, unless the other says much more (a stub that says "open this in a browser").

    HTML is read by our own loader: `unstructured` keeps text that a sender hid from the reader.
    """
    formatted = DocumentBuilder()
    if html.strip():
        add_html(formatted, html)
    if plain and len(formatted) <= _MUCH_MORE * sum(len(element.text or "") for element in plain):
        add_elements(builder, plain)
    elif html.strip():
        add_html(builder, html)


def _plain(data: bytes, text: str) -> list[Element]:
    """The plain form as `unstructured` finds it; for messages of an unusual shape all `text` of their parts."""
    if not text.strip():
        return []
    try:
        found = partition("email", io.BytesIO(data), content_source="text/plain", process_attachments=False)
    except DocumentFailure:
        found = []
    return found or partition("text", None, text=text)


def _parts(message: Message) -> tuple[list[tuple[str, str]], list[str]]:
    """The parts that hold text, each as its type and text, and the names of attachments."""
    bodies: list[tuple[str, str]] = []
    attachments: list[str] = []
    skip: set[int] = set()
    for part in message.walk():
        if id(part) in skip or (part.is_multipart() and part.get_content_maintype() != "message"):
            continue
        kind = part.get_content_type()
        name = _filename(part)
        if name or part.get_content_disposition() == "attachment" or part.get_content_maintype() == "message":
            attachments.append(name or kind)
            skip.update(id(inner) for inner in part.walk())
        elif kind.startswith("text/") and kind != "text/css":
            bodies.append((kind, _text(part)))
    return bodies, attachments


def _filename(part: Message) -> str:
    try:
        name = part.get_filename() or ""
    except (ValueError, TypeError, AttributeError, LookupError):  # the standard parser's own faults
        return ""
    return decoded(name).replace("\\", "/").rsplit("/", 1)[-1]


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return str(part.get_payload())
    declared = part.get_content_charset()
    return decode(data, declared if declared else declared_encoding(data))
