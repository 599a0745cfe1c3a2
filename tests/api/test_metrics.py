"""What Prometheus reads."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.running import Corpus, RunningServer, refused, wait_for
from tests.fakes.openai_server import FakeOpenAI, Say

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
SEARCH = "/v1/vector_stores/{vector_store_id}/search"
LABELS = {"method", "route", "status", "stage", "model", "direction", "cache", "found", "source", "verdict", "outcome"}


def read(http: httpx.Client) -> Samples:
    answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_requests_stages_and_tokens_are_counted(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    before = read(http)
    question = f"charge the lamp {secrets.token_hex(4)}"
    for _ in range(2):
        assert http.post("/v1/vector_stores/help/search", json={"query": question}).status_code == 200
    assert http.post("/v1/vector_stores/help/search", json={"query": ""}).status_code == 400
    provider.chat(Say("Two hours [1].", usage=(40, 7)))
    asked = {"model": "scripted", "vector_store_ids": ["help"], "messages": [{"role": "user", "content": question}]}
    trace_id = http.post("/v1/chat/completions", json=asked).json()["trace_id"]
    given = {"trace_id": trace_id, "name": "helpful", "value": True, "idempotency_key": "once"}
    for body in (given, given, {"trace_id": trace_id, "name": "tone", "label": "curt", "source": "llm_judge"}):
        assert http.post("/v1/feedback", json=body).status_code == 200
    expected = {
        ("rag_requests_total", f"POST {SEARCH} 200"): 2,
        ("rag_requests_total", f"POST {SEARCH} 400"): 1,
        ("rag_request_seconds_count", SEARCH): 3,
        **{("rag_stage_seconds_count", stage): 3 for stage in ("search", "hydrate", "embed")},
        **{("rag_stage_seconds_count", stage): 1 for stage in ("pack", "rewrite", "queue", "first_token", "answer")},
        ("rag_first_token_seconds_count", "scripted"): 1,
        ("rag_tokens_total", "in scripted"): 40,
        ("rag_tokens_total", "out scripted"): 7,
        ("rag_cache_lookups_total", "question_vectors no"): 1,
        ("rag_cache_lookups_total", "question_vectors yes"): 2,
        ("rag_feedback_total", "human up"): 1,
        ("rag_feedback_total", "llm_judge other"): 1,
    }

    def grown() -> dict[tuple[str, str], float]:
        found = {(name, " ".join(v for _, v in labels)): number for (name, labels), number in read(http).items()}
        then = {(name, " ".join(v for _, v in labels)): number for (name, labels), number in before.items()}
        return {key: found.get(key, 0) - then.get(key, 0) for key in expected}

    wait_for(lambda: grown() == expected, 10)  # the last one is counted when its answer has gone
    assert value(read(http), "rag_first_token_seconds_sum", model="scripted") > 0


def test_gauges_are_those_of_the_catalog(http: httpx.Client, corpus: Corpus) -> None:
    now = read(http)
    assert value(now, "rag_catalog_readable") == 1
    assert value(now, "rag_documents", state="completed") >= 3
    assert ("rag_documents", (("state", "failed"),)) in now
    assert value(now, "rag_generations", state="live") >= 1
    assert value(now, "rag_open_views") >= 1
    assert value(now, "rag_view_lag_seconds") < 30
    assert value(now, "process_open_fds") > 0


def test_no_label_repeats_what_a_caller_chose(http: httpx.Client, corpus: Corpus) -> None:
    word = f"qz{secrets.token_hex(6)}"
    assert http.get(f"/v1/{word}").status_code == 404
    assert http.request(word.upper(), "/v1/files").status_code == 405
    assert http.post(f"/v1/vector_stores/{word}/search", json={"query": word}).status_code == 404
    assert http.get("/v1/files", headers={"X-Request-ID": word}, params={"after": word}).status_code == 400
    now = read(http)
    assert word not in http.get("/metrics").text.lower()
    assert value(now, "rag_requests_total", method="GET", route="none", status="404") >= 1
    assert value(now, "rag_requests_total", method="none", route="/v1/files", status="405") >= 1
    labels = {label for name, pairs in now if name.startswith("rag_") for label, _ in pairs}
    assert labels - {"le", "state", "watch"} <= LABELS


def test_they_are_for_the_operator(http: httpx.Client) -> None:
    made = {scope: http.post("/v1/keys", json={"name": "k", "scopes": [scope]}).json() for scope in ("query", "admin")}
    keys = {scope: {"Authorization": f"Bearer {key['secret']}"} for scope, key in made.items()}
    assert http.get("/metrics", headers=keys["admin"]).status_code == 200
    refused(http.get("/metrics", headers=keys["query"]), 403, "insufficient_scope")
    other = http.post("/v1/keys", json={"name": "k", "scopes": ["admin"], "tenant": "other"}).json()["secret"]
    refused(http.get("/metrics", headers={"Authorization": f"Bearer {other}"}), 403, "insufficient_scope")


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.0.0.7", 401)])
async def test_where_they_are_open_they_are_so_to_this_machine(locked: RunningServer, client: str, status: int) -> None:
    transport = httpx.ASGITransport(locked.app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as caller:
        assert (await caller.get("/metrics")).status_code == status
        assert (await caller.get("/v1/status")).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_counted_too(http: httpx.Client, path: str) -> None:
    before = value(read(http), "rag_requests_total", method="GET", route=path, status="200")
    http.get(path)
    assert value(read(http), "rag_requests_total", method="GET", route=path, status="200") == before + 1
