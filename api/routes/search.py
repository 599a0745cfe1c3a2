"""Search: the best chunks for a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import anyio.to_thread

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import UsageObject
from api.schemas.search import RankingOptions, SearchPage, SearchRequest, search_hit, search_options
from rag import live
from rag.backend import Backend
from rag.context import Candidate
from rag.fusion import merge_by_rank
from rag.models import Usage
from rag.rewrite import rewrite

router = new_router(tags=["search"])


@router.post("/v1/vector_stores/{vector_store_id}/search", dependencies=[requires("query")])
async def search(body: SearchRequest, vector_store_id: str, backend: OpenBackend) -> SearchPage:
    """The best chunks for a question, or for several, searched apart and merged by rank."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    used: list[Usage] = []
    if body.rewrite_query:
        await anyio.to_thread.run_sync(backend.find_store, vector_store_id)  # no model is asked for one that is not
        worded = await asyncio.gather(*(rewrite(backend.models, query) for query in queries))
        queries, used = [query for query, _ in worded], [usage for _, usage in worded if usage is not None]
    page = await anyio.to_thread.run_sync(_search, backend, vector_store_id, body, queries)
    return page.model_copy(update={"wording_usage": UsageObject.of(*used)}) if used else page


def _search(backend: Backend, name: str, body: SearchRequest, queries: list[str]) -> SearchPage:
    # The store is looked up here, too: each further thread that a request takes costs it as much as the look does.
    store = backend.find_store(name)
    ranking = body.ranking_options or RankingOptions()
    options = search_options(body, ranking.score_threshold, ranking.ranker)
    if options.generation is None and len(queries) > 1:
        # One is promoted at any moment: all of a response is of the same.
        options = replace(options, generation=backend.live_generation(store).public_id)
    found = [live.search(backend, [store], query, options).candidates for query in queries]
    hits = found[0] if len(found) == 1 else _merged(found, body.max_num_results or backend.settings.retrieval.top_k)
    return SearchPage(search_query=queries, data=[search_hit(hit) for hit in hits], next_page=None)


def _merged(found: Sequence[Sequence[Candidate]], limit: int) -> list[Candidate]:
    """The candidates of several questions, each as the question saw it to which it is most relevant."""
    best: dict[int, Candidate] = {}
    for candidate in (candidate for candidates in found for candidate in candidates):
        if candidate.chunk_id not in best or candidate.relevance > best[candidate.chunk_id].relevance:
            best[candidate.chunk_id] = candidate
    merged = merge_by_rank([[candidate.chunk_id for candidate in candidates] for candidates in found])
    order = sorted(merged, key=lambda chunk: (-merged[chunk], chunk))
    return [best[chunk] for chunk in order[:limit]]
