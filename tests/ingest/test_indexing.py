"""An engine of its own follows the catalog through faults: points before the flip, clean-up, what it missed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from indexes.errors import ChangeRequest, TryLater
from indexes.filters import parse_filter
from ingest import indexing, intake, move
from rag.access import Caller
from rag.backend import Backend
from rag.catalog import schema
from rag.catalog.records import Store
from rag.embedders.toy import ToyEmbedder
from rag.retrieve import Mode, SearchOptions, retrieve
from rag.settings import Settings
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.fakes.openai_server import Drop, Status
from tests.fakes.qdrant_server import FakeQdrant
from tests.ingest.test_runner import wait_for
from tests.installations import Process
from tests.postgres import Postgres

MODES: tuple[Mode, ...] = ("dense", "keyword", "hybrid")


@pytest.fixture
def engine() -> Iterator[FakeQdrant]:
    with FakeQdrant() as server:
        yield server


@pytest.fixture
def settings(engine: FakeQdrant, tmp_path: Path) -> Settings:
    return toy_settings(tmp_path, vector_index="qdrant", keyword_index="qdrant", qdrant__url=engine.url)


def found(backend: Backend, store: Store, question: str, **options: Any) -> list[str]:
    return [hit.text for hit in retrieve(backend, [store], question, SearchOptions(**options)).candidates]


def points(engine: FakeQdrant) -> dict[int, dict[str, Any]]:
    """The payload of every point of every collection."""
    with engine.quiet():
        collections = [collection.name for collection in engine.engine.get_collections().collections]
        every = [point for name in collections for point in engine.engine.scroll(name, limit=10_000)[0]]
    return {point.id: point.payload for point in every}


def test_hidden_documents_are_neither_found_nor_counted(settings: Settings, engine: FakeQdrant) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        reader = backend.for_caller(Caller("default", frozenset({"query"}), permissions=frozenset({"x"})))

        def told() -> list[Any]:
            asked = [retrieve(reader, [store], "lapwings fly", SearchOptions(mode=mode)) for mode in MODES]
            return [found.candidates for found in asked]

        add_text(backend, store, "a.txt", "A text about lapwings.")
        add_text(backend, store, "b.txt", "A text about dunlins that fly.", {"topic": "b"})
        wait_until_idle(backend)
        before = told()
        assert all(len(found) for found in before)
        for number in range(3):
            document = add_text(backend, store, f"hidden {number}", f"Lapwings {number}.", {"secret": number})
            wait_until_idle(backend)
            intake.set_attributes(backend, store, document.file_public_id, permissions=["hr"])
        assert told() == before
        assert len(found(backend, store, "lapwings", mode="keyword")) == 4
        unknown = parse_filter({"type": "eq", "key": "secret", "value": 1})
        assert len(found(backend, store, "lapwings", condition=unknown)) == 1
        with pytest.raises(ChangeRequest):
            found(reader, store, "lapwings", condition=unknown)
        assert {tuple(payload["tags"]) for payload in points(engine).values()} == {('""',), ('"hr"',)}


def test_a_document_is_found_replaced_and_gone_and_leaves_no_points(settings: Settings, engine: FakeQdrant) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        for text in ("A text about lapwings.", "A text about dunlins."):
            add_text(backend, store, "a.txt", text)
            wait_until_idle(backend)
            for mode in ("dense", "keyword", "hybrid"):
                assert found(backend, store, text, mode=mode) == [text]
        wait_for(lambda: len(points(engine)) == 1)
        intake.delete_documents(backend, [all_documents(backend, store)["a.txt"]])
        assert found(backend, store, "dunlins") == []
        assert points(engine) == {}


def test_an_engine_that_fails_now_and_then_is_tried_again(settings: Settings, engine: FakeQdrant) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about knots.")
        wait_until_idle(backend)
        engine.script(Status(503), Drop(), Status(503), Status(500))
        add_text(backend, store, "b.txt", "Another text about knots.")
        wait_until_idle(backend)
        there = all_documents(backend, store)
        assert {document.state for document in there.values()} == {"completed"}
        assert len(found(backend, store, "knots")) == 2


NO_SPACE = "Service internal error: No space left on device: WAL buffer size exceeds available disk space"


SAID = {"away": "reached", "key": "API key", "version": "1.19 or later", "foreign": "not made by", "full": "is full"}


@pytest.mark.parametrize("fault", SAID)
def test_an_engine_that_cannot_be_used_is_named_at_the_document_which_can_be_tried_again(
    settings: Settings, engine: FakeQdrant, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what needs no engine is done meanwhile."""
    # Seven tries take a minute.
    monkeypatch.setattr("ingest.runner.STEP_WAIT", 0.01)
    monkeypatch.setattr("indexes.qdrant_connection.FIRST_WAIT", 0.001)
    with open_backend(settings, jobs=False) as backend:
        store = intake.create_store(backend, "s")
        assert backend.remote(backend.live_generation(store)) is not None
    with open_backend(toy_settings(settings.data), jobs=False) as backend:
        here = intake.create_store(backend, "here")
    mend = _break(engine, fault)
    with open_backend(settings) as backend:
        for into in (store, here):
            add_text(backend, into, "a.txt", "A text about dotterels.")
        wait_until_idle(backend)
        assert all_documents(backend, here)["a.txt"].state == "completed"
        document = all_documents(backend, store)["a.txt"]
        assert document.state == "failed"
        assert SAID[fault] in str(document.error_message)
    mend()
    with open_backend(settings) as backend:
        assert intake.retry(backend, document)
        wait_until_idle(backend)
        assert found(backend, store, "dotterels") == ["A text about dotterels."]


def _break(engine: FakeQdrant, fault: str) -> Callable[[], None]:
    """Let something be wrong with an engine. Returns what puts it right."""
    if fault == "key":
        engine.api_key = "another"
        return lambda: setattr(engine, "api_key", None)
    if fault == "version":
        engine.version = "1.18.2"
        return lambda: setattr(engine, "version", "1.19.2")
    if fault == "foreign":
        return _foreign(engine)
    wrong = Drop() if fault == "away" else Status(500, NO_SPACE)
    engine.before = lambda request: engine.script(wrong) if fault == "away" or request.endswith("/points") else None
    return lambda: setattr(engine, "before", lambda _: None)


def _foreign(engine: FakeQdrant) -> Callable[[], None]:
    """Put somebody else's collection, of another width, in the place of ours."""
    from qdrant_client import models

    [collection] = engine.engine.get_collections().collections
    engine.engine.delete_collection(collection.name)
    params = {"dense": models.VectorParams(size=5, distance=models.Distance.COSINE)}
    engine.engine.create_collection(collection.name, params)
    return lambda: engine.engine.delete_collection(collection.name)


def test_what_an_engine_missed_is_told_it_later(
    settings: Settings, engine: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.runner.SETTLE_EVERY", 0.2)
    with open_backend(settings) as backend:
        store, other = intake.create_store(backend, "s"), intake.create_store(backend, "other")
        for here in (store, other):
            add_text(backend, here, "a.txt", "A text about godwits.", {"seen": "no"})
        wait_until_idle(backend)
        document = all_documents(backend, store)["a.txt"]
        real = backend.remotes.collection

        def away(space_id: int) -> Any:
            raise TryLater("The engine is away.", code="engine_unreachable")

        monkeypatch.setattr(backend.remotes, "collection", away)
        with pytest.raises(TryLater):
            intake.set_attributes(backend, store, document.file_public_id, {"seen": "yes"})
        intake.delete_store(backend, other)
        assert len(points(engine)) == 2
        monkeypatch.setattr(backend.remotes, "collection", real)
        seen = parse_filter({"type": "eq", "key": "seen", "value": "yes"})
        wait_for(lambda: found(backend, store, "godwits", condition=seen) == ["A text about godwits."])
        wait_for(lambda: len(points(engine)) == 1)


FILTERS: list[dict[str, Any]] = [
    {"type": type_, "key": key, "value": value}
    for type_, key, value in (
        ("eq", "colour", "brown"),
        ("ne", "colour", "brown"),
        ("eq", "colour", "blue"),
        ("eq", "colour", 1),
        ("in", "colour", ["brown", True]),
        ("nin", "colour", []),
        ("eq", 'a.b"c', 1),
        ("eq", 'a.b"c', "1"),
        ("gt", "tame", True),
        ("eq", "tame", False),
        ("eq", "size", 3),
        ("in", "size", []),
        ("eq", "ghost", 1),
    )
]
FILTERS.append({"type": "or", "filters": [FILTERS[0], {"type": "and", "filters": [FILTERS[3], FILTERS[-1]]}]})


def outcomes(backend: Backend, store: Store) -> list[Any]:
    """What each filter finds, or the words in which it is refused."""

    def outcome(condition: dict[str, Any]) -> Any:
        try:
            return sorted(found(backend, store, "ruffs", condition=parse_filter(condition)))
        except ChangeRequest as error:
            return error.code, error.message, error.param

    return [outcome(condition) for condition in FILTERS]


def test_a_filter_is_answered_or_refused_in_the_same_words_as_in_memory(settings: Settings, tmp_path: Path) -> None:
    stages = []
    for made in (settings, toy_settings(tmp_path / "memory")):
        with open_backend(made) as backend:
            store = intake.create_store(backend, "s")
            seen = [outcomes(backend, store)]
            add_text(backend, store, "ghost.txt", " ", {"ghost": 1})  # which fails, and so never answers
            add_text(backend, store, "a.txt", "A text about ruffs.", {"colour": "brown", 'a.b"c': 1})
            add_text(backend, store, "b.txt", "Another text about ruffs.", {"colour": "blue", "tame": False})
            wait_until_idle(backend)
            seen.append(outcomes(backend, store))
            other = all_documents(backend, store)["b.txt"]
            intake.set_attributes(backend, store, other.file_public_id, {"colour": 1, "size": 3})
            seen.append(outcomes(backend, store))
            intake.delete_documents(backend, list(all_documents(backend, store).values()))
            seen.append(outcomes(backend, store))
            stages.append(seen)
    assert stages[0] == stages[1]
    nothing, first, second, gone = stages[0]
    assert nothing == gone == [[]] * len(FILTERS), "without any document there is nothing to judge by"
    codes = [outcome[0] if isinstance(outcome, tuple) else len(outcome) for outcome in first]
    ill, unknown = "filter_type", "unknown_filter_key"
    assert codes == [1, 1, 1, ill, ill, 2, 1, ill, ill, 1, unknown, unknown, unknown, ill]
    assert first[10][1] == "No document has an attribute 'size'. Known attributes: 'a.b\"c', 'colour', 'tame'."
    assert [len(second[3]), second[9][0], len(second[10])] == [1, unknown, 1]


def test_an_engine_that_lost_everything_is_filled_again_without_embedding(
    settings: Settings, engine: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        for number in range(5):
            add_text(backend, store, f"{number}.txt", f"Text {number} about sanderlings.")
        wait_until_idle(backend)
        before = points(engine)
    for collection in engine.engine.get_collections().collections:
        engine.engine.delete_collection(collection.name)
    monkeypatch.setattr(ToyEmbedder, "embed_documents", lambda *_: pytest.fail("a text was embedded again"))
    with open_backend(settings) as backend:
        assert points(engine) == before
        assert len(found(backend, backend.find_store("s"), "sanderlings", mode="keyword")) == 5


def test_what_a_crash_left_is_removed_and_what_it_lost_is_written(settings: Settings, engine: FakeQdrant) -> None:
    from indexes.qdrant_collection import Point

    with open_backend(settings, jobs=False) as backend:
        store = intake.create_store(backend, "s")
        generation = backend.live_generation(store)
        remote = backend.remote(generation)
        assert remote is not None
        remote.collection.put(remote.scope, [Point(999, 7, 777, text="left behind")])
    with open_backend(settings) as backend:
        add_text(backend, store, "a.txt", "A text about stints.")
        wait_until_idle(backend)
        [kept] = [number for number in points(engine) if number != 999] or [0]
        assert 999 not in points(engine)
        remote = backend.remote(generation)
        assert remote is not None
        remote.collection.remove(np.array([kept]))
        assert indexing.reconcile(backend, generation) == 1
        assert list(points(engine)) == [kept]
        assert indexing.reconcile(backend, generation) == 0


def test_what_is_not_visible_yet_hides_nothing(settings: Settings) -> None:
    """Many unpublished points nearer to the question than the only visible one."""
    from indexes.qdrant_collection import Point

    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about plovers, written with many other words around it.")
        add_text(backend, store, "b.txt", "plovers plovers " + " ".join(f"plovers{i}" for i in range(5)))
        wait_until_idle(backend)
        generation = backend.live_generation(store)
        remote = backend.remote(generation)
        assert remote is not None
        vector = backend.embedder(generation).embed_queries(["plovers"])[0]
        hidden = _unpublished(backend, store, 60)
        remote.collection.put(
            remote.scope, [Point(number, 1, version, vector, "plovers plovers plovers") for number, version in hidden]
        )
        assert len(found(backend, store, "plovers", depth=10, limit=5)) == 2


def _unpublished(backend: Backend, store: Store, count: int) -> list[tuple[int, int]]:
    """Chunks of a document that is still at work: (chunk, version)."""
    from rag.catalog import chunks, documents
    from rag.catalog.chunks import NewChunk, NewVersion

    file = intake.upload(backend, "work.txt", "assistants", [b"work"])
    with backend.database.write() as connection:
        document = documents.put_document(connection, backend.caller, store, file, "work.txt", None)
        connection.execute(sa.update(schema.documents).values(batch="held").where(schema.documents.c.id == document.id))
        documents.advance(connection, [document], "embedding")
        new_version = NewVersion(document, title="w", media_type="text/plain", text_blob="0" * 64, characters=4)
        version = chunks.put_versions(connection, [new_version])[document.id]
        new = [NewChunk(n, 0, 4, None, 1, (), "", "work", bytes([n]) * 16) for n in range(count)]
        generation = backend.live_generation(store)
        chunks.put_chunks(connection, generation.chunk_set_id, generation.tenant, {version: new})
        numbers = connection.execute(sa.select(schema.chunks.c.id).where(schema.chunks.c.version_id == version))
        return [(number, version) for number in numbers.scalars()]


def test_one_leg_alone_cannot_lie_in_an_engine_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ChangeRequest, match="do not go together"):
        Backend(toy_settings(tmp_path, vector_index="qdrant"))


def test_who_moves_away_from_an_engine_owes_it_nothing(settings: Settings, engine: FakeQdrant, tmp_path: Path) -> None:
    """It may be gone for good, which is why one moves."""
    source = settings.model_copy(update={"data": tmp_path / "here"})
    with open_backend(source) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about ruffs.", {"seen": "no"})
        wait_until_idle(backend)
        file = all_documents(backend, store)["a.txt"].file_public_id
        engine.api_key = "another"
        with pytest.raises(TryLater):
            intake.set_attributes(backend, store, file, {"seen": "yes"})
    target = move.target_settings(source, data=tmp_path / "there", vector_index="faiss", keyword_index="tantivy")
    move.move(source, target, lambda *_: None)
    with open_backend(target) as backend:
        store = backend.find_store("s")
        for seen in ("yes", "again"):
            intake.set_attributes(backend, store, file, {"seen": seen})
            condition = parse_filter({"type": "eq", "key": "seen", "value": seen})
            assert found(backend, store, "ruffs", condition=condition) == ["A text about ruffs."]


# ---- what happens while points are on their way ---------------------------------------------------------------------


class Gate:
    """Holds one request that writes points, the first unless another number is given, until it is opened."""

    def __init__(self, engine: FakeQdrant, number: int = 1) -> None:
        self.reached, self.opened = Event(), Event()
        self._left = number
        engine.before = self

    def __call__(self, request: str) -> None:
        if not request.endswith("/points"):
            return
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            assert self.opened.wait(60)


@pytest.mark.parametrize("what", ["document", "store", "attempt"])
def test_what_is_deleted_while_its_points_are_on_their_way_leaves_none(
    settings: Settings, engine: FakeQdrant, what: str
) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        gate = Gate(engine)
        add_text(backend, store, "a.txt", "A text about whimbrels.")
        assert gate.reached.wait(20)
        document = all_documents(backend, store)["a.txt"]
        if what == "document":
            intake.delete_documents(backend, [document])
        elif what == "store":
            intake.delete_store(backend, store)
        else:
            assert intake.cancel(backend, document)
        gate.opened.set()
    assert points(engine) == {}


def test_what_is_deleted_while_an_engine_is_filled_leaves_no_points(settings: Settings, engine: FakeQdrant) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about curlews.")
        wait_until_idle(backend)
        with being_filled(backend, store, engine):
            intake.delete_documents(backend, [all_documents(backend, store)["a.txt"]])
        assert points(engine) == {}


def test_attributes_that_change_while_an_engine_is_filled_are_the_new_ones(
    settings: Settings, engine: FakeQdrant
) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about curlews.", {"secret": False})
        wait_until_idle(backend)
        document = all_documents(backend, store)["a.txt"]
        with being_filled(backend, store, engine):
            intake.set_attributes(backend, store, document.file_public_id, {"secret": True})
        open_ones = parse_filter({"type": "eq", "key": "secret", "value": False})
        assert found(backend, store, "curlews", condition=open_ones) == []


@contextmanager
def being_filled(backend: Backend, store: Store, engine: FakeQdrant) -> Iterator[None]:
    """An engine that lost a store's points gets them again, and what is done within comes while they are under way."""
    remote = backend.remote(backend.live_generation(store))
    assert remote is not None
    remote.collection.remove(np.array(list(points(engine))))
    gate = Gate(engine)
    with ThreadPoolExecutor(1) as threads:
        filling = threads.submit(indexing.reconcile, backend, backend.live_generation(store))
        assert gate.reached.wait(20)
        try:
            yield
        finally:
            gate.opened.set()
        assert filling.result(20) == 1


def test_an_engine_that_loses_everything_under_way_is_filled_without_a_restart(
    settings: Settings, engine: FakeQdrant
) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "0.txt", "Text 0 about sanderlings.")
        wait_until_idle(backend)
        for collection in engine.engine.get_collections().collections:
            engine.engine.delete_collection(collection.name)
        with pytest.raises(TryLater) as lost:
            found(backend, store, "sanderlings")
        assert lost.value.code == "collection_missing"
        add_text(backend, store, "1.txt", "Text 1 about sanderlings.")
        wait_until_idle(backend)
        assert {document.state for document in all_documents(backend, store).values()} == {"completed"}
        assert len(found(backend, store, "sanderlings")) == len(points(engine)) == 2


def test_who_waits_for_an_engine_keeps_nobody_from_what_is_open(settings: Settings, engine: FakeQdrant) -> None:
    with open_backend(settings, jobs=False) as backend:
        generation = backend.live_generation(intake.create_store(backend, "s"))
        there = backend.remote(generation)
        other = backend.ensure_space(backend.embedders.open("toy-256"))
        reached, opened = Event(), Event()
        engine.before = lambda _: (reached.set(), opened.wait(20))[0]
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(backend.remotes.collection, other)
            assert reached.wait(20)
            assert threads.submit(backend.remote, generation).result(5) is there
            assert not waiting.done()
            opened.set()


# ---- processes that die or stand still ------------------------------------------------------------------------------


@contextmanager
def worker_at_its_points(
    settings: Settings, backend: Backend, store: Store, gate: Gate, **more: str
) -> Iterator[Process]:
    """A worker in a process of its own that is given a document of some 700 chunks, and has come as far as the gate."""
    environment = {
        "RAG_EMBEDDER": "toy-384",
        "RAG_VECTOR_INDEX": "qdrant",
        "RAG_KEYWORD_INDEX": "qdrant",
        "RAG_QDRANT_URL": str(settings.qdrant.url),
        "RAG_INGEST_CHUNK_TOKENS": "32",
        **more,
    }
    process = Process("worker", backend.folder / "worker" if more else backend.folder, environment)
    process.start()
    try:
        process.await_ready()
        text = "\n\n".join(f"Paragraph {n} tells of avocets, " + "and on, " * 10 for n in range(700))
        add_text(backend, store, "a.txt", text)
        assert gate.reached.wait(60)
        yield process
    finally:
        process.stop()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_worker_that_is_killed_among_its_points_leaves_none_too_many_or_too_few(
    settings: Settings, engine: FakeQdrant, deleted: bool
) -> None:
    settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"chunk_tokens": 32})})
    gate = Gate(engine, number=2)
    with open_backend(settings, jobs=False) as backend:
        intake.create_store(backend, "other")
        store = intake.create_store(backend, "s")
        with worker_at_its_points(settings, backend, store, gate) as worker:
            worker.stop(signal.SIGKILL)
        if deleted:
            intake.delete_store(backend, store)
        gate.opened.set()
        wait_for(lambda: bool(points(engine)))
    with open_backend(settings) as backend:
        wait_until_idle(backend)
        with backend.database.read() as connection:
            there = set(connection.execute(sa.select(schema.chunks.c.id)).scalars())
        assert (len(there) > 512) is not deleted
        assert set(points(engine)) == there


def test_a_worker_that_wakes_among_its_points_when_all_is_over_takes_them_back(
    settings: Settings, engine: FakeQdrant, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still while another takes its document over, publishes it, and the document is deleted."""
    monkeypatch.setattr("ingest.runner.DEAD_SECONDS", 4.0)
    with postgres.database() as url:
        shared = {"catalog": SecretStr(url), "blobs": SecretStr((tmp_path / "blobs").as_uri())}
        shared["ingest"] = settings.ingest.model_copy(update={"chunk_tokens": 32})
        settings = settings.model_copy(update=shared)
        gate = Gate(engine)
        environment = {"RAG_CATALOG": url, "RAG_BLOBS": (tmp_path / "blobs").as_uri()}
        with open_backend(settings, jobs=False) as observer:
            store = intake.create_store(observer, "s")
            with worker_at_its_points(settings, observer, store, gate, **environment) as worker:
                worker.send(signal.SIGSTOP)
                with open_backend(settings) as backend:
                    wait_until_idle(backend)
                    document = all_documents(backend, store)["a.txt"]
                    assert (document.state, document.attempt) == ("completed", 2)
                    intake.delete_documents(backend, [document])
                assert points(engine) == {}
                gate.opened.set()
                wait_for(lambda: bool(points(engine)))
                worker.send(signal.SIGCONT)
                wait_for(lambda: not points(engine), 60)
