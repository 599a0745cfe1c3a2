"""The server's own engine in this process, without a server: `qdrant-edge-py` in the place of a connection.

Local mode is another program, in Python; this is the code that filters, weighs words and scores in a server. Calls are
translated argument by argument, nothing is worked out here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.http import models as rest  # for QueryResponse: in `models` another stands under that name

from indexes.errors import ChangeRequest

SERVERS_FULL_SCAN_THRESHOLD = 10_000
"""Below so many kB of vectors a server compares with all of them."""


class EdgeConnection:
    """What of `QdrantConnection` a collection uses."""

    local = False
    where = "the embedded engine"

    def __init__(self, folder: Path) -> None:
        # Graphs even over little data.
        self._client = EdgeClient(folder, indexing_threshold=1, full_scan_threshold=10)

    def require_usable(self) -> None:
        """Always."""

    def call(self, method: str, collection_name: str, **arguments: Any) -> Any:
        """One method of `QdrantClient`."""
        return getattr(self._client, method)(collection_name, **arguments)

    def optimize(self) -> None:
        """Build what indexes and graphs are due."""
        self._client.optimize()

    def close(self) -> None:
        """Close every collection."""
        self._client.close()


class EdgeClient:
    """What of `QdrantClient` a collection uses. Each collection is a folder, deleted at the end.

    A server builds graphs by itself, behind what it answers; here `optimize` does. The thresholds are in kB.
    """

    def __init__(self, folder: Path, indexing_threshold: int | None = None, full_scan_threshold: int | None = None):
        self._folder = folder
        self._indexing_threshold = indexing_threshold
        self._full_scan_threshold = full_scan_threshold
        self._shards: dict[str, Any] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._indexes: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Close every collection."""
        for name in list(self._shards):
            self.delete_collection(name)

    def optimize(self) -> None:
        """Build what indexes and graphs are due."""
        for shard in self._shards.values():
            shard.optimize()

    def collection_exists(self, name: str) -> bool:
        """See `QdrantClient`."""
        return name in self._shards

    def create_collection(self, name: str, **made: Any) -> bool:
        """See `QdrantClient`."""
        if name in self._shards:
            raise ChangeRequest(f"Collection {name} already exists")
        [(dense, params)] = made["vectors_config"].items()
        [(words, _)] = made["sparse_vectors_config"].items()
        hnsw = made["hnsw_config"]
        config = edge.EdgeConfig(
            vectors={dense: edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Dot)},
            sparse_vectors={words: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            hnsw_config=edge.HnswIndexConfig(
                m=hnsw.m,
                ef_construct=hnsw.ef_construct,
                payload_m=hnsw.payload_m,
                full_scan_threshold=self._full_scan_threshold or SERVERS_FULL_SCAN_THRESHOLD,
            ),
            quantization_config=_quantisation(made["quantization_config"]),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=self._indexing_threshold),
        )
        self._shards[name] = edge.EdgeShard.create(str(self._folder / name), config)
        self._made[name], self._indexes[name] = made, {}
        return True

    def delete_collection(self, name: str) -> bool:
        """See `QdrantClient`."""
        shard = self._shards.pop(name, None)
        if shard is not None:
            shard.close()
            shutil.rmtree(self._folder / name)
        return shard is not None

    def get_collection(self, name: str) -> models.CollectionInfo:
        """See `QdrantClient`: metadata and payload indexes as they are, the rest as a new server has it."""
        made = self._made[name]
        schema = {
            field: models.PayloadIndexInfo(data_type=kind, points=0) for field, kind in self._indexes[name].items()
        }
        params = models.CollectionParams(vectors=made["vectors_config"], sparse_vectors=made["sparse_vectors_config"])
        optimizers = models.OptimizersConfig(
            deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
        )
        config = models.CollectionConfig(
            params=params,
            hnsw_config=models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=SERVERS_FULL_SCAN_THRESHOLD),
            optimizer_config=optimizers,
            metadata=made["metadata"],
        )
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            segments_count=1,
            config=config,
            payload_schema=schema,
        )

    def create_payload_index(self, name: str, field_name: str, field_schema: Any, wait: bool = True) -> Any:
        """See `QdrantClient`."""
        settings = {key: value for key, value in field_schema.model_dump(exclude_none=True).items() if key != "type"}
        schema = getattr(edge, type(field_schema).__name__)(**settings)
        self._indexes[name][field_name] = field_schema.type.value
        return self._update(name, edge.UpdateOperation.create_field_index(field_name, schema))

    def upsert(self, name: str, points: list[models.PointStruct], wait: bool = True) -> Any:
        """See `QdrantClient`."""
        converted = [edge.Point(p.id, {key: _vector(v) for key, v in p.vector.items()}, p.payload) for p in points]
        return self._update(name, edge.UpdateOperation.upsert_points(converted))

    def delete(self, name: str, points_selector: Any, wait: bool = True) -> Any:
        """See `QdrantClient`."""
        if isinstance(points_selector, models.PointIdsList):
            return self._update(name, edge.UpdateOperation.delete_points(points_selector.points))
        return self._update(name, edge.UpdateOperation.delete_points_by_filter(_filter(points_selector.filter)))

    def set_payload(self, name: str, payload: dict[str, Any], points: models.FilterSelector, wait: bool = True) -> Any:
        """See `QdrantClient`."""
        return self._update(name, edge.UpdateOperation.set_payload_by_filter(_filter(points.filter), payload))

    def query_batch_points(self, name: str, requests: list[models.QueryRequest]) -> list[rest.QueryResponse]:
        """See `QdrantClient`."""
        batch = edge.QueryBatchRequest([_query(request) for request in requests])
        return [
            rest.QueryResponse(points=list(map(_scored, points))) for points in self._shards[name].query_batch(batch)
        ]

    def scroll(
        self, name: str, scroll_filter: models.Filter, limit: int, with_payload: list[str], offset: Any = None
    ) -> tuple[list[models.Record], Any]:
        """See `QdrantClient`."""
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=_filter(scroll_filter),
            with_payload=edge.PayloadSelector.Include(with_payload),
        )
        points, place = self._shards[name].scroll(request)
        return [models.Record(id=point.id, payload=point.payload) for point in points], place

    def count(self, name: str, count_filter: models.Filter, exact: bool) -> models.CountResult:
        """See `QdrantClient`."""
        number = self._shards[name].count(edge.CountRequest(exact=exact, filter=_filter(count_filter)))
        return models.CountResult(count=number)

    def facet(self, name: str, key: str, limit: int, exact: bool) -> models.FacetResponse:
        """See `QdrantClient`."""
        answer = self._shards[name].facet(edge.FacetRequest(key, limit=limit, exact=exact))
        return models.FacetResponse(
            hits=[models.FacetValueHit(value=hit.value, count=hit.count) for hit in answer.hits]
        )

    def _update(self, name: str, operation: Any) -> models.UpdateResult:
        self._shards[name].update(operation)
        return models.UpdateResult(operation_id=1, status=models.UpdateStatus.COMPLETED)


def _quantisation(config: Any) -> Any:
    if isinstance(config, models.ScalarQuantization):
        return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, quantile=config.scalar.quantile)
    return edge.BinaryQuantizationConfig() if config is not None else None


def _vector(value: Any) -> Any:
    return edge.SparseVector(value.indices, value.values) if isinstance(value, models.SparseVector) else value


def _scored(point: Any) -> models.ScoredPoint:
    return models.ScoredPoint(id=point.id, version=0, score=point.score, vector=point.vector)


def _query(request: models.QueryRequest) -> Any:
    nearest = request.query.nearest if isinstance(request.query, models.NearestQuery) else request.query
    return edge.QueryRequest(
        limit=request.limit,
        query=edge.Query.Nearest(_vector(nearest), request.using),
        with_vector=request.with_vector or None,
        with_payload=False,
        filter=_filter(request.filter),
        params=_params(request.params),
    )


def _params(params: models.SearchParams | None) -> Any:
    if params is None:
        return None
    quantisation = params.quantization
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        quantization=quantisation
        and edge.QuantizationSearchParams(rescore=quantisation.rescore, oversampling=quantisation.oversampling),
        idf=edge.IdfParams(corpus=_filter(params.idf.corpus)) if params.idf else None,
    )


def _filter(given: models.Filter) -> Any:
    def some(conditions: Any) -> Any:
        return None if conditions is None else [_condition(condition) for condition in conditions]

    return edge.Filter(must=some(given.must), should=some(given.should), must_not=some(given.must_not))


def _condition(given: Any) -> Any:
    if isinstance(given, models.Filter):
        return _filter(given)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition(set(given.has_id))
    if isinstance(given.match, models.MatchPrefix):
        return edge.FieldCondition(given.key, match=edge.MatchPrefix(given.match.prefix))
    if given.range is not None:
        return edge.FieldCondition(given.key, range=edge.RangeFloat(**given.range.model_dump()))
    if isinstance(given.match, models.MatchAny):
        return edge.FieldCondition(given.key, match=edge.MatchAny(given.match.any))
    return edge.FieldCondition(given.key, match=edge.MatchValue(given.match.value))
