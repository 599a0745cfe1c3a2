"""Traces and feedback: what is noted, for whom, and for how long."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.api.running import Corpus, refused
from tests.fakes.openai_server import FakeOpenAI, Say, Status

CHAT = "/v1/chat/completions"
QUESTION = "How long must I charge the lamp?"


def ask(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": "scripted", "vector_store_ids": ["help"], "messages": messages, **fields}


def test_a_trace_tells_how_an_answer_came_about(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Two hours [1], not [9].", usage=(40, 7)))
    answered = http.post(CHAT, json=ask())
    trace_id = answered.headers["x-rag-trace-id"]
    assert answered.json()["trace_id"] == trace_id
    trace = http.get(f"/v1/traces/{trace_id}").json()
    assert (trace["id"], trace["kind"], trace["model"]) == (trace_id, "chat.completion", "scripted")
    assert trace["error"] is None
    assert trace["prompt"].keys() == {"id", "hash"}
    assert (trace["tokens"]["usage_prompt"], trace["tokens"]["usage_completion"]) == (40, 7)
    text = answered.json()["choices"][0]["message"]["content"]
    assert trace["answer"] == {"sha256": sha256(text.encode()).hexdigest(), "characters": len(text), "text": None}
    assert trace["query"]["sha256"] == sha256(QUESTION.encode()).hexdigest()
    assert QUESTION not in json.dumps(trace)
    assert [found["rank"] for found in trace["retrieved"]] == list(range(1, len(trace["retrieved"]) + 1))
    best = trace["retrieved"][0]
    assert (best["fate"], best["reason"], best["passage"]) == ("kept", "fits", 1)
    assert best["fused"] >= trace["retrieved"][-1]["fused"]
    (citation,) = trace["citations"]
    assert citation["file_id"] == answered.json()["citations"][0]["file_id"]
    assert citation["quote"] is None
    assert trace["removed_markers"] == 1
    assert {"rewrite", "search", "pack", "queue", "first_token", "answer", "total"} <= trace["timings_ms"].keys()
    (generation,) = trace["generations"]
    assert (generation["embedder"], generation["vector_index"]) == ("toy-384", "faiss")


def test_a_trace_tells_which_sentences_stand_on_their_passages(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI
) -> None:
    said = "Charge the lamp for 2 hours [1]. A full battery lasts forty evenings [1]."
    provider.chat(Say(said), Say(said), Say(said))
    plain = http.post(CHAT, json=ask()).json()
    asked = http.post(CHAT, json=ask(groundedness=True)).json()
    *_, last, _ = http.post(CHAT, json=ask(groundedness=True, stream=True)).text.strip().split("\n\n")
    assert "groundedness" not in plain
    found = asked["groundedness"]
    assert (found["sentences"], found["unsupported"]) == (2, 1)
    assert [sentence["supported"] for sentence in found["details"]] == [True, False]
    assert found["details"][1]["missing"][0] == {"kind": "number", "text": "forty"}
    assert said[found["details"][1]["start"] :].startswith("A full")
    assert any("negation" in spot for spot in found["blind_spots"])
    assert json.loads(last.removeprefix("data: "))["groundedness"] == found
    trace = http.get(f"/v1/traces/{plain['trace_id']}").json()
    assert "forty" not in json.dumps(trace)
    for sentence in found["details"]:
        sentence["missing"] = [{**lack, "text": None} for lack in sentence["missing"]]
    assert trace["groundedness"] == found


def test_what_claims_nothing_is_not_judged(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say('{"hours": "forty [1]"}'))
    form = {"response_format": {"type": "json_object"}}
    in_json = http.post(CHAT, json=ask(groundedness=True, **form)).json()
    off = http.post(CHAT, json=ask(model="extractive", groundedness=True, score_threshold=1.0)).json()
    for answer in (in_json, off):
        assert "groundedness" not in answer
        assert http.get(f"/v1/traces/{answer['trace_id']}").json()["groundedness"] is None


def test_every_door_leaves_a_trace(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Two hours [1]."), Status(500))
    stream = http.post(CHAT, json=ask(stream=True))
    failed = http.post(CHAT, json=ask())
    context = http.post("/v1/vector_stores/help/context", json={"question": QUESTION})
    kinds = {}
    for name, reply in (("stream", stream), ("failed", failed), ("context", context)):
        trace = http.get(f"/v1/traces/{reply.headers['x-rag-trace-id']}").json()
        kinds[name] = (trace["kind"], trace["error"], trace["answer"] is None)
    assert failed.status_code == 503
    assert context.json()["trace_id"] == context.headers["x-rag-trace-id"]
    assert kinds == {
        "stream": ("chat.completion", None, False),
        "failed": ("chat.completion", "unavailable", True),
        "context": ("context", None, True),
    }


def test_feedback_is_kept_once_for_a_key(http: httpx.Client, corpus: Corpus) -> None:
    trace_id = http.post(CHAT, json=ask(model="extractive")).json()["trace_id"]
    given = {"trace_id": trace_id, "name": "helpful", "value": True, "comment": "yes", "source": "human"}
    keyed = {"Idempotency-Key": "once"}
    first = http.post("/v1/feedback", json=given, headers=keyed).json()
    assert http.post("/v1/feedback", json=given, headers=keyed).json() == first
    assert http.post("/v1/feedback", json={**given, "idempotency_key": "once"}).json() == first
    answer = http.post("/v1/feedback", json={**given, "value": False}, headers=keyed)
    refused(answer, 400, "idempotency_key_reused", "idempotency_key")
    label = http.post("/v1/feedback", json={"trace_id": trace_id, "name": "tone", "label": "curt"}).json()
    trace = http.get(f"/v1/traces/{trace_id}").json()
    assert trace["feedback"] == [first, label]
    assert (first["value"], first["comment"], first["source"], label["label"]) == (True, "yes", "human", "curt")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"trace_id": "trace_none"}, 404, "trace_not_found", "trace_id"),
        ({"value": None}, 400, "invalid_value", None),
        ({"label": "both"}, 400, "invalid_value", None),
        ({"source": "nobody"}, 400, "invalid_value", "source"),
        ({"name": ""}, 400, "invalid_value", "name"),
        ({"name": "a\0b"}, 400, "nul_character", "name"),
        ({"more": 1}, 400, "unknown_parameter", "more"),
    ],
)
def test_feedback_that_is_none(
    http: httpx.Client, corpus: Corpus, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    trace_id = http.post(CHAT, json=ask(model="extractive")).json()["trace_id"]
    body = {"trace_id": trace_id, "name": "n", "value": 1.5, **fields}
    refused(http.post("/v1/feedback", json=body), status, code, param)
    refused(http.get("/v1/traces/none"), 404, "trace_not_found", "trace_id")


def test_stored_completions_are_listed(http: httpx.Client, corpus: Corpus) -> None:
    one = http.post(CHAT, json=ask(model="extractive", store=True, metadata={"bot": "a"})).json()
    *_, last = http.post(CHAT, json=ask(model="extractive", store=True, stream=True)).text.strip().split("\n\n")[:-1]
    two = json.loads(last.removeprefix("data: "))["id"]
    http.post(CHAT, json=ask(model="extractive"))
    listed = http.get(CHAT).json()
    assert [body["id"] for body in listed["data"]] == [one["id"], two]
    assert listed["data"][0] == one
    assert http.get(CHAT, params={"metadata[bot]": "a"}).json()["data"] == [one]
    assert http.get(CHAT, params={"model": "scripted"}).json()["data"] == []
    page = http.get(CHAT, params={"limit": 1, "order": "desc"}).json()
    assert (page["last_id"], page["has_more"]) == (two, True)
    assert http.get(CHAT, params={"after": two, "order": "desc"}).json()["data"] == [one]
    assert http.get(f"{CHAT}/{one['id']}").json() == one
    assert http.delete(f"{CHAT}/{one['id']}").json()["deleted"]
    http.delete(f"{CHAT}/{two}")
    refused(http.get(f"{CHAT}/{one['id']}"), 404, "chat_completion_not_found", "completion_id")
    refused(http.get(f"/v1/responses/{two}"), 404, "response_not_found", "response_id")
