"""Days looked at: sampled, counted, claimed once, told, and forgotten with their store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from indexes.errors import TryLater
from ingest import drift as watching
from ingest import intake
from rag import question_sets
from rag.ask import Ask, answer, prepare
from rag.backend import Backend
from rag.catalog import batches, drift, schema
from rag.catalog.records import DAY, Store
from rag.evaluation.drift import WATCHES
from rag.gauges import read_gauges
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.postgres import Postgres

TODAY = int(time.time()) // DAY


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with open_backend(toy_settings(tmp_path, drift__queries=5)) as opened:
        store = intake.create_store(opened, "s")
        add_text(opened, store, "a.txt", "Ducks dive for weeds.")
        add_text(opened, store, "b.txt", "Kettles boil water.")
        wait_until_idle(opened)
        yield opened


async def ask(backend: Backend, store: Store, question: str) -> None:
    prepared = prepare(backend, Ask((store,), ({"role": "user", "content": question},), kind="chat.completion"))
    assert [piece async for piece in answer(backend, prepared)]


def count(backend: Backend, table: sa.Table) -> int:
    with backend.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


async def test_a_bounded_sample_without_words_is_kept(backend: Backend) -> None:
    store = backend.find_store("s")
    for number in range(9):
        await ask(backend, store, f"Which ducks dive for weeds, number {number}?")
    backend.traces.flush()
    assert count(backend, schema.query_vectors) == 5
    with backend.database.read() as connection:
        row = connection.execute(sa.select(schema.query_vectors)).first()
    assert row is not None
    assert len(row.vector) == 384 * 4
    assert b"ducks" not in row.vector
    found = watching.look(backend, store)
    assert (found["counts"]["questions"], found["counts"]["answers"]) == (9, 9)
    intake.delete_store(backend, store)
    assert [count(backend, table) for table in (schema.query_vectors, schema.drift_days, schema.canaries)] == [0, 0, 0]


def test_the_sample_is_of_the_smallest_ranks(backend: Backend) -> None:
    store = backend.find_store("s")
    space = backend.live_generation(store).space_id
    for rank in (0.9, 0.1, 0.5, 0.3, 0.7):
        one = drift.Sampled(store.id, space, np.full(384, rank, np.float32), rank)
        with backend.database.write() as connection:
            drift.add_query_vectors(connection, [one], TODAY, 3)
    with backend.database.read() as connection:
        kept = drift.query_vectors(connection, store.id, space, TODAY, TODAY, 10)
    assert kept[:, 0].tolist() == pytest.approx([0.1, 0.3, 0.5])


def test_a_day_is_one_workers_and_finished_once(backend: Backend) -> None:
    store = backend.find_store("s")
    with backend.database.write() as connection:
        mine, other = batches.join(connection, "mine"), batches.join(connection, "other")
        assert drift.claim(connection, store.id, 7, mine)
        assert not drift.claim(connection, store.id, 7, other)
        batches.leave(connection, mine)
        assert drift.claim(connection, store.id, 7, other)
        assert not drift.finish(connection, store.id, 7, mine, {"alarms": []}, 30)
        assert drift.finish(connection, store.id, 7, other, {"alarms": []}, 30)
        assert not drift.finish(connection, store.id, 7, other, {"alarms": []}, 30)
        assert not drift.claim(connection, store.id, 7, other)


def test_a_day_that_kills_is_left_alone(backend: Backend) -> None:
    store = backend.find_store("s")
    with backend.database.write() as connection:
        taken = []
        for number in range(drift.CRASHES + 2):
            worker = batches.join(connection, f"dies {number}")
            taken.append(drift.claim(connection, store.id, 7, worker))
            batches.leave(connection, worker)
    assert taken == [True] * (drift.CRASHES + 1) + [False]


def planted(backend: Backend, store: Store, day: int, vectors: np.ndarray) -> None:
    space = backend.live_generation(store).space_id
    with backend.database.write() as connection:
        sampled = [drift.Sampled(store.id, space, vector, at / len(vectors)) for at, vector in enumerate(vectors)]
        drift.add_query_vectors(connection, sampled, day, 200)


def test_a_planted_fifth_raises_the_alarm_in_the_next_look(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Also of days on which nothing looked, each once."""
    store = backend.find_store("s")
    draw = np.random.default_rng(1)
    for day in range(TODAY - 6, TODAY - 1):
        planted(backend, store, day, topics(draw, 100))
    planted(backend, store, TODAY - 1, np.concatenate([topics(draw, 80), topics(draw, 20, at=50)]))
    watch = watching.Watch(backend, lambda: 1, lambda: False)
    looked = 0
    while watch.step():
        looked += 1
    assert looked == 6
    with backend.database.read() as connection:
        found = drift.days(connection, store.id, 0, TODAY)
        standing = drift.standing_alarms(connection, TODAY)
    assert {day: bool(body["alarms"]) for day, body in found.items()} == {
        day: day == TODAY - 1 for day in range(TODAY - 6, TODAY)
    }
    assert standing["shift"] + standing["novelty"] >= 1
    assert set(standing) == set(WATCHES)
    assert next(one.values for one in read_gauges(backend) if one.name == "drift_alarms") == standing
    assert caplog.text.count("drifted") == 1


def topics(draw: np.random.Generator, number: int, at: int | None = None) -> np.ndarray:
    rows = np.eye(384)[np.full(number, at) if at is not None else draw.integers(0, 5, number)]
    rows = rows + draw.normal(0, 0.03, rows.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_canaries_notice_a_lost_document(backend: Backend) -> None:
    store = backend.find_store("s")
    lines = [{"question": "Which ducks dive for weeds?", "answers": ["ducks"]}, {"question": "?!", "answers": ["x"]}]
    made = question_sets.create(backend, "canaries", map(json.dumps, lines))
    watching.freeze(backend, store, "canaries")
    same = watching.replay(backend, store)
    assert same is not None
    assert (same["overlap"], same["lost"], same["alarm"]) == (1.0, 0, False)
    intake.delete_documents(backend, [all_documents(backend, store)["a.txt"]])
    watch = watching.Watch(backend, lambda: 1, lambda: False)
    assert watch.step()
    with backend.database.read() as connection:
        ((day, body),) = drift.days(connection, store.id, 0, TODAY).items()
    assert (day, body["alarms"], body["canaries"]["question_set"]) == (TODAY - 1, ["canaries"], "canaries@1")
    assert body["canaries"]["lost"] >= 1
    assert not watch.step()
    question_sets.delete(backend, made.public_id)
    assert watching.replay(backend, store) is None


def test_one_store_that_cannot_be_asked_is_in_nobodys_way(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = backend.find_store("s"), intake.create_store(backend, "t")
    vectors = topics(np.random.default_rng(2), 3)
    for store in (first, second):
        planted(backend, store, TODAY - 1, vectors)
    real = watching.count

    def failing(backend: Backend, store: Store, day: int) -> dict[str, Any]:
        if store.id == first.id:
            raise TryLater("The engine is out of reach.", code="unreachable")
        return real(backend, store, day)

    monkeypatch.setattr(watching, "count", failing)
    watch = watching.Watch(backend, lambda: 1, lambda: False)
    with pytest.raises(TryLater):
        watch.step()
    assert watch.step()
    assert not watch.step()
    monkeypatch.undo()
    assert watching.Watch(backend, lambda: 1, lambda: False).step()
    with backend.database.read() as connection:
        assert [len(drift.days(connection, store.id, 0, TODAY)) for store in (first, second)] == [1, 1]


def test_days_are_looked_at_over_postgresql_too(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url, open_backend(toy_settings(tmp_path, catalog=url), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        planted(backend, store, TODAY - 2, topics(np.random.default_rng(3), 3))
        question_sets.create(backend, "canaries", ['{"question": "?!", "answers": ["x"]}'])
        watching.freeze(backend, store, "canaries")
        watch = watching.Watch(backend, lambda: 1, lambda: False)
        assert [watch.step() for _ in range(3)] == [True, True, False]
        with backend.database.read() as connection:
            found = drift.days(connection, store.id, 0, TODAY)
            assert drift.standing_alarms(connection, TODAY) == dict.fromkeys(WATCHES, 0)
        assert [body["canaries"] is not None for body in found.values()] == [False, True]
