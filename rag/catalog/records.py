"""What the catalog tells about its rows: frozen nouns, one per table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from rag.context import Scalar

State = Literal["queued", "parsing", "splitting", "embedding", "completed", "failed", "cancelled"]
ACTIVE: tuple[State, ...] = ("queued", "parsing", "splitting", "embedding")
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Store:
    """A vector store. Times are seconds since 1970."""

    id: int
    public_id: str
    tenant: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    chunking: Mapping[str, Any]
    seq: int
    pruned_through: int
    created_at: int
    last_active_at: int
    expires_after_days: int | None

    @property
    def expires_at(self) -> int | None:
        """When it expires unless it is used before."""
        days = self.expires_after_days
        return None if days is None else self.last_active_at + days * DAY

    @property
    def expired(self) -> bool:
        """Whether it was not used for longer than it may be."""
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True)
class ChunkSet:
    """One way of splitting: see `schema.chunk_sets`."""

    id: int
    store_id: int
    fingerprint: str
    settings: Mapping[str, Any]
    tokenizer: str | None
    token_limit: int | None


GenerationState = Literal["building", "ready", "live", "standby", "retired", "failed"]
FOLLOWING: tuple[GenerationState, ...] = ("building", "ready", "live", "standby")
"""States in which a generation is to hold what its store does."""
FILLED: tuple[GenerationState, ...] = ("building", "ready", "standby")
"""Those in which it is filled in the background: publishing fills the live one."""


@dataclass(frozen=True)
class Generation:
    """One embedding space, one chunk set and one pair of indexes over a store: see `schema.generations`."""

    id: int
    public_id: str
    store_id: int
    tenant: str
    space_id: int
    chunk_set_id: int
    embedder: str
    build: str
    vector_index: str
    keyword_index: str
    settings: Mapping[str, Any]
    state: GenerationState
    paused: bool
    error_code: str | None
    error_message: str | None
    filled_through: int
    filled_within: int
    characters_per_second: float | None
    worker_id: int | None
    created_at: int
    changed_at: int
    emptied: bool
    mirror_share: float


@dataclass(frozen=True)
class Place:
    """How far a generation is to be followed in its store's change log: up to which number it has what was published,
    and how long the log is."""

    through: int
    seq: int


@dataclass(frozen=True)
class Stretch:
    """What a generation lacks next: versions in the order in which they were published, and where it will stand in the
    change log with them. `ends` when it will then lack nothing of what was there."""

    version_ids: Sequence[int]
    characters: int
    through: int
    within: int
    ends: bool


@dataclass(frozen=True)
class Filled:
    """How much of its store's visible documents a generation holds; `lag` counts the changes that it does not know."""

    documents: int
    documents_total: int
    characters: int
    characters_total: int
    lag: int


@dataclass(frozen=True)
class GenerationEvent:
    """What was done to a generation: see `schema.generation_events`."""

    id: int
    generation_id: int
    event: str
    caller: str
    body: Mapping[str, Any]
    created_at: int


@dataclass(frozen=True)
class File:
    """An uploaded original. `blob` is the SHA-256 of its bytes."""

    id: int
    public_id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    blob: str
    owned: bool
    uploader: str | None
    created_at: int
    expires_at: int | None


@dataclass(frozen=True)
class Document:
    """A file in a store, with where its ingestion stands."""

    id: int
    store_id: int
    tenant: str
    file_id: int
    file_public_id: str
    filename: str
    bytes: int
    blob: str
    source: str
    attributes: Mapping[str, Scalar]
    permissions: Sequence[str]
    chunking: Mapping[str, Any] | None
    state: State
    attempt: int
    alone: bool
    batch: str | None
    chunks_total: int
    chunks_done: int
    embedded: int
    embedded_tokens: int
    error_code: str | None
    error_message: str | None
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class Folder:
    """A folder that was synced into a store: the prefix of its documents' sources, and where it lies."""

    prefix: str
    host: str
    path: str


@dataclass(frozen=True)
class FileBatch:
    """Files that were put into a store together."""

    id: int
    public_id: str
    store_id: int
    cancelled: bool
    created_at: int


@dataclass(frozen=True)
class Counts:
    """Documents by where they stand."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @classmethod
    def of_states(cls, states: Mapping[str, int]) -> Counts:
        """Of documents counted by their own states."""
        ended = {name: states.get(name, 0) for name in ("completed", "failed", "cancelled")}
        return cls(in_progress=sum(states.values()) - sum(ended.values()), **ended)

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows of a longer list."""

    rows: Sequence[Row]
    has_more: bool


@dataclass(frozen=True)
class PageRequest:
    """Which rows: newest first or oldest first, after or before a row named by its public id."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None
