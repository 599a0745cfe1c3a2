"""Uploaded originals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

import anyio.to_thread
from fastapi import Query, Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import StreamingResponse

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import Cursor, ListOf, NotNull, list_of
from api.schemas.files import PURPOSES, DeletedFile, FileExpiresAfter, FileObject, file_object
from api.strict_json import parse_json
from indexes.errors import ChangeRequest, TryLater
from ingest import intake
from rag import listing
from rag.backend import Backend
from rag.catalog.records import PageRequest

PIECE = 1 << 20
LONGEST_NAME = 1_000
EXPIRY = "expires_after"
FIELDS = ("file", "purpose", EXPIRY, f"{EXPIRY}[anchor]", f"{EXPIRY}[seconds]")

router = new_router(tags=["files"])

_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after": FileExpiresAfter.model_json_schema(),
                    },
                }
            }
        },
    }
}


_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/v1/files", openapi_extra=_UPLOAD_BODY, dependencies=[requires("ingest")])
async def upload_file(request: Request, backend: OpenBackend) -> FileObject:
    """Store an original. It is searchable once it has been put into a vector store."""
    async with _form(request) as form:
        file, purpose, seconds = _file_of(form), _purpose_of(form), _seconds_of(form)
        assert file.filename is not None
        return await anyio.to_thread.run_sync(_store, backend, file.filename, purpose, file.file, seconds)


@router.get("/v1/files", dependencies=[requires("query", "ingest")])
def list_files(
    backend: OpenBackend,
    purpose: Annotated[NotNull[str], Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Cursor = None,
) -> ListOf[FileObject]:
    """Uploaded files, newest first."""
    page = listing.list_files(backend, PageRequest(limit, order, after), purpose)
    return list_of(page, [file.public_id for file in page.rows], [file_object(file) for file in page.rows])


@router.get("/v1/files/{file_id}", dependencies=[requires("query", "ingest")])
def get_file(file_id: str, backend: OpenBackend) -> FileObject:
    """One file."""
    return file_object(listing.get_file(backend, file_id))


@router.delete("/v1/files/{file_id}", dependencies=[requires("ingest")])
def delete_file(file_id: str, backend: OpenBackend) -> DeletedFile:
    """Forget a file and take it out of every vector store."""
    file = listing.get_file(backend, file_id)
    intake.delete_file(backend, file)
    return DeletedFile(id=file.public_id)


@router.get(
    "/v1/files/{file_id}/content",
    response_class=StreamingResponse,
    responses=_BYTES,
    dependencies=[requires("query")],
)
def get_file_content(file_id: str, backend: OpenBackend) -> StreamingResponse:
    """The bytes as they were uploaded, always as a download: nothing of it may run in a browser."""
    file = listing.get_file(backend, file_id)
    headers = {
        "Content-Length": str(file.bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename[:200], safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    pieces = listing.original(backend, file)
    return StreamingResponse(pieces, headers=headers, media_type="application/octet-stream")


class _form:  # noqa: N801 - reads as a function where it is used
    """The form of a request, its temporary files closed afterwards."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._opened: FormData | None = None

    async def __aenter__(self) -> FormData:
        if not self._request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ChangeRequest(
                "A file is uploaded as `multipart/form-data` with the fields `file` and `purpose`.",
                code="invalid_content_type",
            )
        try:
            self._opened = await self._request.form(max_files=1, max_fields=8, max_part_size=64 << 10)
        except OSError as error:
            raise TryLater(
                f"The folder for temporary files did not take the upload: {error.strerror}. Free some space there.",
                code="storage_full",
            ) from error
        return self._opened

    async def __aexit__(self, *_exc_info: object) -> None:
        if self._opened is not None:
            await self._opened.close()


def _file_of(form: FormData) -> UploadFile:
    for field in form:
        if field not in FIELDS:
            raise ChangeRequest(f"Unknown field {field!r}. Leave it out.", code="unknown_parameter", param=field)
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise ChangeRequest(
            "The field 'file' must hold a file with a name.", code="missing_required_parameter", param="file"
        )
    if len(file.filename) > LONGEST_NAME or "\0" in file.filename:
        raise ChangeRequest(
            f"The name of the file has NUL characters or is longer than {LONGEST_NAME} characters. Rename it.",
            code="invalid_filename",
            param="file",
        )
    return file


def _purpose_of(form: FormData) -> str:
    purpose = form.get("purpose")
    if purpose is None:
        raise ChangeRequest("The field 'purpose' is required.", code="missing_required_parameter", param="purpose")
    if purpose not in PURPOSES:
        raise ChangeRequest(f"'purpose' is one of {', '.join(PURPOSES)}.", code="invalid_value", param="purpose")
    assert isinstance(purpose, str)
    return purpose


def _seconds_of(form: FormData) -> int | None:
    """After how long the file expires: two fields with brackets, as the SDKs send them, or one with JSON, as the
    description of a form has it."""
    given = form.get(EXPIRY)
    parts = {name: form[f"{EXPIRY}[{name}]"] for name in ("anchor", "seconds") if f"{EXPIRY}[{name}]" in form}
    if given is None and not parts:
        return None
    try:
        if given is not None:
            return FileExpiresAfter.model_validate(parse_json(str(given).encode())).seconds
        return FileExpiresAfter.model_validate(parts, strict=False).seconds
    except (ValidationError, ChangeRequest) as error:
        raise ChangeRequest(
            "'expires_after' has the anchor 'created_at' and from 3600 to 2592000 seconds.",
            code="invalid_value",
            param=EXPIRY,
        ) from error


def _store(backend: Backend, filename: str, purpose: str, content: BinaryIO, expires_after: int | None) -> FileObject:
    return file_object(intake.upload(backend, filename, purpose, _pieces(content), expires_after))


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while piece := content.read(PIECE):
            yield piece
