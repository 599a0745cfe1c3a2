"""Generations over HTTP: built, named by any question, promoted, rolled back; who may, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rag import generations
from rag.evaluation.gate import Verdict
from tests.api.running import Corpus, RunningServer, fill, refused, upload, wait_for

QUESTION = "Which day does the boat to Norway leave?"


@pytest.fixture
def mine(http: httpx.Client) -> Iterator[Corpus]:
    """A store of the test's own."""
    corpus = fill(http, "swapped")
    yield corpus
    http.delete(f"/v1/vector_stores/{corpus.store}")


def path(corpus: Corpus, *rest: str) -> str:
    return "/".join([f"/v1/vector_stores/{corpus.store}/generations", *rest])


def rollback(corpus: Corpus) -> str:
    return f"/v1/vector_stores/{corpus.store}/rollback"


def made(http: httpx.Client, corpus: Corpus, **body: Any) -> dict[str, Any]:
    """A new generation that is ready."""
    answer = http.post(path(corpus), json={"embedder": "toy-256", **body})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: http.get(path(corpus, answer.json()["id"])).json()["state"] == "ready")
    return dict(http.get(path(corpus, answer.json()["id"])).json())


def test_a_generation_is_built_asked_promoted_and_rolled_back(http: httpx.Client, mine: Corpus) -> None:
    (live,) = http.get(path(mine)).json()["data"]
    assert (live["state"], live["embedder"], live["progress"]["lag"]) == ("live", "toy-384", 0)
    new = made(http, mine, retrieval={"mode": "dense"})
    assert new["object"] == "vector_store.generation"
    assert new["space"]["dimension"] == 256
    assert new["space"]["fingerprint"] != live["space"]["fingerprint"]
    assert new["chunks"] == live["chunks"]
    assert new["retrieval"] == {
        "mode": "dense",
        "fusion": None,
        "dense_weight": None,
        "depth": None,
        "reranker": None,
        "rerank_depth": None,
    }
    progress = new["progress"]
    assert progress["documents"] == {"done": 3, "total": 3}
    assert progress["characters"]["done"] == progress["characters"]["total"] > 100
    assert progress["characters_per_second"] > 0
    assert (progress["seconds_left"], progress["lag"]) == (0, 0)
    said = _answers(http, mine, new["id"])
    assert said == {door: [new["id"]] for door in said}
    assert _answers(http, mine, None) == {door: [live["id"]] for door in said}
    promoted = http.post(path(mine, new["id"], "promote"), json={}).json()
    assert promoted["state"] == "live"
    assert [event["event"] for event in promoted["events"]] == ["created", "ready", "promoted"]
    assert promoted["events"][-1]["detail"] == {"forced": False, "instead_of": live["id"], "verdict": None}
    assert (promoted["events"][0]["by"], promoted["events"][1]["by"]) == ("", None)
    assert _answers(http, mine, None) == {door: [new["id"]] for door in said}
    assert http.get(f"/v1/vector_stores/{mine.store}").json()["embedder"] == "toy-256"
    back = http.post(rollback(mine), json={"wait_seconds": 2}).json()
    assert (back["id"], back["state"]) == (live["id"], "live")
    retired = http.post(path(mine, new["id"], "retire")).json()
    assert (retired["state"], retired["progress"]) == ("retired", None)


def _answers(http: httpx.Client, corpus: Corpus, generation: str | None) -> dict[str, list[str]]:
    """Of which generations the traces of the doors tell; and whether the search's scores are of that one."""
    named = {} if generation is None else {"generation": generation}
    messages = [{"role": "user", "content": QUESTION}]
    tool = {"type": "file_search", "vector_store_ids": [corpus.store]}
    asked = {
        "/v1/context": {"vector_store_ids": [corpus.store], "question": QUESTION},
        "/v1/chat/completions": {"model": "extractive", "vector_store_ids": [corpus.store], "messages": messages},
        "/v1/responses": {"model": "extractive", "input": QUESTION, "tools": [tool]},
    }
    found = {}
    for door, body in asked.items():
        answer = http.post(door, json={**body, **named})
        assert answer.status_code == 200, answer.text
        trace = f"/v1/traces/{answer.headers['X-RAG-Trace-ID']}"
        wait_for(lambda trace=trace: http.get(trace).status_code == 200)
        found[door] = [one["id"] for one in http.get(trace).json()["generations"]]
    search = f"/v1/vector_stores/{corpus.store}/search"
    hits = [
        http.post(search, json={"query": query, "mode": "dense", **named}).json()["data"]
        for query in (QUESTION, [QUESTION, QUESTION])
    ]
    assert [hit["scores"]["dense"] for hit in hits[0]] == [hit["scores"]["dense"] for hit in hits[1]]
    assert len(hits[0]) == 3
    return found


def test_what_is_wrong_is_said_by_name(http: httpx.Client, mine: Corpus, corpus: Corpus) -> None:
    (live,) = http.get(path(mine)).json()["data"]
    other = http.get(path(corpus)).json()["data"][0]["id"]
    search = f"/v1/vector_stores/{mine.store}/search"
    refused(http.post(path(mine), json={"embedder": "nobody"}), 400, "unknown_name", "embedder")
    refused(http.post(path(mine), json={"vector_index": "nothing"}), 400, "unknown_name")
    refused(http.post(path(mine), json={"embeder": "toy-256"}), 400, "unknown_parameter", "embeder")
    refused(http.post(rollback(mine), json={}), 400, "no_standby")
    refused(http.get(path(mine, other)), 404, "generation_not_found", "generation")
    for change in ("pause", "resume", "retire"):
        refused(http.post(path(mine, other, change)), 404, "generation_not_found", "generation")
    refused(http.post(path(mine, other, "promote"), json={}), 404, "generation_not_found", "generation")
    refused(http.post(search, json={"query": "boat", "generation": other}), 404, "generation_not_found", "generation")
    refused(http.post(path(mine, live["id"], "promote"), json={}), 400, "generation_live", "generation")
    refused(http.post(path(mine, live["id"], "retire")), 400, "generation_live", "generation")
    refused(http.post(path(mine, live["id"], "pause")), 400, "generation_not_filled", "generation")
    new = made(http, mine)
    assert http.post(path(mine, new["id"], "pause")).json()["paused"] is True
    assert http.post(path(mine, new["id"], "pause")).status_code == 200
    late = upload(http, "late.md", "# Late\n\nA ferry leaves on Fridays.\n")
    http.post(f"/v1/vector_stores/{mine.store}/files", json={"file_id": late})
    wait_for(lambda: http.get(path(mine, new["id"])).json()["progress"]["lag"] > 0)
    behind = http.post(path(mine, new["id"], "promote"), json={"wait_seconds": 0})
    refused(behind, 400, "generation_paused", "generation")
    assert http.post(path(mine, new["id"], "resume")).json()["paused"] is False
    assert http.post(path(mine, new["id"], "promote"), json={}).json()["state"] == "live"


def test_the_gate_is_asked(http: httpx.Client, mine: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "gate_of", lambda _: lambda *_: Verdict(False, "too_few_questions", "Ask more."))
    new = made(http, mine)
    answer = http.post(path(mine, new["id"], "promote"), json={})
    assert "Ask more." in refused(answer, 400, "gate_failed", "generation")
    promoted = http.post(path(mine, new["id"], "promote"), json={"force": True}).json()
    detail = promoted["events"][-1]["detail"]
    assert (detail["forced"], detail["verdict"]["reason"]) == (True, "too_few_questions")


def test_only_administrators_change_and_see_what_counts_hidden_documents(
    server: RunningServer, http: httpx.Client
) -> None:
    store = fill(http, "seen by some")
    secret = http.post("/v1/keys", json={"name": "reader", "scopes": ["query", "ingest"]}).json()["secret"]
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {secret}"}) as reader:
        (live,) = reader.get(path(store)).json()["data"]
        assert (live["progress"], live["last_error"], live["events"]) == (None, None, None)
        assert reader.get(path(store, live["id"])).json() == live
        changes = [path(store, live["id"], what) for what in ("promote", "pause", "resume", "retire")]
        for change in (path(store), rollback(store), *changes):
            refused(reader.post(change, json={}), 403, "insufficient_scope")
    http.delete(f"/v1/vector_stores/{store.store}")


def test_a_share_of_the_questions_is_mirrored(http: httpx.Client, mine: Corpus, server: RunningServer) -> None:
    new = made(http, mine)["id"]
    assert http.get(path(mine, new)).json()["mirror"] is None
    told = http.post(path(mine, new, "mirror"), json={"share": 1.0}).json()
    assert told["mirror"] == {"share": 1.0, "questions": 0, "overlap": None, "live_ms": None, "mirrored_ms": None} | {
        "errors": {}
    }
    server.app.state.mirroring.look()
    asked = {"vector_store_ids": [mine.store], "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    http.post("/v1/chat/completions", json={**asked, "model": "extractive"}).raise_for_status()
    http.post(f"/v1/vector_stores/{mine.store}/search", json={"query": QUESTION}).raise_for_status()
    http.post(f"/v1/vector_stores/{mine.store}/search", json={"query": QUESTION, "generation": new}).raise_for_status()
    wait_for(lambda: http.get(path(mine, new)).json()["mirror"]["questions"] >= 2)
    found = http.get(path(mine, new)).json()["mirror"]
    assert (found["questions"], found["errors"]) == (2, {})
    assert 0 < found["overlap"] <= 1
    assert found["live_ms"]["p50"] > 0 < found["mirrored_ms"]["p50"]
    (live, _) = http.get(path(mine)).json()["data"]
    refused(
        http.post(path(mine, live["id"], "mirror"), json={"share": 1.0}), 400, "generation_not_mirrored", "generation"
    )
    refused(
        http.post(path(mine, "gen_other", "mirror"), json={"share": 1.0}), 404, "generation_not_found", "generation"
    )
    refused(http.post(path(mine, new, "mirror"), json={"share": 1.5}), 400, "invalid_value", "share")
