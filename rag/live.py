"""Searching for somebody who waits: counted, timed and traced; and mirrored, where the store asks for that."""

from __future__ import annotations

from collections.abc import Sequence

from rag import mirroring
from rag.backend import Backend
from rag.catalog.records import Store
from rag.retrieve import Retrieval, SearchOptions, retrieve


def search(backend: Backend, stores: Sequence[Store], question: str, options: SearchOptions) -> Retrieval:
    """As `retrieve`, and raises what that does."""
    with backend.telemetry.retrieval(stores, question, options.limit) as span:
        found = retrieve(backend, stores, question, options)
        span.found(found.candidates, [generation.public_id for generation in found.generations])
    backend.meters.stages(found.timings)
    mirroring.note(backend, stores, question, options, found)
    return found
