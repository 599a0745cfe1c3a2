"""The shape of an uploaded file."""

from __future__ import annotations

from typing import Literal, cast, get_args

from pydantic import Field

from api.schemas.common import IfAny, RequestModel, ResponseModel
from rag.catalog.records import File

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
ShownPurpose = Literal[
    "assistants",
    "assistants_output",
    "batch",
    "batch_output",
    "fine-tune",
    "fine-tune-results",
    "vision",
    "user_data",
]


class FileExpiresAfter(RequestModel):
    """A file expires so many seconds after it was uploaded."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3_600, le=2_592_000)


class FileObject(ResponseModel):
    """OpenAI's file object. `status` says that the bytes are stored; ingestion is told of in the vector store. Its
    `purpose` cannot be `evals` as that of an upload can: such a file is `user_data`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: IfAny[int] = None
    filename: str
    purpose: ShownPurpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: IfAny[str] = None


class DeletedFile(ResponseModel):
    """The file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def file_object(file: File) -> FileObject:
    """A file as it is sent."""
    return FileObject(
        id=file.public_id,
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=cast(ShownPurpose, "user_data" if file.purpose == "evals" else file.purpose),
    )
