"""What retrieval makes of a reranker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest, Unsupported
from ingest import intake
from rag.ask import Ask, prepare
from rag.backend import Backend
from rag.catalog import schema
from rag.context import Candidate
from rag.retrieve import SearchOptions, retrieve
from rag.settings import RetrievalSettings, Settings
from rag.traces import find_trace
from tests.backends import add_text, open_backend, toy_settings, wait_until_idle

TEXTS = {
    "long.txt": "Ducks dive for weeds. " + "Ponds freeze over, reeds rustle, herons wait. " * 4,
    "middling.txt": "Ducks dive for weeds and for snails, say those who watch them.",
    "short.txt": "Ducks dive.",
    "other.txt": "Kettles whistle.",
}
QUESTION = "Do ducks dive for weeds?"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("data")
    tables = {"words": {"provider": "toy", "model": "overlap"}}
    with open_backend(toy_settings(folder).model_copy(update={"rerankers": tables})) as opened:
        store = intake.create_store(opened, "s")
        for name, text in TEXTS.items():
            add_text(opened, store, name, text)
        wait_until_idle(opened)
        yield opened


def hits(backend: Backend, **options: object) -> tuple[Candidate, ...]:
    return retrieve(backend, [backend.find_store("s")], QUESTION, SearchOptions(**options)).candidates  # type: ignore[arg-type]


def test_a_reranker_orders_what_it_reads_and_says_what_it_gave(backend: Backend) -> None:
    fused, reranked = hits(backend), hits(backend, reranker="words")
    assert [c.reranked for c in fused] == [None] * 4
    assert [c.filename for c in reranked] != [c.filename for c in fused]
    by_share = ["short.txt", "middling.txt", "long.txt", "other.txt"]
    assert [c.filename for c in reranked] == by_share
    given = [c.reranked for c in reranked]
    assert given == sorted((g for g in given if g is not None), reverse=True)
    same = {c.chunk_id: replace(c, reranked=None) for c in reranked}
    assert same == {c.chunk_id: c for c in fused}, "relevance and the other scores stay as they are"


def test_it_reads_so_many_and_a_better_one_from_below_comes_up(backend: Backend) -> None:
    fused = hits(backend)
    last = hits(backend, reranker="words", rerank_depth=1)
    assert [c.chunk_id for c in last] == [c.chunk_id for c in fused]
    assert [c.reranked is None for c in last] == [False, True, True, True]
    (best,) = hits(backend, reranker="words", limit=1)
    assert best.filename == "short.txt"
    (kept,) = hits(backend, reranker="words", limit=1, rerank_depth=1)
    assert kept.chunk_id == fused[0].chunk_id


def test_a_threshold_is_of_relevance_whatever_the_reranker_says(backend: Backend) -> None:
    least = sorted(c.relevance for c in hits(backend))[1]
    assert {c.chunk_id for c in hits(backend, min_relevance=least)} == {
        c.chunk_id for c in hits(backend, min_relevance=least, reranker="words")
    }


def test_packing_follows_it_and_the_trace_tells_it(backend: Backend) -> None:
    setting = RetrievalSettings(reranker="words")
    on = backend.for_caller(backend.caller)
    on.settings = backend.settings.model_copy(update={"retrieval": setting})
    asked = Ask((backend.find_store("s"),), ({"role": "user", "content": QUESTION},))
    prepared = prepare(on, asked)
    assert prepared.context.passages[0].filename == "short.txt"
    off = prepare(on, replace(asked, search=SearchOptions(reranker="none")))
    assert off.context.passages[0].filename != "short.txt"
    trace, _ = find_trace(backend, prepared.trace_id)
    assert [found["reranked"] for found in trace.body["retrieved"]] == [
        c.reranked for c in prepared.retrieval.candidates
    ]
    assert trace.body["timings_ms"]["rerank"] >= 0


def test_a_generation_has_its_own(backend: Backend) -> None:
    store = backend.find_store("s")
    live = backend.live_generation(store)
    settings = {"retrieval": {"reranker": "words", "rerank_depth": 2}}
    with backend.database.write() as connection:
        mine = sa.update(schema.generations).where(schema.generations.c.id == live.id)
        connection.execute(mine.values(settings=settings))
    try:
        assert [c.reranked is None for c in hits(backend)] == [False, False, True, True]
        assert [c.reranked is None for c in hits(backend, reranker="none")] == [True] * 4
    finally:
        with backend.database.write() as connection:
            connection.execute(mine.values(settings=live.settings))


def test_an_unknown_one_is_refused_at_the_start_and_by_name(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="none, words"):
        hits(backend, reranker="wrods")
    with pytest.raises(Unsupported, match=r"retrieval\.reranker"):
        Backend(Settings(data=tmp_path, retrieval=RetrievalSettings(reranker="none-such")))
    with pytest.raises(ChangeRequest, match=r"rerankers\.x"):
        Backend(Settings(data=tmp_path, rerankers={"x": {"provider": "toy"}}))
