"""MSG (Outlook): headers by python-oxmsg, the plain body by `unstructured`, HTML by our own loader."""

from __future__ import annotations

from pathlib import Path

from ingest.document import ParsedDocument
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.mail import add_attachments, add_body, add_headers
from ingest.loaders.partition import partition


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """Headers, body, and the names of attachments, which are never opened."""
    from oxmsg import Message

    message = Message.load(str(path))
    sent = message.sent_date
    headers = {
        "Subject": message.subject or "",
        "From": message.sender or "",
        "To": ", ".join(f"{recipient.name} <{recipient.email_address}>" for recipient in message.recipients),
        "Date": sent.isoformat() if sent else "",
    }
    builder = DocumentBuilder()
    add_headers(builder, headers)
    body = (message.body or "").strip()
    add_body(builder, partition("text", None, text=body) if body else [], message.html_body or "")
    add_attachments(builder, (_name(attachment.file_name) for attachment in message.attachments))
    metadata = {"author": headers["From"], "date": headers["Date"], "subject": headers["Subject"]}
    return builder.build("application/vnd.ms-outlook", title=headers["Subject"], metadata=metadata)


def _name(stored: str | None) -> str:
    return (stored or "unnamed").replace("\\", "/").rsplit("/", 1)[-1]
