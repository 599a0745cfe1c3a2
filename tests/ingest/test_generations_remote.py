"""Generations whose indexes lie in an engine of their own: who is told of what; no space answers for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from indexes.filters import parse_filter
from ingest import backfill, indexing, intake
from rag import generations
from rag.catalog import schema
from rag.embedders.toy import ToyEmbedder
from tests.backends import toy_settings
from tests.fakes.openai_server import Drop
from tests.fakes.qdrant_server import FakeQdrant
from tests.ingest.by_hand import ByHand, by_hand
from tests.ingest.test_generations import count, refused

REMOTE = {"vector_index": "qdrant", "keyword_index": "qdrant"}


@pytest.fixture
def engine() -> Iterator[FakeQdrant]:
    with FakeQdrant() as server:
        yield server


@pytest.fixture
def world(engine: FakeQdrant, tmp_path: Path) -> Iterator[ByHand]:
    """A live generation in memory, and an engine beside it that is not used yet."""
    with by_hand(toy_settings(tmp_path, qdrant__url=engine.url)) as made:
        for number in range(4):
            made.put(f"{number}.txt", f"Text {number} about knots.", {"seen": "no"})
        yield made


def points(engine: FakeQdrant) -> Counter[str]:
    """How many points each collection holds."""
    with engine.quiet():
        names = [collection.name for collection in engine.engine.get_collections().collections]
        return Counter({name: len(engine.engine.scroll(name, limit=1_000)[0]) for name in names})


def test_a_candidate_in_an_engine_is_told_of_everything_and_taken_out_at_the_end(
    world: ByHand, engine: FakeQdrant
) -> None:
    with pytest.raises(Exception, match="do not go together"):
        world.candidate(vector_index="qdrant", keyword_index="tantivy")
    other = ByHand(world.backend, intake.create_store(world.backend, "other"))
    other.put("other.txt", "Another store's text about knots.")
    new, beside = world.ready(embedder="toy-384", **REMOTE), other.ready(embedder="toy-384", **REMOTE)
    assert new.space_id == beside.space_id
    named = {"generation": new.public_id}
    assert points(engine).total() == 5
    for mode in ("dense", "keyword", "hybrid"):
        assert len(world.found("knots", mode=mode, **named)) == 4
    document = world.document("0.txt")
    assert document is not None
    intake.set_attributes(world.backend, world.store, document.file_public_id, {"seen": "yes"})
    seen = parse_filter({"type": "eq", "key": "seen", "value": "yes"})
    assert list(world.found("knots", condition=seen, **named)) == ["Text 0 about knots."]
    world.delete("1.txt")
    world.put("2.txt", "Text 2 anew about knots.")
    world.fill()
    assert points(engine).total() == 4
    assert "Text 2 anew about knots." in world.found("knots", **named)
    world.promote(new)
    world.put("late.txt", "A late text about knots.")  # before anybody fills anything
    assert "A late text about knots." in world.found("knots")
    assert indexing.reconcile(world.backend, world.now(new)) == 0
    world.fill()
    generations.roll_back(world.backend, world.store)
    assert "A late text about knots." in world.found("knots")
    generations.retire(world.backend, world.store, new.public_id)
    assert points(engine).total() == 5
    world.empty()
    assert points(engine).total() == 1
    assert len(other.found("knots", generation=beside.public_id)) == 1
    world.put("after.txt", "After that, one more text.")
    assert points(engine).total() == 1


def test_two_spaces_of_one_width_are_two_collections(world: ByHand, engine: FakeQdrant) -> None:
    both = [world.ready(embedder=name, **REMOTE) for name in ("toy-384", "toy-384-b")]
    assert sorted(points(engine).values()) == [4, 4]
    for one in both:
        embedder = world.backend.embedder(one)
        question = embedder.embed_queries(["knots"])[0]
        for text, score in world.found("knots", mode="dense", generation=one.public_id).items():
            assert score == pytest.approx(float(embedder.embed_documents([text])[0] @ question), abs=1e-5)
    # One that has the other's name is not used, whatever its width.
    names = sorted(points(engine))
    collections = [world.backend.remotes._made(world.backend.space(one)) for one in both]
    assert sorted(collection.name for collection in collections) == names
    collections[0].name = collections[1].name
    refused(collections[0].ensure, "foreign_collection")


def test_an_engine_out_of_reach_holds_nothing_up_but_the_candidate(
    world: ByHand, engine: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.qdrant_connection.FIRST_WAIT", 0.001)
    monkeypatch.setattr(backfill, "FIRST_WAIT", 0.01)
    new = world.ready(embedder="toy-384", **REMOTE)
    engine.before = lambda _: engine.script(Drop())
    document = world.document("0.txt")
    assert document is not None
    intake.set_attributes(world.backend, world.store, document.file_public_id, {"seen": "yes"})
    world.put("1.txt", "Text 1 anew about knots.")
    world.delete("2.txt")
    assert next(iter(world.found("anew"))) == "Text 1 anew about knots."
    world.filler.step()
    assert world.told(new).filled.lag == 3  # type: ignore[union-attr]
    assert world.now(new).state == "ready"
    with pytest.raises(Exception, match="lacks the last 3 changes"):
        world.promote(new, wait_seconds=0)
    engine.before = lambda _: None
    engine._steps.clear()
    monkeypatch.setattr("rag.remote.LEFT_ALONE", 0.0)
    indexing.settle(world.backend)
    monkeypatch.setattr(world.filler, "_waits", {})
    world.fill()
    indexing.reconcile_where_needed(world.backend)
    world.promote(new)
    assert points(engine).total() == 3
    seen = parse_filter({"type": "eq", "key": "seen", "value": "yes"})
    assert list(world.found("knots", condition=seen)) == ["Text 0 about knots."]
    assert set(world.found("knots", mode="keyword")) == {
        "Text 0 about knots.",
        "Text 1 anew about knots.",
        "Text 3 about knots.",
    }


def test_a_failed_one_is_told_of_nothing_and_filled_anew(
    world: ByHand, engine: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = world.ready(embedder="toy-384", **REMOTE)
    real = ToyEmbedder.embed_documents
    with monkeypatch.context() as patch:
        patch.setattr(ToyEmbedder, "embed_documents", _failing(real))
        world.put("late.txt", "A late text about knots.")
        world.fill()
    assert world.now(new).state == "failed"
    before = len(engine.requests)
    document = world.document("0.txt")
    assert document is not None
    intake.set_attributes(world.backend, world.store, document.file_public_id, {"seen": "yes"})
    world.delete("1.txt")
    assert len(engine.requests) == before
    assert count(world.backend, schema.index_tasks) == 0
    generations.resume(world.backend, world.store, new.public_id)
    world.fill()
    assert world.now(new).state == "ready"
    assert points(engine).total() == 4
    seen = parse_filter({"type": "eq", "key": "seen", "value": "yes"})
    assert list(world.found("knots", condition=seen, generation=new.public_id)) == ["Text 0 about knots."]


def _failing(real: Any) -> Any:
    def embed(self: ToyEmbedder, texts: Any) -> Any:
        rows = real(self, texts)
        return rows[:0] if self.space.model == "toy-384" else rows

    return embed
