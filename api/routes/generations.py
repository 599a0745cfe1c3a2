"""Generations of a vector store: what answers, and what is built to answer in its place."""

from __future__ import annotations

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.common import ListOf, list_of
from api.schemas.generations import (
    CreateGeneration,
    GenerationObject,
    MirrorGeneration,
    PromoteGeneration,
    RollBack,
    generation_object,
    settings_of,
)
from ingest import intake
from rag import generations
from rag.backend import Backend
from rag.catalog.records import Page, Store
from rag.generations import GenerationSummary

router = new_router(tags=["generations"])
PATH = "/v1/vector_stores/{vector_store_id}/generations"


@router.get(PATH, dependencies=[requires("query", "ingest")])
def list_generations(store: NamedStore, backend: OpenBackend) -> ListOf[GenerationObject]:
    """All generations of a store, oldest first, retired ones too."""
    data = [_object(backend, store, found) for found in generations.list_generations(backend, store)]
    return list_of(Page(data, has_more=False), [found.id for found in data], data)


@router.post(PATH, dependencies=[requires("admin")])
def create_generation(body: CreateGeneration, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """Begin a generation beside the live one. It is built in the background, out of the stored texts."""
    made = intake.create_generation(
        backend,
        store,
        embedder=body.embedder,
        chunking=body.chunking_strategy.model_dump() if body.chunking_strategy else None,
        vector_index=body.vector_index,
        keyword_index=body.keyword_index,
        settings=settings_of(body.retrieval),
    )
    return _object(backend, store, made)


@router.post("/v1/vector_stores/{vector_store_id}/rollback", dependencies=[requires("admin")])
def roll_back(body: RollBack, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """Let the generation answer again that was live last. Nothing that came since is lost."""
    return _object(backend, store, generations.roll_back(backend, store, wait_seconds=body.wait_seconds))


@router.get(f"{PATH}/{{generation_id}}", dependencies=[requires("query", "ingest")])
def get_generation(generation_id: str, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """One generation."""
    return _object(backend, store, generations.get_generation(backend, store, generation_id))


@router.post(f"{PATH}/{{generation_id}}/promote", dependencies=[requires("admin")])
def promote_generation(
    generation_id: str, body: PromoteGeneration, store: NamedStore, backend: OpenBackend
) -> GenerationObject:
    """Let a generation answer from now on. The one that did is kept up to date, so that it can answer again."""
    gate = generations.gate_of(backend)
    promoted = generations.promote(
        backend, store, generation_id, gate=gate, force=body.force, wait_seconds=body.wait_seconds
    )
    return _object(backend, store, promoted)


@router.post(f"{PATH}/{{generation_id}}/mirror", dependencies=[requires("admin")])
def mirror_generation(
    generation_id: str, body: MirrorGeneration, store: NamedStore, backend: OpenBackend
) -> GenerationObject:
    """Ask a generation a share of the store's questions too, behind their answers, and compare what it finds."""
    return _object(backend, store, generations.mirror(backend, store, generation_id, body.share))


@router.post(f"{PATH}/{{generation_id}}/pause", dependencies=[requires("admin")])
def pause_generation(generation_id: str, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """Stop filling a generation for a while. It falls behind the store meanwhile."""
    return _object(backend, store, generations.pause(backend, store, generation_id))


@router.post(f"{PATH}/{{generation_id}}/resume", dependencies=[requires("admin")])
def resume_generation(generation_id: str, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """Go on filling a generation that was paused, or that failed."""
    return _object(backend, store, generations.resume(backend, store, generation_id))


@router.post(f"{PATH}/{{generation_id}}/retire", dependencies=[requires("admin")])
def retire_generation(generation_id: str, store: NamedStore, backend: OpenBackend) -> GenerationObject:
    """Give a generation up for good. What nothing else uses of it is removed; its row stays in the list."""
    return _object(backend, store, generations.retire(backend, store, generation_id))


def _object(backend: Backend, store: Store, summary: GenerationSummary) -> GenerationObject:
    return generation_object(store.public_id, summary, whole=backend.caller.permissions is None)
