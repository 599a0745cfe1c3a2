"""A collection in Qdrant: the vectors and words of every store in one vector space, under one set of settings.

A point is a chunk, under the chunk's own id; its store is the tenant key. Points are written before the catalog makes
them visible and removed after it retires them: whoever searches drops what the catalog does not show. Every write is
harmless when repeated, and has been applied when the call returns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from indexes.checks import best, checked_count, checked_ids, checked_query, checked_vectors, cosines, rounded
from indexes.errors import ChangeRequest
from indexes.filters import Filter, Scalar
from indexes.qdrant_connection import QdrantConnection
from indexes.qdrant_filters import ATTRIBUTES, TAGS, attributes_payload, compiled, order_fields
from indexes.sparse import AVERAGE_WORDS, text_vector, word_number
from indexes.vector import Hits, Ids
from indexes.words import WORDS_VERSION, analyse

Item = TypeVar("Item")
Result = TypeVar("Result")

LAYOUT = 1
"""Changes with the names and the payload below."""

DENSE, WORDS = "dense", "words"
STORE, CHUNK_SET, DOCUMENT, VERSION = "store", "chunk_set", "document", "version"

UPSERT_AT_ONCE = 256
"""Points of one request: half a MB or more of each."""
UPSERTS_AT_ONCE = 4
"""Requests under way at once, so that the next is put together while the engine is at work."""
IDS_AT_ONCE = 10_000
COUNTS_AT_ONCE = 8
MOST_STORES = 100_000
"""Counted in one request, the largest ones; a smaller one seems empty."""

MARGIN = 1e-5
"""How far the engine's float32 product may stray from the exact cosine."""

EXTRA = 16
"""Hits fetched beyond k, so that the few that tie with the k-th need no second look."""


@dataclass(frozen=True)
class QdrantLayout:
    """How a collection is made. Another layout is another collection, to be filled anew from the catalog."""

    shard_number: int = 1
    replication_factor: int = 1
    write_consistency_factor: int = 1
    """How many replicas must have a write before it counts: all of them, for every reader to see it at once."""
    quantisation: Literal["none", "int8", "binary"] = "none"
    """Compressed vectors in memory (a fourth, a thirty-second), whose best hits are scored again with the full ones."""
    on_disk: bool = False
    """Leave the full vectors on disk."""
    hnsw_m: int = 16
    """Links of a vector in its store's graph; there is no graph across stores."""
    hnsw_ef_construct: int = 100
    average_words: float = AVERAGE_WORDS
    """See `indexes.sparse`."""
    language: str = "english"
    """The stemmer (`indexes.words`)."""


@dataclass(frozen=True)
class QdrantEffort:
    """How hard a search tries."""

    exact: bool = False
    """Compare with every vector in the set and score by the stored vectors: what the contract demands, and slow.
    Local mode always does."""
    hnsw_ef: int | None = None
    """Vectors looked at in the graph; None for the engine's own number."""
    oversampling: float = 2.0
    """With quantisation, how many times k are scored again with the full vectors."""
    ordered: tuple[str, ...] = ()
    """Attributes that filters compare by size: each gets a payload index of its own. Without, such a filter reads the
    payload of every point of the store: right, and slow in a large one."""


@dataclass(frozen=True)
class Scope:
    """The points of one store under one way of splitting: what a generation searches."""

    store: int
    chunk_set: int


@dataclass(frozen=True)
class Point:
    """A chunk as the engine holds it. `vector` has unit length; without one, or without a text, that leg misses it."""

    id: int
    document: int
    version: int
    """A document's text at one attempt, so that removing a version removes what an attempt left behind."""
    vector: NDArray[np.float32] | None = None
    text: str | None = None
    heading: str = ""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Leg:
    """What one leg of a search looks for, a unit vector or a text's words, and how many hits it wants."""

    query: NDArray[np.float32] | str
    k: int


@dataclass(frozen=True)
class _Asked:
    """One query as it goes to the engine."""

    query: NDArray[np.float32] | models.SparseVector
    limit: int
    where: models.Filter
    exact: bool
    """Compare with everything instead of following the graph."""
    ties: bool = False
    """Ask on until everything that ties with the last hit is there."""
    seen: Filter | None = None
    """By which points the rarity of a word is judged."""


class QdrantCollection:
    """The collection of one owner, one vector space and one layout. Safe to use from several threads.

    `owner` names the catalog that gives the ids, so that two installations on one server keep apart; `space` is the
    space's fingerprint. Every method raises what `QdrantConnection.call` raises.
    """

    def __init__(
        self,
        connection: QdrantConnection,
        owner: str,
        space: str,
        dimension: int,
        layout: QdrantLayout | None = None,
        effort: QdrantEffort | None = None,
        prefix: str = "rag",
    ) -> None:
        self.dimension = dimension
        self.layout = layout or QdrantLayout()
        self._connection = connection
        effort = effort or QdrantEffort()
        self._effort = replace(effort, exact=effort.exact or connection.local)
        self._identity = {
            "made_by": "rag",
            "owner": owner,
            "space": space,
            "dimension": dimension,
            "layout": LAYOUT,
            "words": WORDS_VERSION,
            "settings": asdict(self.layout),
        }
        settings = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        self.name = f"{prefix}-{space[:16]}-{settings[:16]}"

    # ---- the collection itself ---------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Make the collection unless it is there.

        Raises ChangeRequest (`foreign_collection`) when someone else made one of this name.
        """
        self._connection.require_usable()
        if not self._call("collection_exists"):
            self._create()
        info = self._call("get_collection")
        if (info.config.metadata or {}) != self._identity:
            raise ChangeRequest(
                f"The collection {self.name!r} was not made by this installation with these settings. Nothing in it "
                f"was touched; delete or rename it, or choose another prefix.",
                code="foreign_collection",
            )
        if not self._connection.local:  # has no payload indexes
            for name, schema in _payload_indexes(self._effort.ordered).items():
                if name not in info.payload_schema:
                    self._call("create_payload_index", field_name=name, field_schema=schema, wait=True)

    def drop(self) -> None:
        """Delete the collection with everything in it; one that is not there is ignored."""
        self._call("delete_collection")

    # ---- writing -----------------------------------------------------------------------------------------------------

    def put(self, scope: Scope, points: Sequence[Point]) -> None:
        """Write these points; one that is there already is replaced. All are checked before any is written.

        Raises ChangeRequest (`wrong_ids`, and as `VectorIndex.add` for a vector, `set_attributes` for attributes).
        """
        checked_ids([point.id for point in points], len(points))
        payloads = [self._payload(scope, point) for point in points]
        vectors = iter(self._vectors(points).tolist())
        rows = [
            (point, payload, None if point.vector is None else next(vectors))
            for point, payload in zip(points, payloads, strict=True)
        ]
        parts = [rows[start : start + UPSERT_AT_ONCE] for start in range(0, len(rows), UPSERT_AT_ONCE)]
        _each_at_once(self._upsert, parts, UPSERTS_AT_ONCE)

    def remove(self, ids: Ids) -> None:
        """Forget these ids. Ids that are not there are ignored."""
        mine: list[Any] = [int(id_) for id_ in ids if id_ > 0]
        for start in range(0, len(mine), IDS_AT_ONCE):
            some = models.PointIdsList(points=mine[start : start + IDS_AT_ONCE])
            self._call("delete", points_selector=some, wait=True)

    def remove_versions(self, store: int, versions: Iterable[int]) -> None:
        """Forget all points of these document versions, published or left behind, under every way of splitting."""
        self._remove_where(_is(STORE, str(store)), models.FieldCondition(key=VERSION, match=_any(versions)))

    def remove_scope(self, scope: Scope) -> None:
        """Forget a store's points under one way of splitting."""
        self._remove_where(*_inside(scope))

    def remove_store(self, store: int) -> None:
        """Forget everything of a store."""
        self._remove_where(_is(STORE, str(store)))

    def set_attributes(
        self, store: int, document: int, attributes: Mapping[str, Scalar], tags: Iterable[str] = ()
    ) -> None:
        """Put these attributes and permission tags in the place of all that the document's points had.

        Raises ChangeRequest (`invalid_attribute`), changing nothing.
        """
        mine = models.Filter(must=[_is(STORE, str(store)), _is(DOCUMENT, document)])
        payload = attributes_payload(attributes, tags)
        self._call("set_payload", payload=payload, points=models.FilterSelector(filter=mine), wait=True)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def search(
        self,
        scope: Scope,
        legs: Sequence[Leg],
        condition: Filter | None = None,
        allowed: Ids | None = None,
        seen: Filter | None = None,
    ) -> list[Hits]:
        """What each leg finds, in one request (another when hits tie at the last place, or an approximate search came
        back short).

        `allowed` are the only ids that count, unless it is None. `seen` selects the points by which a word's rarity is
        judged, everywhere the same for one caller; None takes the whole scope.
        Raises ChangeRequest as `compiled` for `condition`.
        """
        queries = [self._query(leg.query) for leg in legs]
        found = [_no_hits() for _ in legs]
        if allowed is not None and not len(allowed):
            return found
        where = _where(scope, condition, allowed)
        pending: dict[int, _Asked] = {}
        for at, (leg, query) in enumerate(zip(legs, queries, strict=True)):
            if checked_count(leg.k) and query is not None:
                exact = self._effort.exact or isinstance(query, models.SparseVector)
                pending[at] = _Asked(query, leg.k + (EXTRA if exact else 0), where, exact, ties=exact, seen=seen)
        while pending:
            answers = self._ask(scope, list(pending.values()))
            for (at, asked), hits in zip(list(pending.items()), answers, strict=True):
                found[at] = best(hits.ids, hits.scores, legs[at].k)
                deeper = _deeper(asked, hits, found[at], legs[at].k)
                pending.pop(at)
                if deeper is not None:
                    pending[at] = deeper
        return found

    def scores(
        self, scope: Scope, wanted: Sequence[tuple[NDArray[np.float32] | str, Ids]], seen: Filter | None = None
    ) -> list[NDArray[np.float32]]:
        """The scores of ids for a query each, as the search gives them, in one request; NaN where there is none."""
        asked: dict[int, _Asked] = {}
        for at, (text_or_vector, ids) in enumerate(wanted):
            query = self._query(text_or_vector)
            if query is not None and len(ids):
                asked[at] = _Asked(query, len(ids), _where(scope, None, ids), exact=True, seen=seen)
        answers = dict(zip(asked, self._ask(scope, list(asked.values())), strict=True))
        return [_in_order(answers.get(at, _no_hits()), ids) for at, (_, ids) in enumerate(wanted)]

    def contains(self, scope: Scope, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `KeywordIndex.contains`."""
        numbers = [word_number(word) for word in words]
        held: dict[int, frozenset[int]] = {}
        if len(ids) and numbers:
            points, _ = self._call(
                "scroll",
                scroll_filter=_where(scope, None, ids),
                limit=len(ids),
                with_payload=[WORDS],
            )
            held = {int(point.id): frozenset((point.payload or {}).get(WORDS, ())) for point in points}
        nothing: frozenset[int] = frozenset()
        rows = [[number in held.get(int(id_), nothing) for id_ in ids] for number in numbers]
        return np.array(rows, dtype=np.bool_).reshape(len(words), len(ids))

    def document_frequency(self, scope: Scope, words: Sequence[str], seen: Filter | None = None) -> list[int]:
        """See `KeywordIndex.document_frequency`, among the points that are `seen`. A request per word, several at a
        time."""

        def count(word: str) -> int:
            return self._count([*_inside(scope, seen), _is(WORDS, word_number(word))])

        return _each_at_once(count, words, COUNTS_AT_ONCE)

    def count(self, scope: Scope, seen: Filter | None = None) -> int:
        """How many points there are, published or not; of those that are `seen`."""
        return self._count(_inside(scope, seen))

    def stores(self) -> dict[int, int]:
        """How many points each store has, published or not."""
        answer = self._call("facet", key=STORE, limit=MOST_STORES, exact=True)
        return {int(hit.value): hit.count for hit in answer.hits}

    def held(self, scope: Scope) -> Iterator[tuple[Ids, Ids]]:
        """Every id, ascending, and beside it its version, some thousands at a time: for comparing with the catalog."""
        place: Any = None
        while True:
            points, place = self._call(
                "scroll",
                scroll_filter=_where(scope),
                limit=IDS_AT_ONCE,
                offset=place,
                with_payload=[VERSION],
            )
            ids = np.array([point.id for point in points], dtype=np.int64)
            yield ids, np.array([point.payload[VERSION] for point in points], dtype=np.int64)
            if place is None:
                return

    # ---- the parts ---------------------------------------------------------------------------------------------------

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._connection.call(method, collection_name=self.name, **arguments)

    def _create(self) -> None:
        layout = self.layout
        arguments: dict[str, Any] = {
            # Of unit vectors the dot product is the cosine; asked for cosines, the engine scales what it was given, and
            # local mode does so again, in place, at every search.
            "vectors_config": {
                DENSE: models.VectorParams(size=self.dimension, distance=models.Distance.DOT, on_disk=layout.on_disk)
            },
            "sparse_vectors_config": {WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            "shard_number": layout.shard_number,
            "replication_factor": layout.replication_factor,
            "write_consistency_factor": layout.write_consistency_factor,
            # One graph per store instead of one over all: every search is within a store.
            "hnsw_config": models.HnswConfigDiff(m=0, payload_m=layout.hnsw_m, ef_construct=layout.hnsw_ef_construct),
            "quantization_config": _quantisation(layout.quantisation),
            "on_disk_payload": True,
            "metadata": self._identity,
        }
        try:
            self._call("create_collection", **arguments)
        except ChangeRequest:
            if not self._call("collection_exists"):  # else another process made it meanwhile, or we did and never heard
                raise

    def _remove_where(self, *conditions: models.Condition) -> None:
        selected = models.FilterSelector(filter=models.Filter(must=list(conditions)))
        self._call("delete", points_selector=selected, wait=True)

    def _vectors(self, points: Sequence[Point]) -> NDArray[np.float32]:
        """The vectors of those that have one, checked."""
        rows = [point.vector for point in points if point.vector is not None]
        odd = [row for row in rows if np.shape(row) != (self.dimension,)]
        return checked_vectors(odd[:1] or np.reshape(rows, (-1, self.dimension)), self.dimension)

    def _payload(self, scope: Scope, point: Point) -> dict[str, Any]:
        return {
            STORE: str(scope.store),
            CHUNK_SET: scope.chunk_set,
            DOCUMENT: point.document,
            VERSION: point.version,
            **attributes_payload(point.attributes, point.tags),
        }

    def _upsert(self, rows: Sequence[tuple[Point, dict[str, Any], list[float] | None]]) -> None:
        structs = []
        for point, payload, vector in rows:
            weights = self._weights(point)
            vectors: dict[str, Any] = {} if vector is None else {DENSE: vector}
            if weights is not None:
                vectors[WORDS] = models.SparseVector(indices=list(weights), values=list(weights.values()))
            payload = {**payload, WORDS: list(weights or ())}
            structs.append(models.PointStruct(id=point.id, vector=vectors, payload=payload))
        self._call("upsert", points=structs, wait=True)

    def _weights(self, point: Point) -> dict[int, float] | None:
        if point.text is None:
            return None
        words = [word for part in (point.heading, point.text) for word in analyse(part, self.layout.language)]
        return text_vector(words, self.layout.average_words)

    def _query(self, query: NDArray[np.float32] | str) -> NDArray[np.float32] | models.SparseVector | None:
        """What the engine compares with; None for a text without words."""
        if not isinstance(query, str):
            return checked_query(query, self.dimension)
        numbers = sorted({word_number(word) for word in analyse(query, self.layout.language)})
        return models.SparseVector(indices=numbers, values=[1.0] * len(numbers)) if numbers else None

    def _ask(self, scope: Scope, asked: Sequence[_Asked]) -> list[Hits]:
        """All in one request; scores as they are given on, in the engine's order."""
        if not asked:
            return []
        responses = self._call("query_batch_points", requests=[self._request(scope, one) for one in asked])
        return [_hits(one, response.points, self._effort.exact) for one, response in zip(asked, responses, strict=True)]

    def _request(self, scope: Scope, asked: _Asked) -> models.QueryRequest:
        common: dict[str, Any] = {"filter": asked.where, "limit": asked.limit, "with_payload": False}
        if isinstance(asked.query, models.SparseVector):
            return models.QueryRequest(query=asked.query, using=WORDS, params=_word_params(scope, asked.seen), **common)
        with_vector = [DENSE] if self._effort.exact else False
        params = self._dense_params(asked.exact)
        return models.QueryRequest(
            query=asked.query.tolist(), using=DENSE, params=params, with_vector=with_vector, **common
        )

    def _dense_params(self, exact: bool) -> models.SearchParams | None:
        if self._connection.local:  # warns of parameters that it ignores
            return None
        again = models.QuantizationSearchParams(rescore=True, oversampling=self._effort.oversampling)
        return models.SearchParams(
            exact=exact,
            hnsw_ef=self._effort.hnsw_ef,
            quantization=None if self.layout.quantisation == "none" else again,
        )

    def _count(self, conditions: list[models.Condition]) -> int:
        return int(self._call("count", count_filter=models.Filter(must=conditions), exact=True).count)


def _each_at_once(work: Callable[[Item], Result], items: Sequence[Item], most: int) -> list[Result]:
    """What each item gives, some at a time. Raises the first error, once what is under way has ended."""
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(most, "qdrant") as threads:
        return list(threads.map(work, items))


def _payload_indexes(ordered: Iterable[str]) -> dict[str, Any]:
    """What is filtered by. Only the tenant key gets a graph."""
    keyword, integer = models.KeywordIndexType.KEYWORD, models.IntegerIndexType.INTEGER
    number = models.IntegerIndexParams(type=integer, lookup=True, range=False, enable_hnsw=False)
    double = models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=False)
    return {
        STORE: models.KeywordIndexParams(type=keyword, is_tenant=True),
        ATTRIBUTES: models.KeywordIndexParams(type=keyword, prefix=True, enable_hnsw=False),
        TAGS: models.KeywordIndexParams(type=keyword, enable_hnsw=False),
        **dict.fromkeys((CHUNK_SET, DOCUMENT, VERSION, WORDS), number),
        **dict.fromkeys((field for key in ordered for field in order_fields(key)), double),
    }


def _quantisation(kind: str) -> models.QuantizationConfig | None:
    if kind == "int8":
        settings = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=settings)
    if kind == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None


def _is(field: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _any(numbers: Iterable[int]) -> models.MatchAny:
    return models.MatchAny(any=[int(number) for number in numbers])


def _inside(scope: Scope, seen: Filter | None = None) -> list[models.Condition]:
    mine: list[models.Condition] = [_is(STORE, str(scope.store)), _is(CHUNK_SET, scope.chunk_set)]
    return mine if seen is None else [*mine, compiled(seen)]


def _where(scope: Scope, condition: Filter | None = None, ids: Ids | None = None) -> models.Filter:
    conditions = _inside(scope, condition)
    if ids is not None:
        conditions.append(models.HasIdCondition(has_id=[int(id_) for id_ in ids]))
    return models.Filter(must=conditions)


def _word_params(scope: Scope, seen: Filter | None) -> models.SearchParams:
    """A word's rarity is its rarity in this store, and there in what the caller may see: other texts must not show
    through."""
    return models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter(must=_inside(scope, seen))))


def _hits(asked: _Asked, points: Sequence[models.ScoredPoint], precise: bool) -> Hits:
    ids = np.array([point.id for point in points], dtype=np.int64)
    if not len(ids):
        return _no_hits()
    if isinstance(asked.query, models.SparseVector):
        return Hits(ids, rounded(np.array([point.score for point in points])))
    if precise:
        rows = np.array([point.vector[DENSE] for point in points], dtype=np.float32)  # type: ignore[index, call-overload]
        return Hits(ids, cosines(rows, asked.query))
    return Hits(ids, np.clip([point.score for point in points], -1.0, 1.0).astype(np.float32))


def _deeper(asked: _Asked, hits: Hits, found: Hits, k: int) -> _Asked | None:
    """What must be asked once more, for k hits where there are k and for the right ones of those that tie; or None."""
    if not asked.ties:  # a graph may be left early where few of its vectors are in the set
        return replace(asked, exact=True) if len(hits.ids) < asked.limit and not asked.exact else None
    margin = 0.0 if isinstance(asked.query, models.SparseVector) else MARGIN
    if len(hits.ids) < asked.limit or (len(found.ids) == k and hits.scores.min() < found.scores[-1] - margin):
        return None
    return replace(asked, limit=4 * asked.limit)


def _in_order(hits: Hits, ids: Ids) -> NDArray[np.float32]:
    score_of = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
    return np.array([score_of.get(int(id_), np.nan) for id_ in ids], dtype=np.float32)


def _no_hits() -> Hits:
    return Hits(ids=np.empty(0, dtype=np.int64), scores=np.empty(0, dtype=np.float32))
