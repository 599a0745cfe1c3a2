"""From a question to candidates: both legs, fusion, hydration, relevance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest
from indexes.filters import Filter
from indexes.vector import Ids
from indexes.words import content_words, without_common_words
from rag.backend import Backend
from rag.catalog import chunks, seen
from rag.catalog.chunks import StoredChunk
from rag.catalog.records import Generation, Store
from rag.catalog.stores import require_active
from rag.clock import Clock
from rag.context import Candidate
from rag.embedders import Embedder
from rag.fusion import Scored, best_first, fuse_rrf, fuse_scaled, merge_by_rank
from rag.relevance import coverage, relevance
from rag.rerankers import NONE, Reranker
from rag.searchable import Searchable, Tags, Vector

Mode = Literal["hybrid", "dense", "keyword"]
Fusion = Literal["scaled", "rrf"]
Outcome = Literal["whole", "changed", "hidden"]
"""Of a search: all there is to find; something proposed was replaced or deleted meanwhile; or too little of what was
proposed is visible yet."""
QUERY_LIMIT = 20_000
"""Characters of a question that retrieval looks at, at most."""
TRIES = 3
"""Searches for one question, when documents change under it."""
DEEPER, DEEPEST = 4, 64
"""By how much a search goes deeper, and how many times the usual depth at most, when too much of what an engine
proposes is not visible yet."""
MOST_WORDS = 32
"""Words of a question, the rarest ones, that relevance looks for in each hit."""


@dataclass(frozen=True)
class SearchOptions:
    """How to retrieve; None takes the generation's own setting, else the installation's."""

    limit: int | None = None
    mode: Mode | None = None
    fusion: Fusion | None = None
    dense_weight: float | None = None
    depth: int | None = None
    condition: Filter | None = None
    min_relevance: float | None = None
    """Leave out hits below this relevance."""
    reranker: str | None = None
    """An alias of the settings, or NONE."""
    rerank_depth: int | None = None
    generation: str | None = None
    """The public id of a generation of one of the stores, to be asked instead of its live one."""


@dataclass(frozen=True)
class Retrieval:
    """The candidates of one question, best first, and where the time went (seconds)."""

    candidates: tuple[Candidate, ...]
    generations: tuple[Generation, ...]
    chunk_sets: Mapping[int, int]
    """The chunk set of each candidate's document version."""
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Question:
    text: str
    sought: str
    """What the keyword leg looks for."""
    words: list[str]


@dataclass(frozen=True)
class _Opened:
    """One generation, ready to be searched; `vector` gives the question's in its space."""

    store: Store
    generation: Generation
    view: Searchable
    manner: _Manner
    vector: Vector | None


@dataclass(frozen=True)
class _Searched(_Opened):
    """And its share of the candidates, before hydration."""

    scored: Scored


@dataclass(frozen=True)
class _Manner:
    """How one generation is searched."""

    mode: Mode
    fusion: Fusion
    dense_weight: float
    depth: int
    reranker: str | None
    rerank_depth: int
    limit: int

    @property
    def proposed(self) -> int:
        """Candidates before they are reranked."""
        return self.limit if self.reranker is None else max(self.limit, self.rerank_depth)


def retrieve(backend: Backend, stores: Sequence[Store], question: str, options: SearchOptions) -> Retrieval:
    """The best candidates of these stores for a question.

    A document that is replaced or deleted while this runs is looked for again, so that one version of it is found.
    Stores in the same vector space are ranked together; those of different spaces apart, merged by rank.
    Where there is a reranker, it puts the first of them into its order; their relevance stays what it is.
    Raises ChangeRequest for an empty question, a filter that fits no document, or a store that has expired, and what
    `Backend.generations_for` and `RerankerRegistry.open` do.
    """
    if not question.strip():
        raise ChangeRequest("The question is empty. Ask something.", code="empty_query", param="query")
    for store in stores:
        require_active(store)
    backend.activity.used(stores)
    clock = Clock()
    changes, factor = 0, 1
    while True:
        try:
            found, outcome, manner = _retrieve(backend, stores, question, options, clock, factor)
        except ChangeRequest as error:
            # One that was live was replaced and retired under the question.
            if error.code != "generation_not_searchable" or options.generation or changes == TRIES - 1:
                raise
            changes += 1
            continue
        if outcome == "changed" and changes < TRIES - 1:
            changes += 1
        elif outcome == "hidden" and factor < DEEPEST:
            factor *= DEEPER
        else:
            break
    if manner.reranker is None:
        return found
    reranker = backend.rerankers.open(manner.reranker)
    candidates = _reranked(reranker, question, found.candidates, manner.rerank_depth)[: manner.limit]
    clock.mark("rerank")
    return replace(found, candidates=candidates, timings=clock.spent)


def _retrieve(
    backend: Backend, stores: Sequence[Store], question: str, options: SearchOptions, clock: Clock, factor: int
) -> tuple[Retrieval, Outcome, _Manner]:
    """The candidates out of `factor` times the usual depth (before reranking), whether they are all that there is to
    find, and how they were looked for."""
    head = question[:QUERY_LIMIT]
    asked = _Question(question, without_common_words(head), content_words(head))
    opened: list[_Opened] = []
    for store, generation, place in backend.generations_for(stores, options.generation):
        manner = _manner(backend, generation, options, factor)
        view = backend.searchable(generation, place)
        vector = _vector(backend, generation, head, clock) if manner.mode != "keyword" and len(view) else None
        opened.append(_Opened(store, generation, view, manner, vector))
    clock.mark("follow")
    # Only now: an index or a model that was not open may have taken seconds, in which others are searched.
    with backend.turn([one.generation for one in opened]):
        clock.mark("wait")
        return _search(backend, asked, opened, options, clock)


def _search(
    backend: Backend, asked: _Question, opened: Sequence[_Opened], options: SearchOptions, clock: Clock
) -> tuple[Retrieval, Outcome, _Manner]:
    """As `_retrieve`, once all is open."""
    groups: dict[int, list[_Searched]] = {}
    for one in opened:
        words = asked.sought if one.manner.mode != "dense" else None
        scored = one.view.search(one.vector, words, options.condition, one.manner.depth, backend.caller.tags)
        groups.setdefault(one.generation.space_id, []).append(_Searched(**vars(one), scored=scored))
        clock.mark("search")
    ranked = [_rank(group) for group in groups.values()]
    order = ranked[0] if len(ranked) == 1 else _merged(ranked)
    clock.mark("fuse")
    searched = [s for group in groups.values() for s in group]
    manner = searched[0].manner
    found, outcome = _hydrate(backend, asked, searched, order, manner.proposed, options)
    if outcome == "hidden" and not any(_is_cut(s.scored, s.manner.depth) for s in searched):
        outcome = "whole"
    clock.mark("hydrate")
    sets = {candidate.version_id: chunk_set for candidate, chunk_set in found}
    generations = tuple(s.generation for s in searched)
    return Retrieval(tuple(candidate for candidate, _ in found), generations, sets, clock.spent), outcome, manner


def _reranked(reranker: Reranker, question: str, candidates: Sequence[Candidate], depth: int) -> tuple[Candidate, ...]:
    """The first `depth` of some candidates in the order that the reranker gives them, then the others. It reads each as
    it is embedded: with its title and headings in front."""
    read = candidates[:depth]
    passages = [f"{' › '.join(filter(None, (c.title, *c.heading_path)))}\n{c.text}" for c in read]
    scores = reranker.score(question[:QUERY_LIMIT], passages)
    again = [replace(c, reranked=float(score)) for c, score in zip(read, scores, strict=True)]
    return (*sorted(again, key=lambda c: c.standing), *candidates[depth:])


def _manner(backend: Backend, generation: Generation, options: SearchOptions, factor: int) -> _Manner:
    """What was asked for, else what the generation is set to, else what the installation is."""
    names = ("mode", "fusion", "dense_weight", "depth", "reranker", "rerank_depth")
    asked = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    installed = {name: getattr(backend.settings.retrieval, name) for name in names}
    chosen = {**installed, **generation.settings.get("retrieval", {}), **asked}
    if chosen["reranker"] == NONE:
        chosen["reranker"] = None
    manner = _Manner(limit=options.limit or backend.settings.retrieval.top_k, **chosen)
    weight = {"dense": 1.0, "keyword": 0.0}.get(manner.mode, manner.dense_weight)
    return replace(manner, dense_weight=weight, depth=factor * max(manner.depth, manner.proposed))


def _is_cut(scored: Scored, depth: int) -> bool:
    """Whether a leg proposed as many as it might, so that it may know more."""
    return bool(scored.in_dense.sum() >= depth or scored.in_keyword.sum() >= depth)


def embed_question(embedder: Embedder, question: str) -> NDArray[np.float32]:
    """A question as a unit vector, shape (dimension,).

    A question longer than the embedder reads is cut into pieces that fit, whose vectors are averaged by length: nothing
    of it is dropped.
    """
    question = question[:QUERY_LIMIT]
    if question.isascii() and len(question) < embedder.limit:  # no token is shorter than a letter
        return np.asarray(embedder.embed_queries([question])[0])
    spans = embedder.tokenizer.offsets(question)
    if len(spans) <= embedder.limit:
        return np.asarray(embedder.embed_queries([question])[0])
    pieces = _pieces(question, spans, embedder)
    vectors = embedder.embed_queries(pieces)
    mean = (vectors * np.array([[len(piece)] for piece in pieces], dtype=np.float32)).sum(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def _vector(backend: Backend, generation: Generation, question: str, clock: Clock) -> Vector:
    """What gives the question's vector in a generation's space. Raises as `Backend.embedder` does, at once."""
    embedder = backend.embedder(generation)

    def embed() -> NDArray[np.float32]:
        with backend.telemetry.embeddings(embedder):
            return embed_question(embedder, question)

    def vector() -> NDArray[np.float32]:
        clock.mark("search")
        found = backend.question_vectors.get(embedder.space.fingerprint, question, embed)
        clock.mark("embed")
        return found

    return vector


def _pieces(question: str, spans: Sequence[tuple[int, int]], embedder: Embedder) -> list[str]:
    size = embedder.limit
    while True:
        starts = [spans[i][0] for i in range(0, len(spans), size)]
        pieces = [question[a:b] for a, b in zip(starts, [*starts[1:], len(question)], strict=True)]
        if size == 1 or all(embedder.tokenizer.count(piece) <= embedder.limit for piece in pieces):
            return [piece for piece in pieces if piece.strip()]
        size = max(1, size * 3 // 4)


def _rank(group: Sequence[_Searched]) -> list[tuple[int, float]]:
    """(chunk, fused score) of one space, best first; of several generations, the first one says how to fuse."""
    scored = group[0].scored
    if len(group) > 1:
        names = Scored.__dataclass_fields__
        scored = Scored(*(np.concatenate([getattr(s.scored, name) for s in group]) for name in names))
    fuse = fuse_scaled if group[0].manner.fusion == "scaled" else fuse_rrf
    fused = fuse(scored, group[0].manner.dense_weight)
    order = best_first(scored.ids, fused)
    return list(zip(scored.ids[order].tolist(), fused[order].tolist(), strict=True))


def _merged(rankings: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    merged = merge_by_rank([[chunk for chunk, _ in ranking] for ranking in rankings])
    return sorted(merged.items(), key=lambda item: (-item[1], item[0]))


def _hydrate(
    backend: Backend,
    question: _Question,
    searched: Sequence[_Searched],
    order: Sequence[tuple[int, float]],
    limit: int,
    options: SearchOptions,
) -> tuple[list[tuple[Candidate, int]], Outcome]:
    """The first `limit` chunks of the order that are visible, read from the catalog, with their chunk sets."""
    owner = {chunk: s for s in searched for chunk in s.scored.ids.tolist()}
    rarity = _Rarity(question.words, [s.view for s in searched], backend.caller.tags)
    found: list[tuple[Candidate, int]] = []
    least = options.min_relevance or 0.0
    start, changed, hidden = 0, False, False
    while start < len(order) and len(found) < limit:
        # A few more than are missing: some may have been replaced or deleted since the view looked.
        some = order[start : start + limit - len(found) + 4]
        start += len(some)
        with backend.database.read() as connection:
            stored = chunks.visible_chunks(connection, [chunk for chunk, _ in some])
            # A view or an engine that lags may not know yet that a document was hidden.
            stored = {id_: chunk for id_, chunk in stored.items() if seen.may_see(backend.caller, chunk.permissions)}
            missing = [chunk for chunk, _ in some if chunk not in stored]
            to_come = chunks.unpublished(connection, missing) if missing else set()
        changed, hidden = changed or len(missing) > len(to_come), hidden or bool(to_come)
        visible = [(stored[chunk], fused) for chunk, fused in some if chunk in stored]
        for candidate in _candidates(backend, visible, owner, rarity):
            if candidate.relevance >= least:
                found.append((candidate, stored[candidate.chunk_id].chunk_set_id))
    if changed:
        return found[:limit], "changed"
    return found[:limit], "hidden" if hidden and len(found) < limit else "whole"


class _Rarity:
    """How rare the question's words are over the views that were searched; the rarest ones only."""

    def __init__(self, words: Sequence[str], views: Sequence[Searchable], tags: Tags) -> None:
        total, counts = 0, np.zeros(len(words))
        for view in views:
            number, holding = view.statistics(words, tags)
            total += number
            counts += np.array(holding, dtype=np.float64)
        idf = np.log(1.0 + (total - counts + 0.5) / (counts + 0.5))
        rarest = np.argsort(-idf, kind="stable")[:MOST_WORDS]
        self._words = [words[i] for i in rarest]
        self._idf: NDArray[np.float64] = idf[rarest]

    def covered(self, view: Searchable, ids: Ids) -> Sequence[float | None]:
        """The share of the question's IDF mass that each text holds; None where the question has no words."""
        if not self._words:
            return [None] * len(ids)
        shares: list[float | None] = coverage(self._idf, view.contains(self._words, ids)).tolist()
        return shares


def _candidates(
    backend: Backend,
    visible: Sequence[tuple[StoredChunk, float]],
    owner: Mapping[int, _Searched],
    rarity: _Rarity,
) -> list[Candidate]:
    """Candidates in the order given, each with its scores and what its text covers of the question."""
    found: dict[int, Candidate] = {}
    for searched in {id(s): s for s in owner.values()}.values():
        mine = [(chunk, fused) for chunk, fused in visible if owner[chunk.chunk_id] is searched]
        ids = np.array([chunk.chunk_id for chunk, _ in mine], dtype=np.int64)
        places = searched.scored.ids.searchsorted(ids)
        columns = searched.scored.dense[places].tolist(), searched.scored.keyword[places].tolist()
        calibration = backend.calibration(searched.generation)
        for (chunk, fused), dense, keyword, covered in zip(
            mine, *columns, rarity.covered(searched.view, ids), strict=True
        ):
            cosine = _number(dense)
            found[chunk.chunk_id] = Candidate(
                chunk_id=chunk.chunk_id,
                document_id=chunk.document_id,
                version_id=chunk.version_id,
                store_id=searched.store.public_id,
                file_id=chunk.file_id,
                filename=chunk.filename,
                title=chunk.title,
                ordinal=chunk.ordinal,
                start=chunk.start,
                end=chunk.end,
                text=chunk.text,
                heading_path=chunk.heading_path,
                page=chunk.page,
                attributes=chunk.attributes,
                fused=fused,
                relevance=relevance(cosine, covered, calibration),
                dense=cosine,
                keyword=_number(keyword),
            )
    return [found[chunk.chunk_id] for chunk, _ in visible]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
