"""MSG (Outlook): headers by python-oxmsg, the body by `unstructured`, which leaves headers out."""

from __future__ import annotations

from pathlib import Path

from ingest.document import ParsedDocument
from ingest.loaders.building import DocumentBuilder
from ingest.loaders.mail import add_attachments, add_headers
from ingest.loaders.partition import add_elements, partition


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
    with path.open("rb") as file:
        add_elements(builder, partition("msg", file, process_attachments=False))
    add_attachments(builder, (_name(attachment.file_name) for attachment in message.attachments))
    metadata = {"author": headers["From"], "date": headers["Date"], "subject": headers["Subject"]}
    return builder.build("application/vnd.ms-outlook", title=headers["Subject"], metadata=metadata)


def _name(stored: str | None) -> str:
    return (stored or "unnamed").replace("\\", "/").rsplit("/", 1)[-1]
