"""An engine of its own follows the catalog through faults: points before the flip, clean-up, what it missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from indexes.errors import ChangeRequest, TryLater
from indexes.filters import parse_filter
from ingest import indexing, intake
from rag.access import Caller
from rag.backend import Backend
from rag.catalog.records import Store
from rag.embedders.toy import ToyEmbedder
from rag.retrieve import Mode, SearchOptions, retrieve
from rag.settings import Settings
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.fakes.openai_server import Drop, Status
from tests.fakes.qdrant_server import FakeQdrant
from tests.ingest.test_runner import wait_for

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
    collections = [collection.name for collection in engine.engine.get_collections().collections]
    return {point.id: point.payload for name in collections for point in engine.engine.scroll(name, limit=10_000)[0]}


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
        with pytest.raises(TryLater):
            intake.delete_store(backend, other)
        assert len(points(engine)) == 2
        monkeypatch.setattr(backend.remotes, "collection", real)
        seen = parse_filter({"type": "eq", "key": "seen", "value": "yes"})
        wait_for(lambda: found(backend, store, "godwits", condition=seen) == ["A text about godwits."])
        wait_for(lambda: len(points(engine)) == 1)


def test_a_filter_by_a_key_that_nobody_has_is_refused(settings: Settings) -> None:
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about ruffs.", {"colour": "brown", 'a.b"c': 1})
        wait_until_idle(backend)
        for key, value, count in (("colour", "brown", 1), ('a.b"c', 1, 1), ("colour", "blue", 0)):
            condition = parse_filter({"type": "eq", "key": key, "value": value})
            assert len(found(backend, store, "ruffs", condition=condition)) == count
        with pytest.raises(ChangeRequest, match="size"):
            found(backend, store, "ruffs", condition=parse_filter({"type": "gt", "key": "size", "value": 3}))


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
        import numpy as np

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
    import sqlalchemy as sa

    from rag.catalog import chunks, documents, schema
    from rag.catalog.chunks import NewChunk

    file = intake.upload(backend, "work.txt", "assistants", [b"work"])
    with backend.database.write() as connection:
        document = documents.put_document(connection, backend.caller, store, file, "work.txt", None)
        connection.execute(sa.update(schema.documents).values(batch="held").where(schema.documents.c.id == document.id))
        documents.advance(connection, document.id, document.attempt, "embedding")
        version = chunks.put_version(
            connection, document, title="w", media_type="text/plain", text_blob="0" * 64, characters=4
        )
        new = [NewChunk(n, 0, 4, None, 1, (), "", "work", bytes([n]) * 16) for n in range(count)]
        generation = backend.live_generation(store)
        chunks.put_chunks(connection, version.id, generation.chunk_set_id, generation.tenant, new)
        numbers = connection.execute(sa.select(schema.chunks.c.id).where(schema.chunks.c.version_id == version.id))
        return [(number, version.id) for number in numbers.scalars()]


def test_one_leg_alone_cannot_lie_in_an_engine_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ChangeRequest, match="do not go together"):
        Backend(toy_settings(tmp_path, vector_index="qdrant"))
