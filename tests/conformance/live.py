"""Every operation of OpenAI's specification called on a server, with success and in error, and each body validated.

    python -m tests.conformance.live [-v]

A body must be valid by the pinned specification (JSON Schema 2020-12, with `nullable` and `$recursiveRef` as it means
them); an error by its `ErrorResponse`. Fields of ours beside OpenAI's are allowed, as its clients allow them. In a
stream each event is validated. Sound, an answer in base64 and a file's bytes have no schema there that could be meant.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from rag.settings import ServerSettings, Settings
from tests.api.running import RunningServer, finished, upload, wait_for
from tests.conformance.score import GROUPS, operations
from tests.data import pinned_specification
from tests.fakes.openai_server import FakeOpenAI

KEY = "sesame"


@dataclass
class Live:
    """Calls operations and remembers what came of each."""

    http: httpx.Client
    pinned: Mapping[str, Any]
    mismatches: dict[str, list[str]] = field(default_factory=dict)
    """By operation."""
    statuses: dict[str, list[int]] = field(default_factory=dict)

    def call(self, operation: str, status: int, *ids: str, **request: Any) -> Any:
        """Call `METHOD /path` with these ids in its path, and check the status and the body. Returns the body."""
        method, path = operation.split()
        answer = self.http.request(method, "/v1" + _filled(path, ids), **request)
        self.statuses.setdefault(operation, []).append(answer.status_code)
        if answer.status_code != status:
            self._mismatch(operation, f"status {answer.status_code} instead of {status}: {answer.text[:300]}")
            return {}
        bodies = list(_bodies(answer))
        for body in bodies:
            self._validate(operation, answer, body)
        return bodies[-1] if bodies else {}

    def unanswered(self) -> list[str]:
        """Operations that were not called with success and in error, as far as they have both."""
        missing = []
        for method, path in operations(self.pinned):
            name = f"{method.upper()} {path}"
            seen = {status // 100 for status in self.statuses.get(name, [])}
            missing += [name] if seen < ({4} if name in NEVER_DONE else {2, 4}) else []
        return missing

    def _validate(self, operation: str, answer: httpx.Response, body: Any) -> None:
        method, path = operation.split()
        pinned = self.pinned["paths"][path][method.lower()]["responses"]
        schema: Any = {"$ref": "#/components/schemas/ErrorResponse"}
        if answer.is_success:
            content = pinned["200"].get("content", {})
            stream = content.get("text/event-stream") if _is_stream(answer) else None
            schema = (stream or next(iter(content.values()), {"schema": True}))["schema"]
        for error in _validator(self.pinned, schema).iter_errors(body):
            self._mismatch(operation, f"{answer.status_code} {error.json_path}: {error.message[:300]}")

    def _mismatch(self, operation: str, what: str) -> None:
        self.mismatches.setdefault(operation, []).append(what)


NEVER_DONE = ("DELETE /models/{model}",)
"""Operations that are always refused: models stand in the settings."""


def run(http: httpx.Client, pinned: Mapping[str, Any], groups: Sequence[str] = tuple(GROUPS)) -> Live:
    """Call every operation of these groups. `http` carries the key of a server with the model `scripted`."""
    live = Live(http, pinned)
    for group in groups:
        CALLS[group](live)
    for method, path in operations(pinned):
        if path.startswith(tuple(GROUPS[group] for group in groups)):
            ids = ["x"] * path.count("{")
            live.call(f"{method.upper()} {path}", 401, *ids, headers={"Authorization": "Bearer wrong"})
    return live


def _files(live: Live) -> None:
    for purpose in ("assistants", "batch", "fine-tune", "vision", "user_data", "evals"):
        live.call("POST /files", 200, files={"file": ("a.txt", b"text")}, data={"purpose": purpose})
    term = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = live.call("POST /files", 200, files={"file": ("b ü.md", b"# B")}, data={"purpose": "assistants", **term})
    live.call("POST /files", 400, files={"file": ("a.txt", b"text")})
    live.call("POST /files", 400, content=b"{}", headers={"Content-Type": "application/json"})
    live.call("POST /files", 413, files={"file": ("a.txt", b"x" * (2 << 20))}, data={"purpose": "assistants"})
    live.call("GET /files", 200, params={"limit": 2, "order": "asc"})
    live.call("GET /files", 200, params={"purpose": "none"})
    live.call("GET /files", 400, params={"after": "file-none"})
    live.call("GET /files/{file_id}", 200, made["id"])
    live.call("GET /files/{file_id}/content", 200, made["id"])
    live.call("DELETE /files/{file_id}", 200, made["id"])
    for operation in ("GET /files/{file_id}", "GET /files/{file_id}/content", "DELETE /files/{file_id}"):
        live.call(operation, 404, made["id"])


def _stores(live: Live) -> None:
    term = {"anchor": "last_active_at", "days": 7}
    store = "/vector_stores/{vector_store_id}"
    body = {"name": "live", "description": "d", "metadata": {"k": "v"}, "expires_after": term}
    made = live.call("POST /vector_stores", 200, json=body)["id"]
    live.call("POST /vector_stores", 200, json={})
    live.call("POST /vector_stores", 400, json={"nam": "x"})
    live.call("POST /vector_stores", 404, json={"file_ids": ["file-none"]})
    live.call("POST /vector_stores", 400, content=b"{", headers={"Content-Type": "application/json"})
    live.call("GET /vector_stores", 200, params={"limit": 1})
    live.call("GET /vector_stores", 200, params={"before": made, "order": "asc"})
    live.call("GET /vector_stores", 400, params={"limit": 0})
    live.call(f"GET {store}", 200, made)
    live.call(f"POST {store}", 200, made, json={"name": "live 2", "expires_after": None})
    live.call(f"POST {store}", 400, made, json={"name": 5})
    _store_files(live, made)
    _batches(live, made)
    _search(live, made)
    live.call(f"DELETE {store}", 200, made)
    for method in ("GET", "DELETE"):
        live.call(f"{method} {store}", 404, made)


def _store_files(live: Live, store: str) -> None:
    path = "/vector_stores/{vector_store_id}/files"
    static = {"type": "static", "static": {"max_chunk_size_tokens": 4096, "chunk_overlap_tokens": 0}}
    good = upload(live.http, "heron.md", "# Heron\n\nThe heron stands in the water.")
    bad, empty = upload(live.http, "a.bin", bytes(range(256)) * 8), upload(live.http, "a.txt", "")
    attributes = {"s": "x", "n": 1, "f": 0.5, "b": True}
    live.call(f"POST {path}", 200, store, json={"file_id": good, "attributes": attributes})
    live.call(f"POST {path}", 200, store, json={"file_id": bad, "chunking_strategy": static})
    live.call(f"POST {path}", 200, store, json={"file_id": empty, "chunking_strategy": {"type": "auto"}})
    live.call(f"POST {path}", 400, store, json={"file_id": good, "attributes": {"k": []}})
    live.call(f"POST {path}", 404, store, json={"file_id": "file-none"})
    for file_id in (good, bad, empty):
        finished(live.http, store, file_id)
        live.call(f"GET {path}/{{file_id}}", 200, store, file_id)
    live.call(f"GET {path}", 200, store, params={"limit": 2})
    live.call(f"GET {path}", 200, store, params={"filter": "cancelled"})
    live.call(f"GET {path}", 400, store, params={"filter": "odd"})
    live.call(f"POST {path}/{{file_id}}", 200, store, good, json={"attributes": None})
    live.call(f"POST {path}/{{file_id}}", 400, store, good, json={})
    live.call(f"GET {path}/{{file_id}}/content", 200, store, good)
    live.call(f"GET {path}/{{file_id}}/content", 404, store, bad)
    live.call(f"DELETE {path}/{{file_id}}", 200, store, bad)
    for method in ("GET", "DELETE"):
        live.call(f"{method} {path}/{{file_id}}", 404, store, bad)


def _batches(live: Live, store: str) -> None:
    path = "/vector_stores/{vector_store_id}/file_batches"
    files = [upload(live.http, f"{n}.txt", f"Text number {n}.") for n in range(3)]
    made = live.call(f"POST {path}", 200, store, json={"file_ids": files})
    live.call(f"POST {path}", 200, store, json={"files": [{"file_id": files[0], "attributes": {"n": 1}}]})
    live.call(f"POST {path}", 400, store, json={})
    one = f"{path}/{{batch_id}}"
    live.call(f"GET {one}/files", 200, store, made["id"], params={"limit": 2})
    wait_for(lambda: live.call(f"GET {one}", 200, store, made["id"])["status"] != "in_progress")
    live.call(f"GET {one}/files", 200, store, made["id"], params={"filter": "failed"})
    live.call(f"POST {one}/cancel", 400, store, made["id"])
    waiting = [upload(live.http, f"{n}.txt", f"A long text {n}. " * 20_000) for n in range(4)]
    batch = live.call(f"POST {path}", 200, store, json={"file_ids": waiting})
    live.call(f"POST {one}/cancel", 200, store, batch["id"])
    for operation in (f"GET {one}", f"GET {one}/files", f"POST {one}/cancel"):
        live.call(operation, 404, store, "vsfb_none")


def _search(live: Live, store: str) -> None:
    path = "POST /vector_stores/{vector_store_id}/search"
    options = {"ranker": "default-2024-11-15", "score_threshold": 0.0}
    either = {"type": "or", "filters": [{"type": "eq", "key": "n", "value": 1}, {"type": "ne", "key": "n", "value": 2}]}
    body = {"query": "the heron", "filters": either, "ranking_options": options, "rewrite_query": True}
    assert live.call(path, 200, store, json=body).get("data")
    live.call(path, 200, store, json={"query": ["heron", "number"], "max_num_results": 1})
    live.call(path, 400, store, json={"query": "x", "filters": {"type": "like"}})
    live.call(path, 404, "none", json={"query": "x"})


def _embeddings(live: Live) -> None:
    for given in ("one text", ["two", "texts"], [1, 2], [[1], [2, 3]]):
        live.call("POST /embeddings", 200, json={"model": "toy-384", "input": given})
    live.call("POST /embeddings", 400, json={"model": "toy-384", "input": []})
    live.call("POST /embeddings", 404, json={"model": "none", "input": "x"})


def _models(live: Live) -> None:
    for model in live.call("GET /models", 200)["data"]:
        live.call("GET /models/{model}", 200, model["id"])
    live.call("GET /models/{model}", 404, "none")
    live.call("DELETE /models/{model}", 403, "extractive")
    live.call("DELETE /models/{model}", 404, "none")


def _chat(live: Live) -> None:
    store = _filled_store(live, "chat")
    body = {"messages": [{"role": "user", "content": "Where does the heron stand?"}], "vector_store_ids": [store]}
    for model in ("extractive", "scripted"):
        for stream in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            live.call("POST /chat/completions", 200, json={"model": model, **body, **stream})
    live.call("POST /chat/completions", 404, json={"model": "none", **body})
    live.call("POST /chat/completions", 400, json={"model": "extractive", **body, "messages": []})
    made = live.call("POST /chat/completions", 200, json={"model": "scripted", **body, "store": True})
    listed = live.call("GET /chat/completions", 200, params={"model": "scripted", "limit": 1})
    assert [stored["id"] for stored in listed["data"]] == [made["id"]]
    live.call("GET /chat/completions", 200, params={"metadata[k]": "none"})
    live.call("GET /chat/completions", 400, params={"order": "odd"})


def _responses(live: Live) -> None:
    tool = {"type": "file_search", "vector_store_ids": [_filled_store(live, "responses")]}
    one = "/responses/{response_id}"
    body = {"input": "Where does the heron stand?", "tools": [tool], "include": ["file_search_call.results"]}
    made = {}
    for model in ("extractive", "scripted"):
        for stream in ({"stream": True}, {}):
            made = live.call("POST /responses", 200, json={"model": model, **body, **stream})
    live.call("POST /responses", 404, json={"model": "none", **body})
    live.call("POST /responses", 400, json={"model": "extractive", **body, "input": 5})
    made_id = made.get("id", "none")
    live.call("POST /responses", 200, json={"model": "extractive", **body, "previous_response_id": made_id})
    live.call(f"GET {one}", 200, made_id)
    live.call(f"GET {one}/input_items", 200, made_id)
    live.call(f"POST {one}/cancel", 200, made_id)
    live.call(f"DELETE {one}", 200, made_id)
    for operation in (f"GET {one}", f"GET {one}/input_items", f"POST {one}/cancel", f"DELETE {one}"):
        live.call(operation, 404, made_id)


CALLS: Mapping[str, Callable[[Live], None]] = {
    "Files": _files,
    "Vector Stores": _stores,
    "Embeddings": _embeddings,
    "Models": _models,
    "Chat": _chat,
    "Responses": _responses,
}


def _filled_store(live: Live, name: str) -> str:
    store = str(live.http.post("/v1/vector_stores", json={"name": name}).json()["id"])
    file_id = upload(live.http, "heron.md", "# Heron\n\nThe heron stands in the water.")
    live.http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id})
    finished(live.http, store, file_id)
    return store


def _filled(path: str, ids: Sequence[str]) -> str:
    parts, given = path.split("/"), iter(ids)
    return "/".join(next(given) if part.startswith("{") else part for part in parts)


def _is_stream(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("text/event-stream")


def _bodies(answer: httpx.Response) -> Iterator[Any]:
    """The JSON of an answer, that of each event of a stream; of bytes, their text."""
    if _is_stream(answer):
        for line in answer.text.splitlines():
            if line.startswith("data:") and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data:"))
    elif answer.headers.get("content-type", "").startswith("application/json"):
        yield answer.json()
    elif answer.content:
        yield answer.text


def _validator(pinned: Mapping[str, Any], schema: Any) -> Draft202012Validator:
    rules = {"components": pinned["components"], **(schema if isinstance(schema, dict) else {})}
    return Draft202012Validator(_as_meant(rules))


def _as_meant(schema: Any) -> Any:
    """A schema in the 2020-12 dialect; fields besides those that it names are allowed."""
    if isinstance(schema, list):
        return [_as_meant(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$recursiveRef" in schema:
        return {"$ref": "#/components/schemas/CompoundFilter"}
    kept = {name: value for name, value in schema.items() if (name, value) != ("additionalProperties", False)}
    meant = {name: _as_meant(value) for name, value in kept.items() if name not in ("nullable", "$recursiveAnchor")}
    return {"anyOf": [meant, {"type": "null"}]} if schema.get("nullable") is True else meant


def serve(folder: Path, provider: FakeOpenAI) -> RunningServer:
    """The server to be called: a key, a language model that says what it is told, files of 1 MiB at most."""
    scripted = {
        "provider": "openai",
        "model": "gpt-4o",
        "window": 8192,
        "output_limit": 512,
        "tokenizer": "o200k_base",
        "base_url": provider.base_url,
    }
    settings = Settings(
        data=folder,
        embedder="toy-384",
        models={"scripted": scripted},
        server=ServerSettings(api_key=SecretStr(KEY), max_body_mb=1),
    )
    return RunningServer(settings, jobs=True)


def calling(server: RunningServer) -> httpx.Client:
    """A client of such a server that carries the key."""
    return httpx.Client(base_url=server.url, timeout=60, headers={"Authorization": f"Bearer {KEY}"})


def main(arguments: Sequence[str]) -> int:
    """Print what came of each operation. Not 0 where a body was not valid, or an operation was not called."""
    pinned = pinned_specification()
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeOpenAI() as provider,
        serve(Path(folder), provider) as server,
        calling(server) as http,
    ):
        live = run(http, pinned)
    for operation, statuses in live.statuses.items():
        found = live.mismatches.get(operation, [])
        print(f"{operation:75} {len(statuses):3} calls, {len(found):3} mismatches")
        if "-v" in arguments:
            print(*(f"    {what}" for what in found), sep="\n")
    missing = live.unanswered()
    total = sum(map(len, live.mismatches.values()))
    print(f"{total} mismatches; not called with success and in error: {', '.join(missing) or 'none'}")
    return int(bool(total or missing))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
