"""The shapes of vector stores and of the files in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from api.schemas.common import (
    Attributes,
    Identifier,
    IfAny,
    LongText,
    Metadata,
    Name,
    NoNul,
    OrNull,
    RequestModel,
    ResponseModel,
    Tags,
)
from ingest.intake import NewDocument
from rag.access import Caller
from rag.catalog.records import ACTIVE, Counts, Document, File, FileBatch, State, Store
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
MOST_FILES = 2_000
"""Files of one batch."""
SMALLEST_SIZE = 100
"""The smallest chunk size that OpenAI's shape can say."""


class StaticSizes(RequestModel):
    """Sizes in tokens of the store's embedder; a chunk's includes the heading that is embedded with it."""

    max_chunk_size_tokens: int = Field(ge=SMALLEST_SIZE, le=4_096)
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


def _known_strategy(value: Any, handler: ValidatorFunctionWrapHandler) -> AutoChunking | StaticChunking:
    """An unknown type is the strategy's own fault, whatever it holds besides."""
    try:
        strategy: AutoChunking | StaticChunking = handler(value)
    except ValidationError as error:
        if error.errors()[0]["type"] in ("union_tag_invalid", "union_tag_not_found"):
            raise PydanticCustomError("chunking_strategy", "its 'type' is 'auto' or 'static'") from error
        raise
    return strategy


Chunking = Annotated[AutoChunking | StaticChunking, Field(discriminator="type"), WrapValidator(_known_strategy)]


class ExpiresAfter(RequestModel):
    """A store expires when it was not used for so many days."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class CreateVectorStore(RequestModel):
    """Beyond OpenAI's fields: `embedder`, an alias of the settings; `only_if_absent`, to get the store of this name
    (or id) if there is one and make it otherwise. A store that is there in another space than `embedder` is refused.
    """

    name: OrNull[Annotated[str, StringConstraints(max_length=256), NoNul]] = None
    description: OrNull[LongText] = None
    file_ids: OrNull[Annotated[list[Identifier], Field(max_length=500)]] = None
    chunking_strategy: OrNull[Chunking] = None
    expires_after: OrNull[ExpiresAfter] = None
    metadata: Metadata | None = None
    embedder: Identifier | None = None
    only_if_absent: bool = False

    @model_validator(mode="after")
    def _absent_by_name(self) -> CreateVectorStore:
        if self.only_if_absent and not self.name:
            raise PydanticCustomError("name", "it needs a name", {"param": "only_if_absent"})
        return self


class UpdateVectorStore(RequestModel):
    """What is not named, or null, stays; but `expires_after` null lets the store stay for ever."""

    name: Name | None = None
    description: LongText | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None

    def changes(self) -> dict[str, Any]:
        """What is to be changed, by the names of the catalog."""
        changes = self.model_dump(include={"name", "description", "metadata"}, exclude_none=True)
        if "expires_after" in self.model_fields_set:
            changes["expires_after_days"] = self.expires_after.days if self.expires_after else None
        return changes


class CreateStoreFile(RequestModel):
    """Beyond OpenAI's fields: `source` (a later file of the same source replaces this one), `owned` (the upload goes
    when it is taken out of the store) and `permissions` (tags: who holds none of them does not see the file). Without a
    `chunking_strategy` a file is split as its store says."""

    file_id: Identifier
    attributes: Attributes | None = None
    chunking_strategy: OrNull[Chunking] = None
    source: Annotated[str, StringConstraints(min_length=1, max_length=4_096), NoNul] | None = None
    owned: bool = False
    permissions: Tags | None = None

    def to_new(self, file: File) -> NewDocument:
        """The file that it names as it is put into a store."""
        chunking = _strategy(self.chunking_strategy)
        return NewDocument(file, self.source, self.attributes, self.owned, self.permissions, chunking)


class CreateFileBatch(RequestModel):
    """Either `file_ids`, which `attributes` and `chunking_strategy` are for, or `files` with their own."""

    file_ids: OrNull[Annotated[list[Identifier], Field(min_length=1, max_length=MOST_FILES)]] = None
    files: OrNull[Annotated[list[CreateStoreFile], Field(min_length=1, max_length=MOST_FILES)]] = None
    attributes: Attributes | None = None
    chunking_strategy: OrNull[Chunking] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> CreateFileBatch:
        if (self.file_ids is None) == (self.files is None):
            raise PydanticCustomError("files", "send either 'file_ids' or 'files'", {"param": "file_ids"})
        named = [file.file_id for file in self.files or ()]
        if len(set(named)) < len(named):
            raise PydanticCustomError("files", "a file is named twice", {"param": "files"})
        return self

    def each(self) -> list[CreateStoreFile]:
        """The files, each with what is said of it."""
        shared = {"attributes": self.attributes, "chunking_strategy": self.chunking_strategy}
        given = {name: value for name, value in shared.items() if value is not None}
        ids = dict.fromkeys(self.file_ids or ())
        return self.files or [CreateStoreFile.model_validate({"file_id": file_id, **given}) for file_id in ids]


class UpdateStoreFile(RequestModel):
    """The attributes that take the place of those that are there, or the permission tags; null is none of them."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    attributes: Attributes | None = None
    permissions: Tags | None = None

    @model_validator(mode="after")
    def _something(self) -> UpdateStoreFile:
        if not self.model_fields_set:
            raise ValueError("attributes, permissions or both are expected")
        return self


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
    description: str | None = None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: IfAny[ExpiresAfter] = None
    expires_at: int | None = None
    last_active_at: int | None = Field(...)
    metadata: dict[str, str] | None = Field(...)
    embedder: str
    chunking_strategy: dict[str, Any]


class LastError(ResponseModel):
    """Why a file failed: OpenAI's code, and ours in `detail`."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str
    detail: str


class Progress(ResponseModel):
    """How far ingestion is. `embedded` counts vectors that had to be computed. It is not there for who sees a part of
    the tenant only: none to compute would tell that the same text stands in something that they may not see."""

    chunks_done: int
    chunks_total: int
    embedded: IfAny[int] = None
    embedded_tokens: IfAny[int] = None


class StoreFileObject(ResponseModel):
    """OpenAI's vector store file object, and where it stands in detail."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: Status
    last_error: LastError | None = Field(...)
    usage_bytes: int
    attributes: dict[str, Scalar | int] | None = None
    permissions: list[str]
    chunking_strategy: IfAny[StaticChunking | OtherChunking] = None
    filename: str
    source: str
    sha256: str
    state: State
    progress: Progress
    attempts: int


class FileBatchObject(ResponseModel):
    """OpenAI's file batch object. It is `cancelled` when it was or every file was, and `failed` when every file did."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


class FileText(ResponseModel):
    """A stretch of a file's text."""

    type: IfAny[str] = None
    text: IfAny[str] = None


class FileContentPage(ResponseModel):
    """The parsed text of a file."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[FileText]
    has_more: bool = False
    next_page: str | None = Field(...)


class DeletedStore(ResponseModel):
    """The store that was deleted."""

    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: bool = True


class DeletedStoreFile(ResponseModel):
    """The file that was taken out of a store."""

    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: bool = True


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
        status=_store_status(store, counts),
        expires_after=_expires_after(store),
        expires_at=store.expires_at,
        last_active_at=store.last_active_at,
        metadata=dict(store.metadata),
        embedder=summary.generation.embedder,
        chunking_strategy=dict(store.chunking),
    )


def store_file_object(caller: Caller, store: Store, document: Document) -> StoreFileObject:
    """A file of a store as it is sent to a caller."""
    progress = Progress.model_validate(document)
    if not caller.sees_all:
        progress = Progress(chunks_done=progress.chunks_done, chunks_total=progress.chunks_total)
    return StoreFileObject(
        id=document.file_public_id,
        created_at=document.created_at,
        vector_store_id=store.public_id,
        status=next(status for status, states in STATES.items() if document.state in states),
        last_error=_last_error(document),
        usage_bytes=document.bytes if document.state == "completed" else 0,
        attributes=dict(document.attributes),
        permissions=list(document.permissions),
        chunking_strategy=_shown_chunking(document.chunking or store.chunking),
        filename=document.filename,
        source=document.source,
        sha256=document.blob,
        state=document.state,
        progress=progress,
        attempts=document.attempt,
    )


def file_batch_object(store: Store, batch: FileBatch, counts: Counts) -> FileBatchObject:
    """A file batch as it is sent."""
    return FileBatchObject(
        id=batch.public_id,
        created_at=batch.created_at,
        vector_store_id=store.public_id,
        status=_batch_status(batch, counts),
        file_counts=FileCounts.model_validate(counts),
    )


def _expires_after(store: Store) -> ExpiresAfter | None:
    days = store.expires_after_days
    return None if days is None else ExpiresAfter(anchor="last_active_at", days=days)


def _store_status(store: Store, counts: Counts) -> Literal["expired", "in_progress", "completed"]:
    if store.expired:
        return "expired"
    return "in_progress" if counts.in_progress else "completed"


def _batch_status(batch: FileBatch, counts: Counts) -> Status:
    if counts.in_progress:
        return "in_progress"
    if batch.cancelled or 0 < counts.total == counts.cancelled:
        return "cancelled"
    return "failed" if 0 < counts.total == counts.failed else "completed"


def _strategy(chunking: Chunking | None) -> dict[str, Any] | None:
    return None if chunking is None else chunking.model_dump()


def _shown_chunking(chunking: Mapping[str, Any]) -> StaticChunking | OtherChunking:
    sized = chunking["type"] == "static" and chunking["static"]["max_chunk_size_tokens"] >= SMALLEST_SIZE
    return StaticChunking.model_validate(chunking) if sized else OtherChunking()


def _last_error(document: Document) -> LastError | None:
    if document.error_code is None:
        return None
    code = OPENAI_ERRORS.get(document.error_code, "server_error")
    return LastError(code=code, message=document.error_message or "", detail=document.error_code)
