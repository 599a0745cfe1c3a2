"""The shape of an uploaded file."""

from __future__ import annotations

from typing import Literal, get_args

from api.schemas.common import ResponseModel
from rag.catalog.records import File

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
PURPOSES: tuple[str, ...] = get_args(Purpose)


class FileObject(ResponseModel):
    """OpenAI's file object. `status` says that the bytes are stored; ingestion is told of in the vector store."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


def file_object(file: File) -> FileObject:
    """A file as it is sent."""
    return FileObject(
        id=file.public_id, bytes=file.bytes, created_at=file.created_at, filename=file.filename, purpose=file.purpose
    )
