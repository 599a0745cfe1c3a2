"""The documentation: a page that needs no network, a schema that keeps its word, examples that run as they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.openapi import ERRORS
from api.openapi_examples import EXAMPLES, FILE, GENERATION, KEY, PATH_EXAMPLES, QUESTIONS, STORE, TRACE
from rag.settings import Settings
from tests.api.running import Corpus, RunningServer, fill, upload, wait_for

SCHEMA: dict[str, Any] = create_app(Settings()).openapi()
HEALTH = ("/healthz", "/readyz")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in SCHEMA["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def examples() -> list[Any]:
    """Every example that the schema shows, with its name as the test's."""
    found = []
    for method, path, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            found.append(pytest.param(method, path, example["value"], id=f"{method} {path} {name}"))
    return found


@pytest.fixture(scope="module")
def manual(server: RunningServer) -> Iterator[Corpus]:
    """The store that the examples speak of."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        corpus = fill(http, STORE)
        # The first one compiles the model, which takes longer than any other request may.
        http.post("/v1/embeddings", json={"model": "default", "input": "a lamp"}, timeout=180).raise_for_status()
        line = {"question": "How long does a full battery last?", "labels": [{"document": corpus.files["battery.md"]}]}
        line["split"] = "dev"
        assert http.post("/v1/question_sets", params={"name": QUESTIONS}, content=json.dumps(line)).status_code == 200
        yield corpus
        http.delete(f"/v1/vector_stores/{corpus.store}")


def ready_generation(http: httpx.Client, store: str) -> str:
    """A new generation of a store that may be promoted."""
    where = f"/v1/vector_stores/{store}/generations"
    made = str(http.post(where, json={"embedder": "toy-256"}).json()["id"])
    wait_for(lambda: http.get(f"{where}/{made}").json()["state"] == "ready")
    return made


@pytest.mark.parametrize(("method", "path", "body"), examples())
def test_an_example_runs_as_it_stands(
    http: httpx.Client, manual: Corpus, method: str, path: str, body: dict[str, Any]
) -> None:
    in_store = path.endswith("{file_id}")
    file = manual.files["returns.md"] if in_store else upload(http, "example.md", f"# Example\n\nOf {path} {body}.\n")
    where, said = path.format(**PATH_EXAMPLES).replace(FILE, file), json.dumps(body).replace(FILE, file)
    if KEY in where:
        where = where.replace(KEY, http.post("/v1/keys", json={"name": "example"}).json()["id"])
    if GENERATION in where or where.endswith("rollback"):
        where = where.replace(GENERATION, ready_generation(http, manual.store))
    if where.endswith("rollback"):
        newest = http.get(f"/v1/vector_stores/{manual.store}/generations").json()["data"][-1]["id"]
        http.post(f"/v1/vector_stores/{manual.store}/generations/{newest}/promote", json={})
    if TRACE in said:
        asked = EXAMPLES["post", "/v1/responses"]["answer"]
        said = said.replace(TRACE, http.post("/v1/responses", json=asked).headers["X-RAG-Trace-ID"])
    answer = http.request(method, where, json=json.loads(said))
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert events
        assert not [
            event for event in events if event.get("error") or event.get("type") in ("error", "response.failed")
        ]
    else:
        assert answer.json()
    if path == "/v1/ab_tests":
        http.delete(f"{path}/{answer.json()['id']}")
    if path == "/v1/vector_stores" and answer.json()["name"] != STORE:
        http.delete(f"/v1/vector_stores/{answer.json()['id']}")


def test_every_operation_with_a_json_body_has_an_example() -> None:
    """So that whoever adds one shows how it is used: in `api/openapi_examples.py`."""
    bodies = [
        (method, path)
        for method, path, operation in operations()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]
    assert bodies
    assert set(bodies) <= EXAMPLES.keys()


def test_every_operation_says_how_it_fails_and_describes_itself() -> None:
    for method, path, operation in operations():
        said = {int(status) for status in operation["responses"] if status.isdecimal() and status != "200"}
        assert said <= ERRORS.keys(), (method, path)
        assert {400, 500, 503} <= said
        assert ({401, 403, 429} <= said) == (path not in HEALTH)
        assert (404 in said) >= ("{" in path)
        assert (413 in said) == ("requestBody" in operation)
        assert operation["description"], (method, path)


def test_both_halves_are_documented() -> None:
    tags = {tag for *_, operation in operations() for tag in operation["tags"]}
    assert {"files", "vector stores", "chat", "models", "context", "dify"} <= tags


def test_the_page_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert not re.findall(r"(?:https?:)?//[a-z]", page.text)
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        file = http.get(link)
        assert (file.status_code, len(file.content) > 1000) == (200, True), link
        assert "cdn" not in link
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "3.1" in http.get("/docs/files/swagger-ui-bundle.js").text
    assert http.get("/docs/files/../files/..%2f..%2fcore.py").status_code == 404
    assert http.get("/redoc").status_code == 404
