"""The shapes of search, and how a request says how to retrieve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas.common import Identifier, IfAny, OrNull, RequestModel, ResponseModel, UsageObject
from api.schemas.filters import Filters
from indexes.filters import parse_filter
from rag.context import Candidate, Scalar
from rag.rerankers import NONE
from rag.retrieve import Fusion, Mode, SearchOptions

Query = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


class Retrieving(RequestModel):
    """How to retrieve; what is not named is as the generation and the installation are set. `generation` is the id of
    one that is to be asked instead of its store's live one."""

    filters: Filters | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    mode: Mode | None = None
    fusion: Fusion | None = None
    dense_weight: float | None = Field(default=None, ge=0, le=1)
    reranker: Identifier | None = None
    """An alias of the settings' rerankers, or `none`."""
    generation: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None


class RankingOptions(RequestModel):
    """`score_threshold` is a relevance. `ranker` `none` leaves reranking out; any other is the installation's own."""

    ranker: OrNull[Literal["none", "auto", "default-2024-11-15"]] = None
    score_threshold: OrNull[Annotated[float, Field(ge=0, le=1)]] = None


class SearchRequest(Retrieving):
    """OpenAI's search of a vector store. With `rewrite_query` the installation's language model words the query anew;
    without such a model it stays as it is. `search_query` of the answer says what was searched for."""

    filters: OrNull[Filters] = None
    max_num_results: OrNull[Annotated[int, Field(ge=1, le=50)]] = None
    query: Query | Annotated[list[Query], Field(min_length=1, max_length=16)]
    ranking_options: OrNull[RankingOptions] = None
    rewrite_query: OrNull[bool] = None


class Scores(ResponseModel):
    """`dense` is a cosine, `keyword` BM25, `relevance` is absolute. `fused` orders the hits of one query, or `reranked`
    those that a reranker has read."""

    dense: float | None
    keyword: float | None
    fused: float
    reranked: IfAny[float] = None
    relevance: float


class TextPart(ResponseModel):
    """A stretch of text."""

    type: Literal["text"] = "text"
    text: str


class SearchHit(ResponseModel):
    """OpenAI's search result, one chunk each; `score` is its relevance."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Scalar | int] | None = Field(...)
    content: list[TextPart]
    scores: Scores
    chunk_id: int
    document_id: int
    version_id: int
    start: int
    end: int
    page: int | None
    heading_path: list[str]
    title: str


class SearchPage(ResponseModel):
    """All hits, best first."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchHit]
    has_more: bool = False
    next_page: str | None = Field(...)
    wording_usage: IfAny[UsageObject] = None
    """What a model took to word the questions anew, where one was asked."""


def search_options(request: Retrieving, threshold: float | None, ranker: str | None = None) -> SearchOptions:
    """What a request says about retrieval; `ranker` is OpenAI's word for how to rank.

    Raises ChangeRequest for a filter that is not one.
    """
    return SearchOptions(
        limit=request.max_num_results,
        mode=request.mode,
        fusion=request.fusion,
        dense_weight=request.dense_weight,
        condition=None if request.filters is None else parse_filter(request.filters),
        min_relevance=threshold,
        reranker=request.reranker or (NONE if ranker == NONE else None),
        generation=request.generation,
    )


def search_hit(candidate: Candidate) -> SearchHit:
    """A candidate as it is sent."""
    return SearchHit(
        file_id=candidate.file_id,
        filename=candidate.filename,
        score=min(max(candidate.relevance, 0.0), 1.0),
        attributes=dict(candidate.attributes),
        content=[TextPart(text=candidate.text)],
        scores=Scores.model_validate(candidate),
        chunk_id=candidate.chunk_id,
        document_id=candidate.document_id,
        version_id=candidate.version_id,
        start=candidate.start,
        end=candidate.end,
        page=candidate.page,
        heading_path=list(candidate.heading_path),
        title=candidate.title,
    )
