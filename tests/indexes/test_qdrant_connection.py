"""What goes wrong on the way to Qdrant: named errors, nothing lost, repeated where it can help. Over real sockets."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.errors import ChangeRequest, RagError, TryLater, Unsupported
from indexes.registry import resolve
from tests.contracts.vector_index import unit
from tests.fakes.openai_server import Drop, Hang, Nonsense, Status
from tests.fakes.qdrant_server import FakeQdrant, Lost, Pass

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from indexes.qdrant_collection import Leg, Point, QdrantCollection, Scope
from indexes.qdrant_connection import QdrantConnection, QdrantPlace

SCOPE = Scope(1, 1)
VECTORS = unit(600, seed=1)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.qdrant_connection.FIRST_WAIT", 0.001)
    monkeypatch.setattr("indexes.qdrant_connection.LONGEST_WAIT", 0.01)


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, for a script that says what happens to each."""
    monkeypatch.setattr("indexes.qdrant_collection.UPSERTS_AT_ONCE", 1)


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    with FakeQdrant() as server:
        yield server


def collection_on(url: str, **place: Any) -> QdrantCollection:
    return QdrantCollection(QdrantConnection(QdrantPlace(url, **place)), "me", "space", 8)


def points(count: int) -> list[Point]:
    return [Point(id_, id_, id_, VECTORS[id_ - 1], f"river word{id_}") for id_ in range(1, count + 1)]


FAULTS = (Status(500), Status(503), Status(429), Status(429, retry_after=1), Status(408), Drop(), Lost(), Nonsense())


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_passing_fault_is_not_noticed(fake: FakeQdrant, fault: Any) -> None:
    """At every request there is, twice in a row: nothing is lost and nothing is there twice."""
    collection = collection_on(fake.url)
    for step in (
        collection.ensure,
        lambda: collection.put(SCOPE, points(600)),
        lambda: collection.remove(np.array([600])),
        lambda: collection.remove_versions(1, [599]),
        lambda: collection.set_attributes(1, 1, {"x": 1}),
    ):
        fake.script(*[fault, fault, Pass()] * 12)
        step()
    fake._steps.clear()
    fake.script(fault, fault)
    [near, words] = collection.search(SCOPE, [Leg(VECTORS[6], 1), Leg("word7", 5)])
    assert near.ids.tolist() == words.ids.tolist() == [7]
    assert collection.count(SCOPE) == 598


@pytest.mark.usefixtures("in_order")
def test_a_lasting_fault_ends_as_try_later_and_the_same_call_again_completes_it(fake: FakeQdrant) -> None:
    collection = collection_on(fake.url)
    collection.ensure()
    fake.script(Pass(), *[Status(503, "Service unavailable")] * 5)
    with pytest.raises(TryLater, match="Service unavailable") as caught:
        collection.put(SCOPE, points(600))
    assert caught.value.code == "engine_busy"
    assert collection.count(SCOPE) in (256, 344)  # what was under way is finished
    collection.put(SCOPE, points(600))
    assert collection.count(SCOPE) == 600


def test_of_requests_at_once_one_that_fails_fails_all(fake: FakeQdrant) -> None:
    collection = collection_on(fake.url, tries=1)
    collection.ensure()
    fake.script(Pass(), Status(503))
    with pytest.raises(TryLater):
        collection.put(SCOPE, points(600))
    collection.put(SCOPE, points(600))
    assert collection.count(SCOPE) == 600


NO_SPACE = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"


@pytest.mark.parametrize("answer", [Status(500, NO_SPACE), Status(507, "Insufficient Storage")], ids=repr)
def test_a_full_disk_is_named_and_nothing_is_lost(fake: FakeQdrant, answer: Status) -> None:
    """What a server says, word for word; reading goes on. To ask again at once makes no room."""
    collection = collection_on(fake.url)
    collection.ensure()
    collection.put(SCOPE, points(1))
    for write in (
        lambda: collection.put(SCOPE, points(2)),
        lambda: collection.remove(np.array([1])),
        lambda: collection.set_attributes(1, 1, {"x": 1}),
    ):
        before = len(fake.requests)
        fake.script(answer)
        with pytest.raises(TryLater, match="The disk of Qdrant") as caught:
            write()
        assert caught.value.code == "storage_full"
        assert len(fake.requests) == before + 1
    assert collection.search(SCOPE, [Leg("river", 5)])[0].ids.tolist() == [1]
    collection.put(SCOPE, points(2))
    assert collection.count(SCOPE) == 2


def test_an_upsert_that_is_late_is_repeated_and_counts_once(fake: FakeQdrant) -> None:
    """The engine takes the points, and the answer comes after the client has given it up."""
    collection = collection_on(fake.url, timeout=1)
    collection.ensure()
    late = iter([1.5])
    fake.before = lambda path: time.sleep(next(late, 0.0) if path.endswith("/points") else 0.0)
    collection.put(SCOPE, points(2))
    assert sum(path.startswith("PUT") and "/points" in path for path in fake.calls()) == 2
    time.sleep(1.0)
    assert collection.count(SCOPE) == 2


def test_a_commit_that_failed_can_be_repeated(fake: FakeQdrant) -> None:
    from indexes.keyword import KeywordEntry
    from indexes.qdrant import QdrantKeywordIndex

    collection = collection_on(fake.url)
    collection.ensure()
    index = QdrantKeywordIndex(collection, SCOPE)
    index.add([KeywordEntry(1, "river"), KeywordEntry(2, "stone")])
    index.remove(np.array([1]))
    fake.script(*[Drop()] * 5)
    with pytest.raises(TryLater):
        index.commit()
    index.commit()
    assert len(index) == 1
    assert index.search("stone", 5).ids.tolist() == [2]


def test_an_unreachable_engine_says_so_at_the_first_call_and_not_before() -> None:
    with FakeQdrant() as server:
        url = server.url
    collection = collection_on(url)
    with pytest.raises(TryLater, match=url) as caught:
        collection.ensure()
    assert caught.value.code == "engine_unreachable"


def test_a_silent_engine_is_given_up(fake: FakeQdrant) -> None:
    fake.script(Hang(5.0), Hang(5.0))
    with pytest.raises(TryLater, match="nothing for 1 second") as caught:
        collection_on(fake.url, timeout=1, tries=1).ensure()
    assert caught.value.code == "engine_unreachable"


@pytest.mark.parametrize("key", [None, "wrong"])
def test_wrong_credentials_are_named_and_not_tried_again(key: str | None) -> None:
    with FakeQdrant(api_key="right") as server:
        with pytest.raises(TryLater, match="API key") as caught:
            collection_on(server.url, api_key=key).ensure()
        assert caught.value.code == "wrong_credentials"
        assert "wrong" not in caught.value.message
        assert len(server.requests) == 1
        collection_on(server.url, api_key="right").ensure()


def test_a_key_in_the_clear_is_warned_of_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    place = QdrantPlace("http://127.0.0.1:1", "geheim")
    with caplog.at_level(logging.WARNING):
        QdrantConnection(place)
    assert "unencrypted" in caplog.text
    assert "geheim" not in caplog.text + repr(place)


@pytest.mark.parametrize("version", ["1.18.2", "1.9.0", "0.11.1", "dev", ""])
def test_a_server_too_old_is_refused_before_anything_is_made(version: str) -> None:
    with FakeQdrant(version=version) as server:
        with pytest.raises(ChangeRequest, match=r"1\.19 or later") as caught:
            collection_on(server.url).ensure()
        assert caught.value.code == "engine_too_old"
        assert server.calls() == ["GET /"]


@pytest.mark.parametrize("version", ["1.19.0", "1.20.1-dev", "2.0.0"])
def test_a_server_new_enough_is_asked_once(version: str) -> None:
    with FakeQdrant(version=version) as server:
        collection = collection_on(server.url)
        collection.ensure()
        collection.ensure()
        assert server.calls().count("GET /") == 1


def test_what_answers_but_is_no_qdrant_is_named(fake: FakeQdrant) -> None:
    fake.script(*[Nonsense()] * 5)
    with pytest.raises(TryLater, match="no answer of Qdrant") as caught:
        collection_on(fake.url).ensure()
    assert caught.value.code == "bad_answer"


@pytest.mark.parametrize("url", ["localhost:6333", "qdrant", "ftp://x:1", "http://", "http://[::1", "http://x:y"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ChangeRequest) as caught:
        QdrantConnection(QdrantPlace(url))
    assert caught.value.code == "bad_settings"


def test_a_collection_that_is_gone_is_named_for_whoever_can_fill_it_again(fake: FakeQdrant) -> None:
    collection = collection_on(fake.url)
    collection.ensure()
    collection.drop()
    for use in (
        lambda: collection.put(SCOPE, points(1)),
        lambda: collection.search(SCOPE, [Leg("river", 1)]),
        lambda: collection.count(SCOPE),
    ):
        with pytest.raises(TryLater) as caught:
            use()
        assert caught.value.code == "collection_missing"


def test_a_refused_request_says_why_and_is_not_tried_again(fake: FakeQdrant) -> None:
    collection = collection_on(fake.url)
    collection.ensure()
    before = len(fake.requests)
    fake.script(Status(400, "Wrong input: Vector dimension error"))
    with pytest.raises(ChangeRequest, match="Vector dimension error") as caught:
        collection.put(SCOPE, points(1))
    assert caught.value.code == "engine_refused"
    assert len(fake.requests) == before + 1


def test_two_that_make_the_same_collection_at_once_both_have_it(fake: FakeQdrant) -> None:
    """The second asks before the first has made it, and is told that it exists."""
    first, second = collection_on(fake.url), collection_on(fake.url)
    exists = second._call
    second._call = lambda method, **more: (  # type: ignore[method-assign]
        (first.ensure(), False)[1] if method == "collection_exists" and not fake._indexes else exists(method, **more)
    )
    second.ensure()
    first.put(SCOPE, points(3))
    assert second.count(SCOPE) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_local_mode_has_the_same_errors(tmp_path: Path) -> None:
    connection = QdrantConnection(QdrantPlace(folder=tmp_path))
    collection = QdrantCollection(connection, "me", "space", 8)
    with pytest.raises(TryLater) as missing:
        collection.count(SCOPE)
    assert missing.value.code == "collection_missing"
    with pytest.raises(TryLater, match="another process") as busy:
        QdrantConnection(QdrantPlace(folder=tmp_path))
    assert busy.value.code == "engine_busy"
    collection.ensure()
    collection.put(SCOPE, points(9))
    connection.close()
    connection.close()
    with pytest.raises(RagError) as closed:
        collection.count(SCOPE)
    assert closed.value.code == "engine_closed"
    again = QdrantConnection(QdrantPlace(folder=tmp_path))
    assert QdrantCollection(again, "me", "space", 8).count(SCOPE) == 9
    again.close()
    del busy
    gc.collect()  # local mode leaves the lock's file open where it does not get the lock


def test_without_the_package_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    for module in ("indexes.qdrant_collection", "indexes.qdrant_connection", "indexes.qdrant_filters"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(Unsupported, match="pip install qdrant-client"):
        resolve("index", {"qdrant": "indexes.qdrant_collection:QdrantCollection"}, "rag.no_such_group", "qdrant")
