"""Search and context over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from rag.models import ModelAlias
from rag.tokenizers import PromptCounter
from tests.api.running import DOCUMENTS, Corpus, RunningServer, refused
from tests.fakes.openai_server import FakeOpenAI, Obey, Say

SEARCH = "/v1/vector_stores/help/search"
IMAGE = {"role": "user", "content": [{"type": "image_url"}]}


def _search(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    answer = http.post(SEARCH, json=body)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["data"]
    return hits


def test_a_hit_says_what_and_where_and_how_near(http: httpx.Client, corpus: Corpus) -> None:
    answer = http.post(SEARCH, json={"query": "charge the lamp", "rewrite_query": True}).json()
    hit = answer["data"][0]
    assert {key: answer[key] for key in ("object", "search_query", "has_more", "next_page")} == {
        "object": "vector_store.search_results.page",
        "search_query": ["charge the lamp"],
        "has_more": False,
        "next_page": None,
    }
    assert (hit["file_id"], hit["filename"]) == (corpus.files["battery.md"], "battery.md")
    assert hit["attributes"] == {"topic": "lamp", "year": 2024, "public": True}
    assert hit["content"] == [{"type": "text", "text": DOCUMENTS["battery.md"].strip()}]
    text = http.get(f"/v1/vector_stores/help/files/{hit['file_id']}/content").json()["data"][0]["text"]
    assert text[hit["start"] : hit["end"]] == hit["content"][0]["text"]
    assert set(hit["scores"]) == {"dense", "keyword", "fused", "relevance"}
    assert 0 <= hit["score"] <= 1
    assert hit["score"] == hit["scores"]["relevance"]
    assert (hit["title"], hit["page"]) == ("Battery", None)


def test_a_leg_can_be_asked_alone(http: httpx.Client, corpus: Corpus) -> None:
    dense, keyword = _search(http, query="lamp", mode="dense")[0], _search(http, query="lamp", mode="keyword")[0]
    assert dense["scores"]["keyword"] is None
    assert dense["scores"]["dense"] is not None
    assert keyword["scores"]["dense"] is None
    assert keyword["scores"]["keyword"] > 0
    for settings in ({"fusion": "rrf"}, {"dense_weight": 1}, {"dense_weight": 0.25, "fusion": "scaled"}):
        assert _search(http, query="charge the lamp", **settings)[0]["filename"] == "battery.md"


def test_a_reranker_is_asked_for_and_left_out(http: httpx.Client, corpus: Corpus) -> None:
    read = _search(http, query="charge the lamp", reranker="words")
    given = [hit["scores"]["reranked"] for hit in read]
    assert given == sorted(given, reverse=True)
    assert given[0] > 0
    for plain in (
        {"reranker": "none"},
        {"ranking_options": {"ranker": "none"}},
        {"ranking_options": {"ranker": "auto"}},
    ):
        assert all("reranked" not in hit["scores"] for hit in _search(http, query="charge the lamp", **plain))
    answer = http.post("/v1/vector_stores/help/context", json={"question": "the lamp", "reranker": "nobody"})
    assert "none, words" in refused(answer, 400, "unknown_name", "reranker")


def test_filters_limits_and_thresholds_hold(http: httpx.Client, corpus: Corpus) -> None:
    shop = {"type": "eq", "key": "topic", "value": "shop"}
    recent = {"type": "gte", "key": "year", "value": 2024}
    assert {hit["filename"] for hit in _search(http, query="the lamp boat kettle", filters=shop)} == {
        "returns.md",
        "shipping.md",
    }
    both = {"type": "and", "filters": [shop, recent]}
    assert [hit["filename"] for hit in _search(http, query="the", filters=both)] == ["shipping.md"]
    assert len(_search(http, query="the lamp boat kettle", max_num_results=1)) == 1
    everything = _search(http, query="kettle refund lamp")
    threshold = everything[0]["score"]
    kept = _search(http, query="kettle refund lamp", ranking_options={"ranker": "auto", "score_threshold": threshold})
    assert [hit["chunk_id"] for hit in kept] == [h["chunk_id"] for h in everything if h["score"] >= threshold]
    assert 0 < len(kept) < len(everything)


def test_several_questions_are_searched_apart(http: httpx.Client, corpus: Corpus) -> None:
    queries = ["kettle refunds", "boat to Norway"]
    answer = http.post(SEARCH, json={"query": queries, "max_num_results": 2}).json()
    assert answer["search_query"] == queries
    assert {hit["filename"] for hit in answer["data"]} == {"returns.md", "shipping.md"}
    assert len({hit["chunk_id"] for hit in answer["data"]}) == 2


def test_the_installations_model_words_the_query_anew(
    http: httpx.Client, corpus: Corpus, server: RunningServer, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.app.state.backend.models, "_default", "scripted")
    provider.chat(Say("charge the lamp"))
    answer = http.post(SEARCH, json={"query": "zzz", "rewrite_query": True}).json()
    assert answer["search_query"] == ["charge the lamp"]
    assert answer["data"][0]["filename"] == "battery.md"
    assert answer["data"] == http.post(SEARCH, json={"query": "charge the lamp"}).json()["data"]
    loud = Obey(lambda body: [body["messages"][-1]["content"].upper()])
    provider.chat(loud, loud)
    both = http.post(SEARCH, json={"query": ["kettle", "boat"], "rewrite_query": True}).json()
    assert both["search_query"] == ["KETTLE", "BOAT"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "query"),
        ({"query": ""}, "invalid_value", "query"),
        ({"query": "   "}, "empty_query", "query"),
        ({"query": []}, "invalid_value", "query"),
        ({"query": ["x", 5]}, "invalid_value", "query.1"),
        ({"query": "x", "max_num_results": 0}, "invalid_value", "max_num_results"),
        ({"query": "x", "max_num_results": 51}, "invalid_value", "max_num_results"),
        ({"query": "x", "max_num_results": "5"}, "invalid_value", "max_num_results"),
        ({"query": "x", "max_num_results": True}, "invalid_value", "max_num_results"),
        ({"query": "x", "mode": "magic"}, "invalid_value", "mode"),
        ({"query": "x", "dense_weight": 1.1}, "invalid_value", "dense_weight"),
        ({"query": "x", "filters": []}, "invalid_value", "filters"),
        ({"query": "x", "filters": {"type": "like"}}, "invalid_filter", "filters"),
        ({"query": "x", "filters": {"type": "eq", "key": "none", "value": 1}}, "unknown_filter_key", "filters"),
        ({"query": "x", "filters": {"type": "eq", "key": "topic", "value": 1}}, "filter_type", "filters"),
        ({"query": "x", "ranking_options": {"score_threshold": 2}}, "invalid_value", "ranking_options.score_threshold"),
        ({"query": "x", "ranking_options": {"rank": 2}}, "unknown_parameter", "ranking_options.rank"),
        ({"query": "x", "top_k": 2}, "unknown_parameter", "top_k"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_field(
    http: httpx.Client, corpus: Corpus, body: dict[str, Any], code: str, param: str
) -> None:
    refused(http.post(SEARCH, json=body), 400, code, param)


@pytest.mark.parametrize("query", ['or AND (" \\ /* " NOT', "\0", "​‮", "🙂" * 1000, "lamp " * 10_000, "'; DROP TABLE"])
def test_whatever_is_asked_is_a_question(http: httpx.Client, corpus: Corpus, query: str) -> None:
    _search(http, query=query)


def test_a_context_fits_and_adds_up(http: httpx.Client, corpus: Corpus) -> None:
    question = "How long must I charge the lamp?"
    answer = http.post("/v1/vector_stores/help/context", json={"question": question, "window": 700, "max_tokens": 100})
    context = answer.json()
    assert answer.status_code == 200, answer.text
    ledger, passages = context["ledger"], context["passages"]
    alias = ModelAlias("x", "x", "x", window=700, output_limit=100)
    assert PromptCounter(alias).count(context["messages"]) == ledger["prompt_tokens"]
    assert ledger["prompt_tokens"] + ledger["reserved_tokens"] <= ledger["window"] == 700
    assert ledger["reserved_tokens"] == 100
    parts = ledger["base_tokens"] + ledger["history_tokens"] + sum(p["tokens"] for p in passages)
    assert parts == ledger["prompt_tokens"]
    assert context["messages"][-1]["content"].endswith(question)
    assert passages[0]["text"] in context["messages"][-1]["content"]
    assert (passages[0]["number"], passages[0]["filename"]) == (1, "battery.md")
    assert passages[0]["vector_store_id"] == corpus.store
    assert {entry["fate"] for entry in ledger["entries"]} <= {"kept", "merged", "trimmed", "dropped"}
    assert context["grounded"] is True
    assert context["model"] == "extractive"
    assert set(context["prompt"]) == {"id", "hash"}
    assert all(milliseconds >= 0 for milliseconds in context["timings_ms"].values())


def test_a_context_takes_a_conversation_and_several_stores(http: httpx.Client, corpus: Corpus) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "I bought a lamp."}]},
        {"role": "assistant", "content": "Nice.", "refusal": None, "annotations": []},
        {"role": "user", "content": "How long must I charge the lamp?"},
    ]
    body = {"messages": turns, "vector_store_ids": ["help", corpus.store], "max_passages": 1, "order": "edges"}
    context = http.post("/v1/context", json=body).json()
    assert [turn["content"] for turn in context["messages"][1:3]] == ["I bought a lamp.", "Nice."]
    assert len(context["passages"]) == 1


def test_nothing_relevant_is_said(http: httpx.Client, corpus: Corpus) -> None:
    body = {"question": "Who won the tennis match?", "score_threshold": 0.99}
    context = http.post("/v1/vector_stores/help/context", json=body).json()
    assert (context["grounded"], context["passages"]) == (False, [])


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "invalid_value", "messages"),
        ({"question": "x", "messages": [{"role": "user", "content": "x"}]}, 400, "invalid_value", "messages"),
        ({"question": "x", "vector_store_ids": ["help"]}, 400, "unknown_parameter", "vector_store_ids"),
        ({"question": "x", "model": "none"}, 404, "model_not_found", "model"),
        ({"question": "x", "prompt": "../../etc/passwd"}, 400, "unknown_prompt", "prompt"),
        ({"question": "x", "order": "odd"}, 400, "invalid_value", "order"),
        ({"question": "lamp " * 9000}, 400, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [IMAGE]}, 400, "invalid_value", "messages.0.content.0.type"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "empty_query", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
    ],
)  # fmt: skip
def test_a_context_that_cannot_be_is_refused_by_field(
    http: httpx.Client, corpus: Corpus, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    refused(http.post("/v1/vector_stores/help/context", json=body), status, code, param)
