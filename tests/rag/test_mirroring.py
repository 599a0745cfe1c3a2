"""Questions asked of a second generation behind the answers: the same for the same caller, and in nobody's way."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest
from ingest import intake
from rag import generations, live
from rag.access import Caller
from rag.backend import Backend
from rag.catalog import mirrored, schema
from rag.catalog.generations import generations_of
from rag.catalog.mirrored import Comparison
from rag.catalog.records import Store
from rag.mirroring import MOST_WAITING, Mirroring
from rag.retrieve import SearchOptions, retrieve
from tests.api.running import wait_for
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle

TEXTS = (
    "Ducks dive in the pond.",
    "Herons wait in the reeds.",
    "Swifts sleep in the air.",
    "Owls hunt in the barn.",
    "Ducks sleep in the reeds.",
    "Owls wait in the pond.",
    "Swifts hunt in the air.",
    "Terns dive in the sea.",
)
QUESTIONS = ["Which ducks dive in the pond?", "What do owls hunt?", "Who waits in the reeds?"]
OPTIONS = SearchOptions(limit=4)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with open_backend(toy_settings(tmp_path_factory.mktemp("data"))) as opened:
        store = intake.create_store(opened, "s")
        for number, text in enumerate(TEXTS):
            add_text(opened, store, f"{number}.txt", text)
        wait_until_idle(opened)
        made = intake.create_generation(opened, store, embedder="toy-256")
        wait_for(
            lambda: generations.get_generation(opened, store, made.generation.public_id).generation.state == "ready"
        )
        yield opened


@pytest.fixture
def other(backend: Backend) -> Iterator[str]:
    """The public id of the generation that is not live, which has seen no question yet."""
    found = generations.list_generations(backend, store_of(backend))[-1].generation
    yield found.public_id
    with backend.database.write() as connection:
        connection.execute(sa.delete(schema.mirrored_questions))
        connection.execute(sa.update(schema.generations).values(mirror_share=0.0))


@pytest.fixture
def mirrors(backend: Backend) -> Iterator[Mirroring]:
    opened = Mirroring(backend)
    yield opened
    opened.close()


def store_of(backend: Backend) -> Store:
    return backend.find_store("s")


def ask(mirrors: Mirroring, backend: Backend, *questions: str, options: SearchOptions = OPTIONS) -> None:
    """One request with these questions."""
    with mirrors.after():
        for question in questions:
            live.search(backend, [store_of(backend)], question, options)


def counted(backend: Backend) -> dict[str, float]:
    samples = (sample for metric in backend.meters._mirrored.collect() for sample in metric.samples)
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}


def grown(backend: Backend, before: dict[str, float]) -> dict[str, float]:
    now = counted(backend)
    return {outcome: now[outcome] - before.get(outcome, 0) for outcome in now if now[outcome] != before.get(outcome, 0)}


def attend(mirrors: Mirroring, backend: Backend, other: str, share: float = 1.0) -> None:
    """Let so many questions be mirrored from now on."""
    generations.mirror(backend, store_of(backend), other, share)
    mirrors.look()


def test_what_is_compared_is_what_both_would_find(backend: Backend, mirrors: Mirroring, other: str) -> None:
    attend(mirrors, backend, other)
    before = counted(backend)
    ask(mirrors, backend, *QUESTIONS)
    mirrors.flush()
    overlaps = []
    for question in QUESTIONS:
        ids = [
            {
                c.chunk_id
                for c in retrieve(
                    backend, [store_of(backend)], question, SearchOptions(limit=4, generation=g)
                ).candidates
            }
            for g in (None, other)
        ]
        overlaps.append(len(ids[0] & ids[1]) / 4)
    found = generations.get_generation(backend, store_of(backend), other)
    assert found.mirrored is not None
    assert (found.generation.mirror_share, found.mirrored.questions) == (1.0, 3)
    assert found.mirrored.overlap == pytest.approx(sum(overlaps) / 3)
    assert found.mirrored.live_ms is not None
    assert 0 < found.mirrored.live_ms.p50 <= found.mirrored.live_ms.p95
    assert found.mirrored.mirrored_ms is not None
    assert 0 < found.mirrored.mirrored_ms.p50 <= found.mirrored.mirrored_ms.p95
    assert grown(backend, before) == {"compared": 3}
    assert found.events[-1].event == "mirrored"
    assert found.events[-1].body == {"share": 1.0}


def test_only_live_questions_of_one_store_are_mirrored(backend: Backend, mirrors: Mirroring, other: str) -> None:
    attend(mirrors, backend, other)
    before = counted(backend)
    live.search(backend, [store_of(backend)], QUESTIONS[0], OPTIONS)  # outside of a request: an evaluation, say
    ask(mirrors, backend, QUESTIONS[0], options=SearchOptions(generation=other))
    with mirrors.after():
        live.search(backend, [store_of(backend), store_of(backend)], QUESTIONS[0], OPTIONS)
    mirrors.flush()
    assert grown(backend, before) == {}
    attend(mirrors, backend, other, share=0.0)
    ask(mirrors, backend, *QUESTIONS)
    mirrors.flush()
    assert grown(backend, before) == {}


def test_a_share_is_a_share(backend: Backend, mirrors: Mirroring, other: str) -> None:
    attend(mirrors, backend, other, share=0.5)
    before = counted(backend)
    for _ in range(60):
        ask(mirrors, backend, QUESTIONS[0])
    mirrors.flush()
    assert 12 <= grown(backend, before)["compared"] <= 48


def test_it_is_done_as_the_caller_sees_it(backend: Backend, mirrors: Mirroring, other: str) -> None:
    for source in ("0.txt", "4.txt", "6.txt"):
        file_id = all_documents(backend, store_of(backend))[source].file_public_id
        intake.set_attributes(backend, store_of(backend), file_id, permissions=["staff"])
    reader = backend.for_caller(Caller(backend.caller.tenant, frozenset({"query"}), permissions=frozenset()))
    attend(mirrors, backend, other)
    ask(mirrors, reader, *QUESTIONS, options=SearchOptions(limit=20))
    mirrors.flush()
    found = generations.get_generation(backend, store_of(backend), other).mirrored
    assert found is not None
    assert (found.questions, found.overlap) == (3, 1.0), "both find the five that this caller may see"


def test_when_too_many_wait_the_next_are_left_out_and_nobody_waits(
    backend: Backend, mirrors: Mirroring, other: str
) -> None:
    attend(mirrors, backend, other)
    before = counted(backend)
    with mirrors._backend.question_vectors._lock:  # its thread stands still
        began = time.perf_counter()
        for _ in range(MOST_WAITING + 10):
            ask(mirrors, backend, QUESTIONS[0])
        assert time.perf_counter() - began < 10
        assert 8 <= grown(backend, before)["dropped"] <= 10
    mirrors.flush()
    assert grown(backend, before)["compared"] >= MOST_WAITING


def test_one_that_cannot_answer_holds_up_nothing(backend: Backend, mirrors: Mirroring, other: str) -> None:
    attend(mirrors, backend, other)
    before = counted(backend)
    mine = schema.generations.c.public_id == other
    with backend.database.write() as connection:
        connection.execute(sa.update(schema.generations).where(mine).values(embedder="toy-384-b"))
    try:
        ask(mirrors, backend, "Do terns dive?")
        mirrors.flush()
    finally:
        with backend.database.write() as connection:
            connection.execute(sa.update(schema.generations).where(mine).values(embedder="toy-256"))
    assert grown(backend, before) == {"failed": 1}
    ask(mirrors, backend, "Do terns dive?")
    mirrors.flush()
    assert grown(backend, before) == {"failed": 1, "compared": 1}
    found = generations.get_generation(backend, store_of(backend), other).mirrored
    assert found is not None
    assert (found.questions, found.errors) == (2, {"space_mismatch": 1})


def test_what_is_compared_of_a_generation_that_goes_meanwhile_is_left_out(backend: Backend, other: str) -> None:
    with backend.database.write() as connection:
        live = backend.live_generation(store_of(backend)).id
        mirrored.add(connection, [Comparison(10**6, live, 1.0, 1.0, 1.0)])
        kept = connection.execute(sa.select(sa.func.count()).select_from(schema.mirrored_questions)).scalar_one()
    assert kept == 0


def test_the_newest_are_kept(backend: Backend, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored, "KEPT", 3)
    with backend.database.write() as connection:
        generation = generations_of(connection, store_of(backend).id)[-1]
        for at in range(5):
            mirrored.add(connection, [Comparison(generation.id, 1, float(at), 0.5, 1.0)])
        query = sa.select(schema.mirrored_questions.c.live_ms).order_by(schema.mirrored_questions.c.id)
        assert list(connection.execute(query).scalars()) == [2.0, 3.0, 4.0]


def test_only_one_beside_the_live_one_is_asked(backend: Backend, other: str) -> None:
    live_id = backend.live_generation(store_of(backend)).public_id
    with pytest.raises(ChangeRequest) as refused:
        generations.mirror(backend, store_of(backend), live_id, 0.5)
    assert refused.value.code == "generation_not_mirrored"


def test_a_store_that_goes_meanwhile_takes_along_what_was_mirrored(backend: Backend, mirrors: Mirroring) -> None:
    store = intake.create_store(backend, "passing")
    add_text(backend, store, "a.txt", TEXTS[0])
    wait_until_idle(backend)
    made = intake.create_generation(backend, store, embedder="toy-256").generation.public_id
    wait_for(lambda: generations.get_generation(backend, store, made).generation.state == "ready")
    generations.mirror(backend, store, made, 1.0)
    mirrors.look()
    with mirrors.after():
        live.search(backend, [store], QUESTIONS[0], OPTIONS)
    mirrors.flush()
    assert generations.get_generation(backend, store, made).mirrored is not None
    with backend.database.read() as connection:
        number = generations_of(connection, store.id)[-1].id
    with mirrors.after():
        live.search(backend, [store], QUESTIONS[1], OPTIONS)
        intake.delete_store(backend, store)
    mirrors.flush()
    with backend.database.read() as connection:
        mine = schema.mirrored_questions.c.generation_id == number
        assert connection.execute(sa.select(schema.mirrored_questions).where(mine)).first() is None


def test_one_that_was_promoted_is_not_mirrored_when_it_is_a_standby_again(backend: Backend, other: str) -> None:
    generations.mirror(backend, store_of(backend), other, 0.5)
    generations.promote(backend, store_of(backend), other)
    generations.roll_back(backend, store_of(backend))
    assert generations.get_generation(backend, store_of(backend), other).generation.mirror_share == 0
