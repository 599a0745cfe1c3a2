"""A collection that many stores share: who sees what, what goes, whose it is, and how often the engine is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.errors import ChangeRequest
from indexes.filters import AnyTag, Comparison
from tests.contracts.vector_index import unit
from tests.fakes.qdrant_server import FakeQdrant
from tests.qdrant import KINDS, Qdrant, open_qdrant

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from indexes.qdrant_collection import Leg, Point, QdrantCollection, QdrantEffort, QdrantLayout, Scope
from indexes.qdrant_connection import QdrantConnection, QdrantPlace

HERE, THERE, OTHER_SPLIT = Scope(1, 1), Scope(2, 5), Scope(1, 2)
VECTORS = unit(40, seed=3)


@pytest.fixture(params=KINDS)
def qdrant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Qdrant]:
    with open_qdrant(request.param, tmp_path / "engine") as opened:
        yield opened


def point(id_: int, text: str = "river", document: int = 0, **more: Any) -> Point:
    """A chunk of a document and version of the same number."""
    return Point(id_, document or id_, document or id_, VECTORS[id_ % 40], text, **more)


def found(collection: Any, scope: Scope, words: str = "river", **more: Any) -> list[list[int]]:
    both = collection.search(scope, [Leg(VECTORS[0], 50), Leg(words, 50)], **more)
    return [sorted(hits.ids.tolist()) for hits in both]


def test_a_store_sees_its_own(qdrant: Qdrant) -> None:
    collection = qdrant.collection()
    collection.put(HERE, [point(1), point(2, "stone")])
    collection.put(THERE, [point(3), point(4)])
    collection.put(OTHER_SPLIT, [point(5)])
    assert found(collection, HERE) == [[1, 2], [1]]
    assert found(collection, THERE) == [[3, 4], [3, 4]]
    assert found(collection, OTHER_SPLIT) == [[5], [5]]
    assert found(collection, HERE, allowed=np.array([2, 3, 5])) == [[2], []]
    assert [collection.count(scope) for scope in (HERE, THERE, OTHER_SPLIT, Scope(9, 9))] == [2, 2, 1, 0]
    assert collection.document_frequency(HERE, ["river", "stone", "cloud"]) == [1, 1, 0]
    assert collection.contains(HERE, ["river"], np.array([1, 2, 3])).tolist() == [[True, False, False]]
    [scores] = collection.scores(HERE, [("river", np.array([3, 1]))])
    assert np.isnan(scores).tolist() == [True, False]


def test_a_words_weight_is_no_other_stores_business(qdrant: Qdrant) -> None:
    """Its rarity is counted within the store; otherwise scores would tell what others have."""
    collection = qdrant.collection()
    collection.put(HERE, [point(1), point(2, "stone"), point(3, "stone cloud")])
    [alone] = collection.search(HERE, [Leg("river stone", 9)])
    collection.put(THERE, [point(id_) for id_ in range(10, 40)])
    [beside] = collection.search(HERE, [Leg("river stone", 9)])
    assert alone.ids.tolist() == beside.ids.tolist() == [1, 2, 3]
    assert alone.scores.tolist() == beside.scores.tolist()


def test_what_is_removed_is_gone_and_nothing_else(qdrant: Qdrant) -> None:
    collection = qdrant.collection()
    collection.put(HERE, [point(id_, document=10 + id_ % 3) for id_ in range(1, 10)])
    collection.put(OTHER_SPLIT, [point(20, document=11)])
    collection.put(THERE, [point(id_, document=10 + id_ % 3) for id_ in range(31, 40)])
    for _ in range(2):
        collection.remove_versions(1, [11, 12, 99])
        assert found(collection, HERE) == [[3, 6, 9]] * 2
        assert found(collection, OTHER_SPLIT) == [[], []]
    collection.remove_versions(1, [])
    collection.remove(np.array([3, 500]))
    collection.remove(np.empty(0, dtype=np.int64))
    assert found(collection, HERE) == [[6, 9]] * 2
    collection.put(OTHER_SPLIT, [point(20)])
    collection.remove_scope(HERE)
    assert found(collection, HERE) == [[], []]
    assert found(collection, OTHER_SPLIT) == [[20], [20]]
    collection.put(HERE, [point(1)])
    collection.remove_store(1)
    assert found(collection, HERE) == found(collection, OTHER_SPLIT) == [[], []]
    assert len(found(collection, THERE)[0]) == 9


def test_attributes_and_tags_change_for_a_whole_document(qdrant: Qdrant) -> None:
    collection = qdrant.collection()
    mine = {"attributes": {"lang": "de", "year": 2020}, "tags": frozenset({"a"})}
    collection.put(HERE, [point(1, document=7, **mine), point(2, document=7, **mine), point(3, document=8, **mine)])
    collection.put(THERE, [point(4, document=7, **mine)])
    collection.set_attributes(1, 7, {"year": 2024.5}, {"b"})
    for condition, ids in (
        (Comparison("lang", "eq", "de"), [3]),
        (Comparison("lang", "ne", "de"), [1, 2]),
        (Comparison("year", "gt", 2024.0), [1, 2]),
        (Comparison("year", "lte", 2020.0), [3]),
        (AnyTag(frozenset({"b", "c"})), [1, 2]),
        (AnyTag(frozenset({"a"})), [3]),
        (AnyTag(frozenset()), []),
    ):
        assert found(collection, HERE, condition=condition) == [ids, ids]
    assert found(collection, THERE, condition=AnyTag(frozenset({"a"}))) == [[4], [4]]
    with pytest.raises(ChangeRequest, match="'bad'"):
        collection.set_attributes(1, 7, {"bad": float("nan")})
    collection.put(HERE, [point(1, document=7)])
    assert found(collection, HERE, condition=AnyTag(frozenset({"b"}))) == [[2], [2]]


def test_writing_again_changes_nothing(qdrant: Qdrant) -> None:
    collection = qdrant.collection()
    points = [point(id_, f"river word{id_}") for id_ in range(1, 30)]
    for _ in range(3):
        collection.put(HERE, points)
        assert collection.count(HERE) == 29
        assert found(collection, HERE, "word7") == [list(range(1, 30)), [7]]
        assert collection.document_frequency(HERE, ["river", "word7"]) == [29, 1]


def test_a_bad_point_keeps_all_from_being_written(qdrant: Qdrant) -> None:
    collection = qdrant.collection()
    for bad in (point(2, attributes={"x": None}), Point(2, 2, 2, VECTORS[2] * 3), point(1), point(-4)):
        with pytest.raises(ChangeRequest):
            collection.put(HERE, [point(1), bad])
    assert collection.count(HERE) == 0


def test_every_id_is_told_with_its_version(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.qdrant_collection.IDS_AT_ONCE", 7)
    collection = qdrant.collection()
    collection.put(HERE, [point(id_, document=1 + id_ % 5) for id_ in range(39, 0, -1)])
    pages = list(collection.held(HERE))
    assert np.concatenate([ids for ids, _ in pages]).tolist() == list(range(1, 40))
    assert np.concatenate([versions for _, versions in pages]).tolist() == [1 + id_ % 5 for id_ in range(1, 40)]
    assert len(pages) == 6
    assert [ids.tolist() for ids, _ in collection.held(Scope(9, 9))] == [[]]


def test_the_same_owner_space_and_settings_are_the_same_collection(qdrant: Qdrant) -> None:
    qdrant.collection(owner="me").put(HERE, [point(1)])
    assert qdrant.collection(owner="me").count(HERE) == 1
    assert qdrant.collection(owner="you").count(HERE) == 0
    assert qdrant.collection(owner="me", layout=QdrantLayout(average_words=99.0)).count(HERE) == 0
    assert qdrant.collection(owner="me", effort=QdrantEffort(exact=True, hnsw_ef=50)).count(HERE) == 1


@pytest.mark.parametrize("quantisation", ["none", "int8", "binary"])
def test_each_layout_can_be_made_and_searched(qdrant: Qdrant, quantisation: Any) -> None:
    layout = QdrantLayout(2, 1, 1, quantisation, True, 8, 50, 20.0, "german")
    collection = qdrant.collection(layout=layout, effort=QdrantEffort(hnsw_ef=64, oversampling=3.0))
    collection.put(HERE, [point(id_, "Häuser" if id_ == 7 else "Boot") for id_ in range(1, 40)])
    [near, words] = collection.search(HERE, [Leg(VECTORS[5], 1), Leg("Haus", 5)])
    assert near.ids.tolist() == [5]
    assert near.scores[0] == pytest.approx(1, abs=1e-6)
    assert words.ids.tolist() == [7]


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    with FakeQdrant() as server:
        yield server


def collection_on(fake: FakeQdrant, **settings: Any) -> QdrantCollection:
    return QdrantCollection(QdrantConnection(QdrantPlace(fake.url)), "me", "space", 8, **settings)


def test_both_legs_go_in_one_request(fake: FakeQdrant) -> None:
    collection = collection_on(fake)
    collection.ensure()
    collection.put(HERE, [point(id_) for id_ in range(1, 40)])
    before = len(fake.requests)
    collection.search(HERE, [Leg(VECTORS[0], 5), Leg("river", 39)])
    assert len(fake.requests) == before + 1
    collection.scores(HERE, [(VECTORS[0], np.array([1, 2])), ("river", np.array([3]))])
    assert len(fake.requests) == before + 2
    for nothing in ([Leg("?!", 5)], [Leg("river", 0)], []):
        collection.search(HERE, nothing)
    collection.search(HERE, [Leg("river", 5)], allowed=np.empty(0, dtype=np.int64))
    assert len(fake.requests) == before + 2


def test_a_search_that_comes_back_short_is_done_exactly(fake: FakeQdrant) -> None:
    collection = collection_on(fake)
    collection.ensure()
    collection.put(HERE, [point(id_) for id_ in range(1, 40)])
    fake.short_unless_exact = 2
    before = len(fake.requests)
    [near, words] = collection.search(HERE, [Leg(VECTORS[0], 20), Leg("river", 39)])
    assert (len(near.ids), len(words.ids)) == (20, 39)
    first, second = fake.requests[before:]
    assert [search["params"].get("exact") for search in first.body["searches"]] == [False, None]
    assert [search["params"].get("exact") for search in second.body["searches"]] == [True]


def test_what_filters_use_is_indexed_and_only_the_tenant_has_graphs(fake: FakeQdrant) -> None:
    collection = collection_on(fake, layout=QdrantLayout(3, 2, 2, "int8"))
    for _ in range(2):
        collection.ensure()
    [made] = [request.body for request in fake.requests if request.path == f"PUT /collections/{collection.name}"]
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == (3, 2, 2)
    assert (made["hnsw_config"]["m"], made["hnsw_config"]["payload_m"]) == (0, 16)
    assert made["quantization_config"]["scalar"]["type"] == "int8"
    assert made["sparse_vectors"]["words"]["modifier"] == "idf"
    schemas = {r.body["field_name"]: r.body["field_schema"] for r in fake.requests if "/index" in r.path}
    assert sum("/index" in path for path in fake.calls()) == len(schemas)
    assert set(schemas) == {"store", "chunk_set", "document", "version", "words", "attributes", "tags"}
    assert schemas["attributes"]["prefix"] is True
    assert schemas.pop("store")["is_tenant"] is True
    assert all(schema["enable_hnsw"] is False for schema in schemas.values())


def test_a_collection_of_someone_else_is_refused_and_left_alone(fake: FakeQdrant) -> None:
    from qdrant_client import models

    collection = collection_on(fake)
    for metadata in (None, {"made_by": "you"}):
        config = {"dense": models.VectorParams(size=8, distance=models.Distance.DOT)}
        fake.engine.create_collection(collection.name, config, metadata=metadata)
        fake._indexes[collection.name] = {}
        with pytest.raises(ChangeRequest, match=collection.name) as caught:
            collection.ensure()
        assert caught.value.code == "foreign_collection"
        assert {path.partition(" ")[0] for path in fake.calls()} == {"GET"}
        fake.engine.delete_collection(collection.name)


def test_dropping_what_is_not_there_is_harmless(fake: FakeQdrant) -> None:
    collection = collection_on(fake)
    collection.drop()
    collection.ensure()
    collection.drop()
    collection.drop()
    assert not fake.engine.get_collections().collections
