"""Ugly input: whatever comes, the answer is an error in one shape, and the server lives."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.errors import error_response, status_of
from indexes.errors import ChangeRequest, NotThere, TryLater, Unsupported
from tests.api.running import Corpus, RunningServer, refused

JSON_ROUTES = [
    "/v1/vector_stores",
    "/v1/vector_stores/help",
    "/v1/vector_stores/help/files",
    "/v1/vector_stores/help/files/{file}",
    "/v1/vector_stores/help/file_batches",
    "/v1/vector_stores/help/search",
    "/v1/vector_stores/help/context",
    "/v1/embeddings",
    "/v1/context",
    "/v1/chat/completions",
]
NOT_JSON = [
    b"{",
    b"\xff\xfe{}",
    b'{"query": NaN}',
    b'{"query": 1e999}',
    b'{"query": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"query": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"query": "x"} trailing',
]
NOT_AN_OBJECT = [b"null", b"5", b'"text"', b"[]", b"[{}]", b"true"]


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_what_is_not_json_is_refused(http: httpx.Client, corpus: Corpus, path: str) -> None:
    path = path.replace("{file}", corpus.files["battery.md"])
    headers = {"content-type": "application/json"}
    for body in NOT_JSON:
        refused(http.post(path, content=body, headers=headers), 400, "invalid_json")
    for body in NOT_AN_OBJECT:
        answer = http.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    refused(http.post(path, headers=headers), 400, "missing_required_parameter")
    for kind in ("", "text/plain", "application/x-www-form-urlencoded"):
        refused(http.post(path, content=b"{}", headers={"content-type": kind}), 400, "invalid_content_type")
    refused(http.post(path, json={"unknown": 1}), 400, "unknown_parameter", "unknown")


def test_a_form_that_is_none_is_refused_in_a_sentence(http: httpx.Client) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
    for content in (b"", b"--b\r\n\r\n", part, part * 3_000 + b"--b--", b"--b\r\nX: " + b"y" * 100_000):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = http.post("/v1/files", content=content, headers=headers)
        assert answer.status_code == 400
        assert not answer.json()["error"]["message"].endswith("..")


def test_fields_of_any_type_are_refused_or_taken_never_fatal(http: httpx.Client, corpus: Corpus) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    odd = [None, True, -1, 2**70, "a\0b", [[]], {"": None}, deep]
    fields = {
        "/v1/vector_stores": [
            "name",
            "file_ids",
            "metadata",
            "chunking_strategy",
            "description",
            "embedder",
            "expires_after",
        ],
        "/v1/vector_stores/help/file_batches": ["file_ids", "files", "attributes", "chunking_strategy"],
        "/v1/embeddings": ["input", "model", "encoding_format", "dimensions", "user", "input_type"],
        "/v1/vector_stores/help/search": ["query", "filters", "max_num_results", "ranking_options", "mode"],
        "/v1/context": ["messages", "question", "vector_store_ids", "prompt", "window", "tokenizer", "max_tokens"],
        "/v1/chat/completions": ["messages", "model", "stop", "stream_options", "max_completion_tokens", "tools"],
    }
    good = {
        "/v1/vector_stores/help/search": {"query": "lamp"},
        "/v1/vector_stores/help/file_batches": {"file_ids": [corpus.files["battery.md"]]},
        "/v1/embeddings": {"model": "toy-384", "input": "lamp"},
        "/v1/context": {"question": "lamp", "vector_store_ids": ["help"]},
        "/v1/chat/completions": {
            "model": "extractive",
            "messages": [{"role": "user", "content": "lamp"}],
            "vector_store_ids": ["help"],
        },
    }
    for path, names in fields.items():
        for name in names:
            for value in odd:
                answer = http.post(path, json={**good.get(path, {}), name: value})
                assert answer.status_code in (200, 400, 404), (path, name, value, answer.text)
                if answer.status_code == 200 and path == "/v1/vector_stores":
                    http.delete(f"/v1/vector_stores/{answer.json()['id']}")
    assert http.get("/readyz").status_code == 200


def test_an_error_repeats_no_more_than_it_takes(http: httpx.Client, corpus: Corpus) -> None:
    for body in ({"k" * 1_000_000: 1}, {"query": "lamp", "mode": "m" * 1_000_000}):
        answer = http.post("/v1/vector_stores/help/search", json=body)
        assert (answer.status_code, len(answer.content) < 4_000) == (400, True)


def test_routes_that_are_not_there_are_told_in_the_same_shape(http: httpx.Client) -> None:
    for path in ("/", "/v2/files", "/v1/files/x/y/z", "/%2e%2e/etc/passwd", "/v1/%00"):
        refused(http.get(path), 404, "unknown_url")
    for method, path in (("PUT", "/v1/files"), ("PATCH", "/v1/vector_stores/x"), ("DELETE", "/healthz")):
        answer = http.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]


def test_what_is_not_http_gets_no_further(server: RunningServer) -> None:
    for noise in (b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"):
        assert b"200 OK" not in server.say(noise)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_each_family_has_its_status() -> None:
    assert status_of(ChangeRequest("x")) == status_of(Unsupported("x")) == 400
    assert status_of(NotThere("x")) == 404
    assert status_of(TryLater("x")) == 503
    assert status_of(TryLater("x", code="rate_limit_exceeded")) == 429
    assert error_response(TryLater("x", retry_after=1.2)).headers["retry-after"] == "2"
    assert b"\\ud800" in bytes(error_response(ChangeRequest("half \ud800")).body)
