"""The shapes of vector stores and of the files in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import Attributes, Identifier, LongText, Metadata, Name, NoNul, RequestModel, ResponseModel
from rag.catalog.records import ACTIVE, Document, State, Store
from rag.context import Scalar
from rag.listing import StoreSummary

Status = Literal["in_progress", "completed", "cancelled", "failed"]
STATES: Mapping[Status, tuple[State, ...]] = {
    "in_progress": ACTIVE,
    "completed": ("completed",),
    "cancelled": ("cancelled",),
    "failed": ("failed",),
}
"""OpenAI's status to the states of ours that it stands for."""
OPENAI_ERRORS: Mapping[str, Literal["server_error", "unsupported_file", "invalid_file"]] = {
    "unsupported_file": "unsupported_file",
    "invalid_file": "invalid_file",
    "empty": "invalid_file",
    "no_text": "invalid_file",
    "encrypted": "invalid_file",
    "too_large": "invalid_file",
    "parse_timeout": "invalid_file",
}
"""Our codes to OpenAI's; every other one is a `server_error`. Our own stands in `last_error.detail`."""


class StaticSizes(RequestModel):
    """Sizes in tokens of the store's embedder."""

    max_chunk_size_tokens: int = Field(ge=100, le=4_096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def _at_most_half(self) -> StaticSizes:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens may be half of max_chunk_size_tokens at most")
        return self


class StaticChunking(RequestModel):
    """Chunks of a given size. A size over what the embedder reads is capped to that."""

    type: Literal["static"]
    static: StaticSizes


class AutoChunking(RequestModel):
    """Chunks sized for the embedder."""

    type: Literal["auto"]


class OtherChunking(ResponseModel):
    """Chunks sized for the embedder, as OpenAI's shape of an answer can say it."""

    type: Literal["other"] = "other"


Chunking = Annotated[AutoChunking | StaticChunking, Field(discriminator="type")]


class CreateVectorStore(RequestModel):
    """Beyond OpenAI's fields: `embedder`, an alias of the settings; `only_if_absent`, to get the store of this name
    (or id) if there is one and make it otherwise. A store that is there in another space than `embedder` is refused.
    """

    name: Annotated[str, StringConstraints(max_length=256), NoNul] | None = None
    description: LongText | None = None
    file_ids: Annotated[list[Identifier], Field(max_length=500)] | None = None
    chunking_strategy: Chunking | None = None
    expires_after: Any = None
    metadata: Metadata | None = None
    embedder: Identifier | None = None
    only_if_absent: bool = False

    @model_validator(mode="after")
    def _absent_by_name(self) -> CreateVectorStore:
        if self.only_if_absent and not self.name:
            raise PydanticCustomError("name", "it needs a name", {"param": "only_if_absent"})
        return self


class UpdateVectorStore(RequestModel):
    """What is not named, or null, stays."""

    name: Name | None = None
    description: LongText | None = None
    expires_after: Any = None
    metadata: Metadata | None = None


class CreateStoreFile(RequestModel):
    """Beyond OpenAI's fields: `source` (a later file of the same source replaces this one) and `owned` (the upload
    goes when it is taken out of the store)."""

    file_id: Identifier
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None
    source: Annotated[str, StringConstraints(min_length=1, max_length=4_096), NoNul] | None = None
    owned: bool = False


class UpdateStoreFile(RequestModel):
    """The attributes that take the place of those that are there."""

    attributes: Attributes | None


class PutFolder(RequestModel):
    """The folder at `path` on `host` whose files are the documents below `prefix`. Only with `replace` it takes the
    place of another one that is remembered."""

    prefix: Annotated[str, StringConstraints(min_length=1, max_length=4_096), NoNul]
    host: Annotated[str, StringConstraints(max_length=256), NoNul]
    path: Annotated[str, StringConstraints(min_length=1, max_length=4_096), NoNul]
    replace: bool = False


class FolderObject(ResponseModel):
    """Where the documents below a prefix came from."""

    object: Literal["vector_store.folder"] = "vector_store.folder"
    prefix: str
    host: str
    path: str


class FolderList(ResponseModel):
    """Every folder that was synced into a store."""

    object: Literal["list"] = "list"
    data: list[FolderObject]


class FileCounts(ResponseModel):
    """Files of a store by status."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreObject(ResponseModel):
    """OpenAI's vector store object, and `description`, `embedder`, `chunking_strategy`."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: None = None
    expires_at: None = None
    last_active_at: int
    metadata: dict[str, str]
    embedder: str
    chunking_strategy: dict[str, Any]


class LastError(ResponseModel):
    """Why a file failed: OpenAI's code, and ours in `detail`."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str
    detail: str


class Progress(ResponseModel):
    """How far ingestion is. `embedded` counts vectors that had to be computed."""

    chunks_done: int
    chunks_total: int
    embedded: int
    embedded_tokens: int


class StoreFileObject(ResponseModel):
    """OpenAI's vector store file object, and where it stands in detail."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: Status
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Scalar | int]
    chunking_strategy: StaticChunking | OtherChunking
    filename: str
    source: str
    sha256: str
    state: State
    progress: Progress
    attempts: int


class TextPart(ResponseModel):
    """A stretch of text."""

    type: Literal["text"] = "text"
    text: str


class FileContentPage(ResponseModel):
    """The parsed text of a file."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextPart]
    has_more: bool = False
    next_page: None = None


def store_object(summary: StoreSummary) -> VectorStoreObject:
    """A store as it is sent."""
    store, counts = summary.store, summary.counts
    return VectorStoreObject(
        id=store.public_id,
        created_at=store.created_at,
        name=store.name,
        description=store.description,
        usage_bytes=summary.usage_bytes,
        file_counts=FileCounts.model_validate(counts),
        status="in_progress" if counts.in_progress else "completed",
        last_active_at=store.last_active_at,
        metadata=dict(store.metadata),
        embedder=summary.generation.embedder,
        chunking_strategy=dict(store.chunking),
    )


def store_file_object(store: Store, document: Document) -> StoreFileObject:
    """A file of a store as it is sent."""
    static = store.chunking.get("type") == "static"
    return StoreFileObject(
        id=document.file_public_id,
        created_at=document.created_at,
        vector_store_id=store.public_id,
        status=next(status for status, states in STATES.items() if document.state in states),
        last_error=_last_error(document),
        usage_bytes=document.bytes if document.state == "completed" else 0,
        attributes=dict(document.attributes),
        chunking_strategy=StaticChunking.model_validate(store.chunking) if static else OtherChunking(),
        filename=document.filename,
        source=document.source,
        sha256=document.blob,
        state=document.state,
        progress=Progress.model_validate(document),
        attempts=document.attempt,
    )


def _last_error(document: Document) -> LastError | None:
    if document.error_code is None:
        return None
    code = OPENAI_ERRORS.get(document.error_code, "server_error")
    return LastError(code=code, message=document.error_message or "", detail=document.error_code)
