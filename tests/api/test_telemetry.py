"""OpenTelemetry's spans of a request, as its own SDK records them."""

from __future__ import annotations

import secrets

import httpx

from tests.api.running import Corpus
from tests.fakes.openai_server import FakeOpenAI, Say, Status
from tests.spans import Spans, id_of, parent_of

CHAT = "/v1/chat/completions"


def ask(question: str) -> dict[str, object]:
    messages = [{"role": "user", "content": question}]
    return {"model": "scripted", "vector_store_ids": ["help"], "messages": messages, "temperature": 0.5}


def test_a_request_is_taken_up_where_its_caller_is(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, spans: Spans
) -> None:
    provider.chat(Say("Two hours [1].", usage=(40, 7)))
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    word = f"lamp{secrets.token_hex(4)}"
    headers = {"traceparent": f"00-{trace_id}-{caller}-01"}
    answer = http.post(CHAT, json=ask(f"How long must I charge the {word} lamp?"), headers=headers)
    assert answer.status_code == 200, answer.text
    request, retrieval, chat = spans.one("POST /v1/chat"), spans.one("retrieval"), spans.one("chat")
    embeddings = spans.one("embeddings")
    assert parent_of(request) == int(caller, 16)
    assert {f"{span.context.trace_id:032x}" for span in spans.all() if span.context} == {trace_id}
    assert [parent_of(span) for span in (retrieval, chat, embeddings)] == [id_of(request)] * 2 + [id_of(retrieval)]
    told = http.get(f"/v1/traces/{answer.json()['trace_id']}").json()
    assert told["otel_trace_id"] == trace_id
    assert request.attributes is not None
    assert (request.attributes["rag.trace.id"], request.attributes["http.route"]) == (told["id"], CHAT)
    assert dict(chat.attributes or {}) | {"server.port": 0, "gen_ai.response.time_to_first_chunk": 0.0} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 7,
        "server.address": "127.0.0.1",
        "server.port": 0,
    }
    assert (chat.name, retrieval.name) == ("chat gpt-4o", f"retrieval {corpus.store}")
    assert retrieval.attributes is not None
    assert retrieval.attributes["gen_ai.data_source.id"] == corpus.store
    assert retrieval.attributes["rag.generation.ids"] == (told["generations"][0]["id"],)
    assert dict(embeddings.attributes or {}) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "toy",
        "gen_ai.request.model": "toy-384",
        "gen_ai.embeddings.dimension.count": 384,
    }
    said = spans.words()
    assert not [words for words in (word, "Two hours", "evenings") if words in said], "content stays out"


def test_a_failure_is_told_by_its_code_alone(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, spans: Spans
) -> None:
    provider.chat(Status(500))
    assert http.post(CHAT, json=ask("How long must I charge the lamp?")).status_code == 503
    missing = http.post(
        "/v1/vector_stores/help/search", json={"query": "lamp", "filters": {"type": "eq", "key": "qzx", "value": 1}}
    )
    assert missing.status_code == 400
    chat, failed = spans.one("chat"), spans.all()[-2]
    assert chat.attributes is not None
    assert failed.attributes is not None
    assert (chat.attributes["error.type"], chat.status.is_ok) == ("unavailable", False)
    assert failed.name.startswith("retrieval")
    assert failed.attributes["error.type"] == missing.json()["error"]["code"]
    assert "qzx" not in spans.words()


def test_probes_leave_nothing(http: httpx.Client, spans: Spans) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert http.get(path).status_code == 200
    assert spans.all() == ()
