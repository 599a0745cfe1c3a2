"""The server's own engine in this process, without a server: `qdrant-edge-py` in the place of a connection.

Local mode is another program, in Python; this is the code that filters, weighs words and scores in a server. Calls are
translated argument by argument, nothing is worked out here.
"""

from __future__ import annotations

import shutil
import types
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from indexes.errors import ChangeRequest


class EdgeConnection:
    """What of `QdrantConnection` a collection uses. Each collection is a folder."""

    local = False
    where = "the embedded engine"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, Any] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._indexes: dict[str, set[str]] = {}

    def require_usable(self) -> None:
        """Always."""

    def call(self, method: str, collection_name: str, **arguments: Any) -> Any:
        """One method of `QdrantClient`."""
        return getattr(self, f"_{method}")(collection_name, **arguments)

    def close(self) -> None:
        """Close every shard."""
        for name in list(self._shards):
            self._delete_collection(name)

    def _collection_exists(self, name: str) -> bool:
        return name in self._shards

    def _create_collection(self, name: str, **made: Any) -> None:
        if name in self._shards:
            raise ChangeRequest("already exists")
        [(dense, params)] = made["vectors_config"].items()
        [(words, _)] = made["sparse_vectors_config"].items()
        hnsw = made["hnsw_config"]
        config = edge.EdgeConfig(
            vectors={dense: edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Dot)},
            sparse_vectors={words: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            hnsw_config=edge.HnswIndexConfig(
                m=hnsw.m, ef_construct=hnsw.ef_construct, payload_m=hnsw.payload_m, full_scan_threshold=10
            ),
            quantization_config=_quantisation(made["quantization_config"]),
            # Small, so that graphs are built over little data.
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1),
        )
        self._shards[name] = edge.EdgeShard.create(str(self._folder / name), config)
        self._made[name], self._indexes[name] = made, set()

    def _delete_collection(self, name: str) -> None:
        shard = self._shards.pop(name, None)
        if shard is not None:
            shard.close()
            shutil.rmtree(self._folder / name)

    def _get_collection(self, name: str) -> Any:
        config = types.SimpleNamespace(metadata=self._made[name]["metadata"])
        return types.SimpleNamespace(config=config, payload_schema=self._indexes[name])

    def _create_payload_index(self, name: str, field_name: str, field_schema: Any, wait: bool) -> None:
        settings = {key: value for key, value in field_schema.model_dump(exclude_none=True).items() if key != "type"}
        schema = getattr(edge, type(field_schema).__name__)(**settings)
        self._shards[name].update(edge.UpdateOperation.create_field_index(field_name, schema))
        self._indexes[name].add(field_name)

    def _upsert(self, name: str, points: list[models.PointStruct], wait: bool) -> None:
        converted = [edge.Point(p.id, {key: _vector(v) for key, v in p.vector.items()}, p.payload) for p in points]
        self._shards[name].update(edge.UpdateOperation.upsert_points(converted))

    def _delete(self, name: str, points_selector: Any, wait: bool) -> None:
        if isinstance(points_selector, models.PointIdsList):
            operation = edge.UpdateOperation.delete_points(points_selector.points)
        else:
            operation = edge.UpdateOperation.delete_points_by_filter(_filter(points_selector.filter))
        self._shards[name].update(operation)

    def _set_payload(self, name: str, payload: dict[str, Any], points: models.FilterSelector, wait: bool) -> None:
        operation = edge.UpdateOperation.set_payload_by_filter(_filter(points.filter), payload)
        self._shards[name].update(operation)

    def _query_batch_points(self, name: str, requests: list[models.QueryRequest]) -> list[Any]:
        batch = edge.QueryBatchRequest([_query(request) for request in requests])
        return [types.SimpleNamespace(points=points) for points in self._shards[name].query_batch(batch)]

    def _scroll(
        self, name: str, scroll_filter: models.Filter, limit: int, with_payload: list[str], offset: Any = None
    ) -> Any:
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=_filter(scroll_filter),
            with_payload=edge.PayloadSelector.Include(with_payload),
        )
        return self._shards[name].scroll(request)

    def _count(self, name: str, count_filter: models.Filter, exact: bool) -> Any:
        number = self._shards[name].count(edge.CountRequest(exact=exact, filter=_filter(count_filter)))
        return types.SimpleNamespace(count=number)

    def optimize(self) -> None:
        """Build what indexes and graphs are due."""
        for shard in self._shards.values():
            shard.optimize()


def _quantisation(config: Any) -> Any:
    if isinstance(config, models.ScalarQuantization):
        return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, quantile=config.scalar.quantile)
    return edge.BinaryQuantizationConfig() if config is not None else None


def _vector(value: Any) -> Any:
    return edge.SparseVector(value.indices, value.values) if isinstance(value, models.SparseVector) else value


def _query(request: models.QueryRequest) -> Any:
    return edge.QueryRequest(
        limit=request.limit,
        query=edge.Query.Nearest(_vector(request.query), request.using),
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
