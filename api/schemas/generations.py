"""The shapes of a store's generations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.common import Identifier, RequestModel, ResponseModel
from api.schemas.vector_stores import Chunking
from rag.catalog.records import GenerationEvent, GenerationState
from rag.generations import WAIT_SECONDS, GenerationSummary
from rag.retrieve import Fusion, Mode

Wait = Annotated[float, Field(ge=0, le=30)]


class RetrievalObject(RequestModel):
    """How a generation is searched where a request does not say; what is null is the installation's setting."""

    mode: Mode | None = None
    fusion: Fusion | None = None
    dense_weight: float | None = Field(default=None, ge=0, le=1)
    depth: int | None = Field(default=None, ge=1, le=10_000)
    reranker: Identifier | None = None
    rerank_depth: int | None = Field(default=None, ge=1, le=1_000)


class CreateGeneration(RequestModel):
    """A generation to be built beside the live one, which it is like in all that is not named. `embedder` is an alias
    of the settings."""

    embedder: Identifier | None = None
    chunking_strategy: Chunking | None = None
    vector_index: Identifier | None = None
    keyword_index: Identifier | None = None
    retrieval: RetrievalObject | None = None


class PromoteGeneration(RequestModel):
    """`force` goes past the gate, and is recorded. `wait_seconds` is for how long to wait for what came last."""

    force: bool = False
    wait_seconds: Wait = WAIT_SECONDS


class RollBack(RequestModel):
    """`wait_seconds` is for how long to wait for what came last."""

    wait_seconds: Wait = WAIT_SECONDS


class MirrorGeneration(RequestModel):
    """`share` of the store's questions, from 0 (none) to 1 (all)."""

    share: float = Field(ge=0, le=1)


class SpaceObject(ResponseModel):
    """A vector space. The fingerprint says which: the width of the vectors does not."""

    fingerprint: str
    provider: str
    model: str
    dimension: int


class Part(ResponseModel):
    """So much of so much."""

    done: int
    total: int


class FillingObject(ResponseModel):
    """How much of the store a generation holds. `lag` counts the changes that it does not know; the rate and the time
    that is left go by characters, and are null before the first of them."""

    documents: Part
    characters: Part
    characters_per_second: float | None
    seconds_left: float | None
    lag: int


class GenerationError(ResponseModel):
    """Why a generation failed."""

    code: str
    message: str


class Latency(ResponseModel):
    """Milliseconds of searching."""

    p50: float
    p95: float


class MirrorObject(ResponseModel):
    """What came of asking a generation a `share` of the questions too, beside the one that is live now: of the newest
    `questions` (1,000 at most). `overlap` is the mean share of the hits that both have; it and the times are of the
    questions that both answered, null where there are none. `errors` counts the others by code."""

    share: float
    questions: int
    overlap: float | None = None
    live_ms: Latency | None = None
    mirrored_ms: Latency | None = None
    errors: dict[str, int] = Field(default_factory=dict)


class EventObject(ResponseModel):
    """What was done to a generation. `by` is a key and its user, empty for the operator, null for what happened by
    itself; `detail` says what it stood on."""

    event: str
    created_at: int
    by: str | None
    detail: dict[str, Any]


class GenerationObject(ResponseModel):
    """One embedding space, one way of splitting and one pair of indexes over a store. `chunks` names the way of
    splitting: generations with the same name share their chunks.

    `progress`, `last_error`, `events` and `mirror` are for administrators, who see every document; for others they are
    null.
    """

    id: str
    object: Literal["vector_store.generation"] = "vector_store.generation"
    created_at: int
    vector_store_id: str
    state: GenerationState
    paused: bool
    embedder: str
    build: str
    space: SpaceObject
    chunks: str
    vector_index: str
    keyword_index: str
    retrieval: RetrievalObject
    progress: FillingObject | None = Field(...)
    last_error: GenerationError | None = Field(...)
    events: list[EventObject] | None = Field(...)
    mirror: MirrorObject | None = Field(...)


def generation_object(store_id: str, summary: GenerationSummary, *, whole: bool) -> GenerationObject:
    """A generation as it is sent: `whole` to who sees every document."""
    generation = summary.generation
    return GenerationObject(
        id=generation.public_id,
        created_at=generation.created_at,
        vector_store_id=store_id,
        state=generation.state,
        paused=generation.paused,
        embedder=generation.embedder,
        build=generation.build,
        space=SpaceObject.model_validate(summary.space),
        chunks=summary.chunk_set.fingerprint,
        vector_index=generation.vector_index,
        keyword_index=generation.keyword_index,
        retrieval=RetrievalObject(**generation.settings.get("retrieval", {})),
        progress=_filling(summary) if whole else None,
        last_error=_error(summary) if whole else None,
        events=[_event(event) for event in summary.events] if whole else None,
        mirror=_mirror(summary) if whole else None,
    )


def settings_of(retrieval: RetrievalObject | None) -> dict[str, Any]:
    """A generation's own settings as the catalog keeps them."""
    return {} if retrieval is None else {"retrieval": retrieval.model_dump(exclude_none=True)}


def _filling(summary: GenerationSummary) -> FillingObject | None:
    filled = summary.filled
    if filled is None:
        return None
    return FillingObject(
        documents=Part(done=filled.documents, total=filled.documents_total),
        characters=Part(done=filled.characters, total=filled.characters_total),
        characters_per_second=summary.generation.characters_per_second,
        seconds_left=summary.seconds_left,
        lag=filled.lag,
    )


def _mirror(summary: GenerationSummary) -> MirrorObject | None:
    share, found = summary.generation.mirror_share, summary.mirrored
    if found is None:
        return MirrorObject(share=share, questions=0) if share else None
    return MirrorObject.model_validate({"share": share, **vars(found)})


def _error(summary: GenerationSummary) -> GenerationError | None:
    code, message = summary.generation.error_code, summary.generation.error_message
    return None if code is None else GenerationError(code=code, message=message or "")


def _event(event: GenerationEvent) -> EventObject:
    by = event.caller.strip("/") if event.caller else None
    return EventObject(event=event.event, created_at=event.created_at, by=by, detail=dict(event.body))
