"""Generations beside the live one: filled through crashes and faults, promoted by one of many, never half seen."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater
from ingest import backfill, intake, move
from ingest.exporting import export_store
from ingest.importing import import_store
from rag import generations
from rag.catalog import batches, changes, purge, schema, stores
from rag.catalog import generations as catalog
from rag.catalog.records import FOLLOWING, Generation
from rag.embedders.toy import ToyEmbedder
from rag.evaluation.gate import Verdict
from tests.backends import open_backend, toy_settings
from tests.ingest.by_hand import ByHand, by_hand
from tests.ingest.test_runner import wait_for

LONG = "The heron stands in the reeds and waits for fish. " * 40
STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}}


@pytest.fixture
def world(catalog_url: str, tmp_path: Path) -> Iterator[ByHand]:
    """On each kind of database, with a few documents in the space of toy-256."""
    with by_hand(toy_settings(tmp_path / "data", catalog=catalog_url)) as made:
        for number in range(5):
            made.put(f"{number}.txt", f"Text {number} about terns and the isle {number}.")
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ByHand]:
    """The same on SQLite only: for what no database decides."""
    with by_hand(toy_settings(tmp_path / "data")) as made:
        for number in range(5):
            made.put(f"{number}.txt", f"Text {number} about terns and the isle {number}.")
        yield made


def refused(act: Callable[[], Any], code: str, *words: str) -> str:
    """Check that something is refused by this name, with these words; the message."""
    with pytest.raises(RagError) as error:
        act()
    assert error.value.code == code
    assert all(word in error.value.message for word in words), error.value.message
    return error.value.message


def count(backend: Any, table: sa.Table, *conditions: Any) -> int:
    with backend.database.read() as connection:
        query = sa.select(sa.func.count()).select_from(table).where(*conditions)
        return int(connection.execute(query).scalar_one())


# ---- there and back --------------------------------------------------------------------------------------------------


def test_there_and_back_loses_nothing_and_embeds_nothing_twice(world: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = Counter[tuple[str, str]]()
    real = ToyEmbedder.embed_documents

    def counted(self: ToyEmbedder, texts: Sequence[str]) -> Any:
        if len(texts) > 1 or "new" in texts[0]:  # not the questions, nor what is embedded again to see the order
            embedded.update((self.space.model, text) for text in texts)
        return real(self, texts)

    old, before = world.live(), world.found("terns", mode="dense")
    new = world.candidate(embedder="toy-384")
    monkeypatch.setattr(ToyEmbedder, "embed_documents", counted)
    assert new.chunk_set_id == old.chunk_set_id
    assert (new.state, world.told(new).filled.documents) == ("building", 0)  # type: ignore[union-attr]
    world.fill()
    assert world.now(new).state == "ready"
    assert embedded == {("toy-384", text): 1 for text in before}
    shadow = world.found("terns", mode="dense", generation=new.public_id)
    assert set(shadow) == set(before)
    assert shadow != before
    assert world.found("terns", mode="dense") == before
    world.promote(new)
    assert (world.live().id, world.now(old).state) == (new.id, "standby")
    assert world.found("terns", mode="dense") == shadow
    world.put("new.txt", "A new text about terns.")
    world.delete("0.txt")
    world.fill()
    generations.roll_back(world.backend, world.store)
    assert set(embedded.values()) == {1}
    assert embedded["toy-256", "A new text about terns."] == embedded["toy-384", "A new text about terns."] == 1
    after = world.found("terns", mode="dense")
    assert after.keys() == before.keys() - {"Text 0 about terns and the isle 0."} | {"A new text about terns."}
    unchanged = after.keys() & before.keys()
    assert {text: after[text] for text in unchanged} == {text: before[text] for text in unchanged}
    assert [event.event for event in world.told(new).events] == ["created", "ready", "promoted", "replaced"]
    generations.roll_back(world.backend, world.store)  # and back to what was live last
    assert world.live().id == new.id


def test_only_one_of_two_promotions_wins_and_the_other_is_told_by_name(world: ByHand) -> None:
    candidates = [world.ready(embedder=name) for name in ("toy-384", "toy-384-b")]
    both = threading.Barrier(2)

    def gate(_connection: Connection, generation: Generation, live: Generation) -> Verdict:
        both.wait(10)  # both have seen which one is live
        return Verdict(True, "passed", f"{generation.id} instead of {live.id}")

    def act(generation: Generation) -> Generation | ChangeRequest:
        try:
            return world.promote(generation, gate=gate)
        except ChangeRequest as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(act, candidates))
    (winner,) = [end for end in ends if isinstance(end, Generation)]
    (loser,) = [end for end in ends if isinstance(end, ChangeRequest)]
    assert world.live().id == winner.id
    assert loser.code == "promoted_meanwhile"
    assert winner.public_id in loser.message
    assert sorted(world.now(one).state for one in candidates) == ["live", "ready"]
    events = [event.event for event in world.told(winner).events]
    assert events.count("promoted") == 1


def test_what_cannot_be_promoted_is_refused_by_name(world: ByHand) -> None:
    live = world.live()
    building = world.candidate(embedder="toy-384")
    world.fill(until=lambda: True)
    refused(lambda: world.promote(building), "generation_not_ready", building.public_id, "building")
    generations.retire(world.backend, world.store, building.public_id)
    refused(lambda: world.promote(building), "generation_retired", building.public_id)
    refused(lambda: world.promote(live), "generation_live", live.public_id)
    refused(lambda: generations.retire(world.backend, world.store, live.public_id), "generation_live")
    refused(lambda: generations.roll_back(world.backend, world.store), "no_standby")
    refused(lambda: generations.pause(world.backend, world.store, live.public_id), "generation_not_filled")
    other = ByHand(world.backend, intake.create_store(world.backend, "other", embedder="toy-384"))
    refused(lambda: world.promote(other.live()), "generation_not_found")
    with pytest.raises(NotThere):
        world.found("terns", generation=other.live().public_id)
    refused(lambda: world.found("terns", generation=building.public_id), "generation_not_searchable", "retired")
    assert world.live().id == live.id


def test_one_that_lags_is_not_promoted(world: ByHand) -> None:
    ready = world.ready(embedder="toy-384")
    generations.pause(world.backend, world.store, ready.public_id)
    world.put("late.txt", "A late text about terns.")
    assert world.fill() == 0
    assert world.told(ready).filled.lag == 1  # type: ignore[union-attr]
    refused(lambda: world.promote(ready, wait_seconds=0.1), "generation_paused", "Resume it")
    generations.resume(world.backend, world.store, ready.public_id)
    with pytest.raises(TryLater, match="could not catch up") as told:
        world.promote(ready, wait_seconds=0.1)
    assert told.value.code == "generation_behind"
    waiting = threading.Thread(target=world.promote, args=(ready,))
    waiting.start()  # it waits until somebody fills what is lacking
    world.fill()
    waiting.join(10)
    assert world.live().id == ready.id
    assert world.lacking(ready) == []


def test_the_gate_decides_and_force_is_recorded(small: ByHand) -> None:
    ready, live = small.ready(embedder="toy-384"), small.live()

    def gate(_connection: Connection, generation: Generation, now: Generation) -> Verdict:
        assert (generation.id, now.id) == (ready.id, live.id)
        return Verdict(False, "not_better", "nDCG@10 is .1 lower")

    refused(lambda: small.promote(ready, gate=gate), "gate_failed", "nDCG@10 is .1 lower")
    assert small.live().id == live.id
    small.promote(ready, gate=gate, force=True)
    promoted = small.told(ready).events[-1]
    assert promoted.body == {
        "forced": True,
        "instead_of": live.public_id,
        "verdict": {"passed": False, "reason": "not_better", "message": "nDCG@10 is .1 lower"},
    }
    assert promoted.caller == small.backend.caller.name


# ---- the fence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", ["parsed", "embedded", "indexed"])
def test_a_batch_that_was_made_for_another_generation_is_made_whole_first(world: ByHand, border: str) -> None:
    other = world.ready(embedder="toy-384", chunking=STATIC)
    batch = world.claim("late.txt", LONG)
    made_for = None
    world.pipeline.prepare(batch)
    if border != "parsed":
        made_for = world.pipeline.embed(batch)
    if border == "indexed":
        made_for = world.pipeline.index(batch, made_for)
    old = world.promote(other)
    assert made_for != old.id
    if border == "parsed":
        made_for = world.pipeline.embed(batch)
    if border != "indexed":
        made_for = world.pipeline.index(batch, made_for)
    seen: list[list[int]] = []
    real = world.pipeline._flip

    def flip(*given: Any) -> Any:
        done = real(*given)
        seen.append(world.lacking(other))
        return done

    world.pipeline._flip = flip  # type: ignore[method-assign, assignment]
    world.pipeline.publish(batch, made_for)
    assert seen
    assert not any(seen)
    hits = world.found("heron reeds fish")
    assert len(hits) > 1
    assert all(score is not None for score in hits.values())


def test_no_version_is_ever_visible_that_the_live_generation_lacks(world: ByHand) -> None:
    pair = [world.live(), world.ready(embedder="toy-384", chunking=STATIC)]
    stop, faults, seen = threading.Event(), list[str](), Counter[int]()

    def publish() -> None:
        for number in range(1_000):
            if stop.is_set():
                return
            world.put(f"{number % 7}.txt", f"{number} " + LONG[: 600 + number % 5 * 300])

    def fill() -> None:
        while not stop.is_set():
            world.filler.step()

    def look() -> None:
        while not stop.is_set():
            with world.backend.database.read() as connection:
                live = catalog.live_generation(connection, world.store.id)
                visible = changes.visible_versions(connection, world.store.id)
                width = world.backend.space(live).dimension
                rows = changes.read_rows(connection, visible, live.chunk_set_id, live.space_id, width)
                held = {int(version) for some in rows for version in some.version_ids}
                seen[live.id] += 1
                if set(visible) - held:
                    faults.append(f"{set(visible) - held} of {live.embedder}")

    threads = [threading.Thread(target=work) for work in (publish, fill, look)]
    for thread in threads:
        thread.start()
    flips, until = 0, time.monotonic() + 1.5
    while time.monotonic() < until:
        try:
            world.promote(pair[(flips + 1) % 2], wait_seconds=1.0)
            flips += 1
        except TryLater:
            continue
    stop.set()
    for thread in threads:
        thread.join(20)
    assert faults == []
    assert flips >= 2
    assert min(seen[one.id] for one in pair) > 0


# ---- faults ----------------------------------------------------------------------------------------------------------


def _nan(rows: Any) -> Any:
    rows[-1, 0] = np.nan
    return rows


BROKEN: dict[str, Callable[[Any], Any]] = {
    "embedder_not_finite": _nan,
    "embedder_wrong_width": lambda rows: rows[:, :-1],
    "embedder_wrong_count": lambda rows: rows[:0],
    "embedder_wrong_order": lambda rows: np.roll(rows, 1, axis=0),
    "embedder_not_unit": lambda rows: 2 * rows,
}


@pytest.mark.parametrize("code", BROKEN)
def test_an_embedder_that_breaks_fails_the_candidate_and_nothing_else(
    small: ByHand, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.found("terns")
    new = small.candidate(embedder="toy-384")
    real = ToyEmbedder.embed_documents

    def broken(self: ToyEmbedder, texts: Sequence[str]) -> Any:
        rows = real(self, texts)
        return rows if self.space.model == "toy-256" else BROKEN[code](rows)

    with monkeypatch.context() as patch:
        patch.setattr(ToyEmbedder, "embed_documents", broken)
        small.fill()
        failed = small.now(new)
        assert (failed.state, failed.error_code) == ("failed", code)
        assert "toy-384" in str(failed.error_message)
        assert count(small.backend, schema.vectors, schema.vectors.c.space_id == new.space_id) == 0
        small.put("meanwhile.txt", "Meanwhile, a text about plovers.")
        assert small.found("terns") == before | {
            text: score for text, score in small.found("terns").items() if "plovers" in text
        }
        refused(lambda: small.promote(new), "generation_failed", new.public_id)
        refused(lambda: small.found("terns", generation=new.public_id), "generation_not_searchable")
        if code != "embedder_wrong_order":
            refused(lambda: small.candidate(embedder="toy-384-b"), code)  # its space is new: it is calibrated first
    generations.resume(small.backend, small.store, new.public_id)
    small.fill()
    assert small.now(new).state == "ready"
    assert small.lacking(new) == []
    assert [event.event for event in small.told(new).events] == ["created", "failed", "resumed", "ready"]


def test_an_embedder_out_of_reach_is_waited_for(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    new = small.candidate(embedder="toy-384")

    def down(*_: object) -> Any:
        raise TryLater("The embedder is out of reach.")

    monkeypatch.setattr(backfill, "FIRST_WAIT", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(ToyEmbedder, "embed_documents", down)
        assert small.fill() == 1
        assert small.now(new).state == "building"
    time.sleep(0.06)
    small.fill()
    assert small.now(new).state == "ready"


class Died(BaseException):
    """The end of the process, as far as a test within it can have one."""


def dying_after(write: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Transactions, of which so many are to be had before the end."""
    left = iter(range(count))

    def dying(**given: Any) -> Any:
        if next(left, None) is None:
            raise Died
        return write(**given)

    return dying


def test_a_death_at_any_write_loses_little_and_repeats_nothing(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "VERSIONS_AT_ONCE", 2)
    new = small.candidate(embedder="toy-384", chunking=STATIC)
    real, embedded, deaths = small.backend.database.write, Counter[str](), 0
    of_toy = ToyEmbedder.embed_documents

    def counted(self: ToyEmbedder, texts: Sequence[str]) -> Any:
        if len(texts) > 1:  # not those that are embedded again to see their order
            embedded.update(texts)
        return of_toy(self, texts)

    monkeypatch.setattr(ToyEmbedder, "embed_documents", counted)
    for last in range(1, 100):
        small.begin_anew()
        small.backend.database.write = dying_after(real, last % 4 + 1)  # type: ignore[method-assign]
        try:
            small.fill()
            break
        except Died:
            deaths += 1
        finally:
            small.backend.database.write = real  # type: ignore[method-assign]
    assert deaths > 3
    assert small.now(new).state == "ready"
    assert small.lacking(new) == []
    # What was embedded is kept at the next write: a death costs one batch of two documents at most.
    assert embedded.total() - len(embedded) <= 2 * deaths


def test_one_worker_fills_and_another_takes_over_when_it_is_gone(world: ByHand) -> None:
    new = world.candidate(embedder="toy-384")
    with world.backend.database.write(shared=True) as connection:
        assert catalog.take(connection, new, world.worker) is not None
    mine = world.worker
    with world.backend.database.write() as connection:
        other = batches.join(connection, "another")
        assert catalog.take(connection, new, other) is None
        assert catalog.lacking(connection, other) == []
        stretch = catalog.next_stretch(connection, new, 10, 10_000)
        assert not catalog.advance(connection, new, other, stretch, None)
    world.begin_anew()
    assert world.worker != mine
    world.fill()
    assert world.now(new).state == "ready"
    with world.backend.database.write() as connection:
        assert not catalog.advance(connection, new, mine, stretch, None)


# ---- splitting -------------------------------------------------------------------------------------------------------


def test_another_chunking_splits_the_stored_text_and_a_document_keeps_its_own(small: ByHand) -> None:
    small.put("long.txt", LONG)
    own = small.backend
    file = intake.upload(own, "own.txt", "assistants", [LONG.replace("heron", "stork").encode()])
    sizes = {"max_chunk_size_tokens": 150, "chunk_overlap_tokens": 0}
    intake.attach(own, small.store, [intake.NewDocument(file, "own", chunking={"type": "static", "static": sizes})])
    small.run(small.claimed())
    live, new = small.live(), small.ready(embedder="toy-384", chunking=STATIC)
    assert new.chunk_set_id != live.chunk_set_id
    spans = {one.id: _spans(small, one) for one in (live, new)}
    assert len(spans[new.id]["long.txt"]) > len(spans[live.id]["long.txt"])
    assert len(spans[new.id]["own.txt"]) == len(spans[live.id]["own.txt"]) > 1
    for chunks in spans[new.id].values():
        assert all(text[start:end] == chunk for text, start, end, chunk in chunks)
    assert small.lacking(new) == []
    vectors = count(own, schema.vectors)
    small.promote(new)
    generations.roll_back(own, small.store)
    generations.retire(own, small.store, new.public_id)
    small.empty()
    assert count(own, schema.chunks, schema.chunks.c.chunk_set_id == new.chunk_set_id) == 0
    assert count(own, schema.vectors, schema.vectors.c.space_id == new.space_id) == 0
    assert count(own, schema.vectors) < vectors
    assert small.lacking(live) == []
    assert small.now(new).emptied


def _spans(world: ByHand, generation: Generation) -> dict[str, list[tuple[str, int, int, str]]]:
    """By file name the chunks of a generation: the document's text, start, end and the chunk's text."""
    chunks, versions, files = schema.chunks.c, schema.versions.c, schema.files.c
    query = (
        sa.select(files.filename, versions.text_blob, chunks.start, chunks.end, chunks.text)
        .join(schema.versions, versions.id == chunks.version_id)
        .join(schema.files, files.id == versions.file_id)
        .where(chunks.chunk_set_id == generation.chunk_set_id)
    )
    found: dict[str, list[tuple[str, int, int, str]]] = {}
    with world.backend.database.read() as connection:
        for name, blob, *rest in connection.execute(query):
            found.setdefault(name, []).append((world.backend.texts.read(blob), *rest))
    return found


def test_an_embedder_that_reads_less_gets_chunks_of_its_own(tmp_path: Path) -> None:
    embedders = {"narrow": {"provider": "toy", "model": "toy-384"}}
    with by_hand(toy_settings(tmp_path, embedders=embedders)) as world:
        world.put("long.txt", LONG)
        narrow = world.backend.embedders.open("narrow")
        narrow.limit = 100
        new = world.ready(embedder="narrow")
        assert new.chunk_set_id != world.live().chunk_set_id
        again = world.ready(embedder="narrow")
        assert again.chunk_set_id == new.chunk_set_id
        counts = [narrow.tokenizer.count(chunk) for *_, chunk in _spans(world, new)["long.txt"]]
        assert max(counts) <= 100
        world.promote(new)
        world.put("late.txt", LONG.replace("heron", "crane"))
        world.fill()
        assert world.lacking(again) == world.lacking(new) == []
        # What the first set holds is as its own embedder splits it, whoever is live.
        generations.roll_back(world.backend, world.store)
        first = world.live()
        assert len(_spans(world, first)["late.txt"]) == len(_spans(world, first)["long.txt"])


def test_chunks_that_two_embedders_share_are_split_for_the_one_that_reads_less(tmp_path: Path) -> None:
    embedders = {"narrow": {"provider": "toy", "model": "toy-384"}}
    with open_backend(toy_settings(tmp_path, embedders=embedders), jobs=False) as backend:
        narrow = backend.embedders.open("narrow")
        narrow.limit = 100
        world = ByHand(backend, intake.create_store(backend, "s", embedder="narrow"))
        world.put("long.txt", LONG)
        wide = world.ready(embedder="toy-256")
        assert wide.chunk_set_id == world.live().chunk_set_id
        world.promote(wide)
        world.put("late.txt", LONG.replace("heron", "crane"))
        late = _spans(world, wide)["late.txt"]
        assert len(late) > 3  # of 512 tokens it would be one or two
        assert max(narrow.tokenizer.count(chunk) for *_, chunk in late) <= 100


def test_retiring_keeps_what_others_share(world: ByHand) -> None:
    other_store = ByHand(world.backend, intake.create_store(world.backend, "other", embedder="toy-384"))
    other_store.put("shared.txt", "Text 1 about terns and the isle 1.")
    twins = [world.ready(embedder="toy-384") for _ in range(2)]
    assert twins[0].space_id == twins[1].space_id
    generations.retire(world.backend, world.store, twins[0].public_id)
    generations.retire(world.backend, world.store, twins[0].public_id)  # harmless
    world.empty()
    assert world.lacking(twins[1]) == []
    assert world.lacking(world.live()) == []
    generations.retire(world.backend, world.store, twins[1].public_id)
    world.empty()
    left = count(world.backend, schema.vectors, schema.vectors.c.space_id == twins[1].space_id)
    assert left == 1  # the other store's
    assert other_store.lacking(other_store.live()) == []
    assert world.lacking(world.live()) == []
    refused(lambda: generations.resume(world.backend, world.store, twins[1].public_id), "generation_not_filled")


# ---- views -----------------------------------------------------------------------------------------------------------


def test_a_view_of_a_candidate_skips_no_version_and_shows_none_in_part(
    small: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "VERSIONS_AT_ONCE", 2)
    monkeypatch.setattr(backfill, "EMBED_AT_ONCE", 1)
    monkeypatch.setattr(backfill, "TURN_SECONDS", 0.0)  # so that a turn ends in the middle of a document
    chance, backend = random.Random(1), small.backend
    new = small.candidate(embedder="toy-384", chunking=STATIC)
    seen, partly = set(), 0
    for round_ in range(45):
        source = f"{chance.randrange(10)}.txt"
        there = small.document(source)
        act = chance.random()
        if act < 0.6:
            small.filler.step()
        elif there is not None and act < 0.65:
            small.delete(source)
        elif there is not None and act < 0.7:
            intake.set_attributes(backend, small.store, there.file_public_id, {"round": round_})
        else:
            words = " ".join(f"gull {round_} {number}." for number in range(chance.choice((1, 50))))
            small.put(source, words, {"round": round_})
        if chance.random() < 0.1:
            backend.view(small.now(new)).position = -1  # it is built anew
        view, through = backend.view(small.now(new)), small.now(new).filled_through
        with backend.database.read() as connection:
            every = changes.visible_versions(connection, small.store.id)
            visible = changes.visible_versions(connection, small.store.id, through)
            rows, beyond = _rows(connection, new, visible), _rows(connection, new, set(every) - set(visible))
        assert sorted(int(id_) for ids in view._chunks_of.values() for id_ in ids[1]) == sorted(rows)
        assert view.vectors.ids().tolist() == sorted(rows)
        assert len(view.words) == len(rows)
        assert set(rows.values()) == set(visible)
        assert not set(visible) & set(small.lacking(new))
        seen.add(len(rows))
        partly += bool(beyond)
    assert len(seen) > 3
    assert partly > 3, "no document was ever there in part: this tells little"
    small.fill()
    view = backend.view(small.now(new))
    assert set(view._chunks_of) == set(backend.view(small.live())._chunks_of)


def _rows(connection: Connection, generation: Generation, versions: Collection[int]) -> dict[int, int]:
    """The chunks of these versions that have a vector, and the version of each."""
    found = {}
    where = generation.chunk_set_id, generation.space_id, 384
    for some in changes.read_rows(connection, sorted(versions), *where):
        found.update(zip(some.ids.tolist(), some.version_ids.tolist(), strict=True))
    return found


def test_a_view_of_one_that_lags_far_is_not_made_anew_each_time(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "VERSIONS_AT_ONCE", 1)
    new = small.candidate(embedder="toy-384")
    view = small.backend.view(small.now(new))
    vectors = view.vectors
    for number in range(4):
        small.put("again.txt", f"Again {number}.")
        with small.backend.database.write() as connection:
            seq = stores.current_seq(connection, small.store.id)
            assert seq is not None
            purge.prune_log(connection, small.store.id, seq=seq, kept=1)
        small.filler.step()
        view.follow()
    assert view.position < view.seen
    assert view.vectors is vectors
    small.fill()
    view.follow()
    assert view.vectors.ids().tolist() == small.backend.view(small.live()).vectors.ids().tolist()


# ---- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_goes_with_all_its_generations(world: ByHand) -> None:
    world.ready(embedder="toy-384", chunking=STATIC)
    world.candidate(embedder="toy-384-b")
    world.backend.view(world.live())
    intake.delete_store(world.backend, world.store)
    tables = (schema.generations, schema.generation_events, schema.chunk_sets, schema.chunks, schema.vectors)
    assert [count(world.backend, table) for table in tables] == [0] * len(tables)
    assert world.filler.step() is False


def test_an_export_carries_the_live_one_and_a_move_all(world: ByHand, tmp_path: Path) -> None:
    world.put("long.txt", LONG)
    new = world.ready(embedder="toy-384", chunking=STATIC)
    world.promote(new)
    half = world.candidate(embedder="toy-384-b")
    before = world.found("heron terns", mode="dense")
    export_store(world.backend, world.store, tmp_path / "s.zip", lambda *_: None)
    copy = ByHand(world.backend, import_store(world.backend, tmp_path / "s.zip", "copy", lambda *_: None))
    assert copy.found("heron terns", mode="dense") == before
    (only,) = generations.list_generations(world.backend, copy.store)
    assert (only.generation.state, only.generation.embedder) == ("live", "toy-384")
    target = toy_settings(tmp_path / "there")
    move.move(world.backend.settings, target, lambda *_: None)
    with open_backend(target, jobs=False) as backend:
        there = ByHand(backend, backend.find_store("s"))
        assert [g.public_id for g in _all(there)] == [g.public_id for g in _all(world)]
        assert there.found("heron terns", mode="dense") == before
        there.fill()
        assert there.now(half).state == "ready"
        generations.roll_back(backend, there.store)
        assert there.live().embedder == "toy-256"


def _all(world: ByHand) -> list[Generation]:
    with world.backend.database.read() as connection:
        return catalog.generations_of(connection, world.store.id)


# ---- spaces ----------------------------------------------------------------------------------------------------------


def test_a_swap_by_configuration_is_refused_with_both_spaces_named(tmp_path: Path) -> None:
    """Same width, other space: the alias stands for another model than when the store was made."""
    mine = {"provider": "toy", "model": "toy-384"}
    other = {"provider": "toy", "model": "toy-384-b"}
    with by_hand(toy_settings(tmp_path, embedders={"mine": mine}), embedder="mine") as world:
        world.put("a.txt", "A text about terns.")
        spaces = [world.backend.embedders.open(name).space.fingerprint for name in ("toy-384", "toy-384-b")]
        assert world.found("terns")
        world.candidate(embedder="mine")
        before = world.found("terns", mode="dense")
    with open_backend(toy_settings(tmp_path, embedders={"mine": other}), jobs=False) as backend:
        world = ByHand(backend, backend.find_store("s"))
        refused(lambda: world.found("terns", mode="dense"), "space_mismatch", *spaces)
        refused(lambda: world.found("terns"), "space_mismatch", *spaces)
        assert world.found("terns", mode="keyword")  # needs no vector
        batch = world.claim("b.txt", "Another text about terns.")
        refused(lambda: world.run(batch), "space_mismatch", *spaces)
        world.fill()
        failed = _all(world)[-1]
        assert (failed.state, failed.error_code) == ("failed", "space_mismatch")
        assert all(space in str(failed.error_message) for space in spaces)
        assert count(backend, schema.vectors) == 1
        # The way that there is: a generation of the new one beside it.
        new = world.ready(embedder="mine")
        assert new.state == "ready"
        assert world.told(new).space.fingerprint == spaces[1]
        world.promote(new)
        assert world.found("terns", mode="dense")
        refused(lambda: world.found("terns", mode="dense", generation=_all(world)[0].public_id), "space_mismatch")
    with open_backend(toy_settings(tmp_path, embedders={"mine": mine}), jobs=False) as backend:
        world = ByHand(backend, backend.find_store("s"))
        refused(lambda: world.found("terns", mode="dense"), "space_mismatch", *spaces)
        assert world.found("terns", mode="dense", generation=_all(world)[0].public_id) == before


def test_question_vectors_and_snapshots_are_kept_apart_by_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with by_hand(toy_settings(tmp_path), embedder="toy-384") as world:
        for number in range(3):
            world.put(f"{number}.txt", f"Text {number} about terns.")
        new = world.ready(embedder="toy-384-b")
        scores = {}
        for one in (world.live(), new):
            scores[one.embedder] = [world.found("terns", mode="dense", generation=one.public_id) for _ in range(2)]
            embedder = world.backend.embedders.open(one.embedder)
            question = embedder.embed_queries(["terns"])[0]
            for text, score in scores[one.embedder][1].items():
                assert score == pytest.approx(float(embedder.embed_documents([text])[0] @ question), abs=1e-6)
            view = world.backend.view(one)
            view._unsaved = 10**6
            view.save_if_due()
        assert scores["toy-384"] != scores["toy-384-b"]
        live = world.live()
        snapshots = tmp_path / "views" / "snapshots"
    # The other space's snapshot in the place of one's own is not taken, nor is what was worked out over its vectors.
    shutil.rmtree(snapshots / str(live.id))
    shutil.copytree(snapshots / str(new.id), snapshots / str(live.id))
    for manifest in (snapshots / str(live.id)).glob("words-*/manifest.json"):
        told = json.loads(manifest.read_text())
        told["origin"]["generation"] = live.id  # all but the space is as it should be
        manifest.write_text(json.dumps(told))
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        world = ByHand(backend, backend.find_store("s"))
        assert world.found("terns", mode="dense") == scores["toy-384"][0]
        view = backend.view(live)
        assert "it was made from something else" in caplog.text
        shared = view.vectors._shared  # type: ignore[attr-defined]
        assert shared == snapshots / str(live.id) / f"vectors-{backend.space(live).fingerprint[:16]}"


# ---- other ways of searching -----------------------------------------------------------------------------------------


def test_a_generation_has_settings_of_its_own_which_a_request_goes_past(small: ByHand) -> None:
    small.put("two.txt", "Plovers, plovers and no other bird.")
    new = small.ready(settings={"retrieval": {"mode": "keyword"}})
    assert new.chunk_set_id == small.live().chunk_set_id
    assert new.space_id == small.live().space_id
    named = {"generation": new.public_id}
    assert list(small.found("plovers", **named)) == ["Plovers, plovers and no other bird."]
    assert len(small.found("plovers", **named, mode="hybrid")) > 1
    assert len(small.found("plovers")) > 1


def test_progress_is_told_while_it_is_made(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "VERSIONS_AT_ONCE", 2)
    new = small.candidate(embedder="toy-384")
    told = []
    while small.filler.step():
        summary = small.told(new)
        assert summary.filled is not None
        told.append((summary.filled.documents, summary.filled.documents_total, summary.filled.lag))
        assert summary.generation.characters_per_second
    assert told == [(2, 5, 3), (4, 5, 1), (5, 5, 0)]
    assert small.told(new).seconds_left == 0


def test_generations_of_one_store_at_work_at_once(small: ByHand) -> None:
    several = [small.candidate(embedder=name) for name in ("toy-384", "toy-384-b", "toy-384")]
    small.put("late.txt", "A late text.")
    small.fill()
    assert [small.now(one).state for one in several] == ["ready"] * 3
    assert not any(small.lacking(one) for one in several)
    assert {one.state for one in _all(small)} <= set(FOLLOWING)


def test_a_long_document_is_filled_in_several_turns(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    small.put("long.txt", " ".join(f"Sentence {number} about terns." for number in range(1_500)))
    new = small.candidate(embedder="toy-384", chunking=STATIC)
    monkeypatch.setattr(backfill, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(backfill, "EMBED_AT_ONCE", 8)
    assert small.fill() > 10
    assert small.now(new).state == "ready"
    assert small.lacking(new) == []


def test_uploads_go_first_but_not_for_ever(small: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PATIENCE", 0.2)
    new = small.candidate(embedder="toy-384")
    with small.pipeline._embedding:  # as while a batch is embedded
        began = time.monotonic()
        small.fill()
        assert time.monotonic() - began >= 0.2
        assert small.now(new).state == "ready"


def test_the_view_of_one_that_is_ready_is_open_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.views.WARM_EVERY", 0.02)
    monkeypatch.setattr("rag.views.FOLLOW_EVERY", 0.02)
    with by_hand(toy_settings(tmp_path)) as world:
        world.put("a.txt", "A text about terns.")
        views = world.backend.views
        new = world.ready(embedder="toy-384")
        time.sleep(0.1)
        assert new.id not in views._views  # nobody asks this store anything
        assert world.found("terns")
        wait_for(lambda: new.id in views._views)
        folder, snapshots = views._folder / str(new.id), tmp_path / "views" / "snapshots" / str(new.id)
        view = views._views[new.id]
        view._unsaved = 10**6
        view.save_if_due()
        assert folder.is_dir()
        assert snapshots.is_dir()
        generations.retire(world.backend, world.store, new.public_id)
        wait_for(lambda: view.released and not folder.exists() and not snapshots.exists())
        assert new.id not in views._views
        assert world.found("terns")
