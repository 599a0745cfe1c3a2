"""The tools of the Model Context Protocol, asked by the protocol's own client over both transports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from tests.api.running import Corpus, fill, finished, refused, upload, wait_for
from tests.installations import Process, one_process, running

httpx2 = pytest.importorskip("httpx2", reason="the extra `mcp` is not installed")
mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

KEY = {"Authorization": "Bearer sesame"}
SETTINGS = {"RAG_EMBEDDER": "toy-384", "RAG_API_KEY": "sesame", "RAG_SERVER_MCP": "true"}
RAG = [sys.executable, "-c", "from api.cli import main; main()"]
TRANSPORTS = ["http", "http of 2025", "stdio to a server", "stdio over the folder"]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with tools and the key `sesame`."""
    with running(one_process(tmp_path_factory.mktemp("tools"), SETTINGS)) as installation:
        yield installation.processes[0]


@pytest.fixture(scope="module")
def http(process: Process) -> Iterator[httpx.Client]:
    """A client of its API."""
    with httpx.Client(base_url=process.url, headers=KEY, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def corpus(http: httpx.Client) -> Corpus:
    return fill(http, "help")


@pytest.fixture(scope="module")
def reader(http: httpx.Client, corpus: Corpus) -> str:
    """A key that sees the three documents and not the fourth, which is about parcels as well."""
    hidden = upload(http, "hidden.md", "# Hidden\n\nParcels to Norway travel by submarine.\n")
    path = f"/v1/vector_stores/{corpus.store}/files"
    assert http.post(path, json={"file_id": hidden, "permissions": ["hr"]}).status_code == 200
    assert finished(http, corpus.store, hidden)["status"] == "completed"
    return str(http.post("/v1/keys", json={"name": "reader"}).json()["secret"])


@asynccontextmanager
async def client(process: Process, transport: str, key: str = "sesame") -> AsyncIterator[mcp.Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as open_http:
        over: Any = streamable_http_client(f"{process.url}/mcp", http_client=open_http)
        if "stdio" in transport:
            where = ["--url", process.url] if "server" in transport else ["--data", str(process.data)]
            environment = {"RAG_EMBEDDER": "toy-384", "RAG_API_KEY": key}
            over = mcp.StdioServerParameters(command=RAG[0], args=[*RAG[1:], "mcp", *where], env=environment)
        async with mcp.Client(over, mode="legacy" if "2025" in transport else "auto") as connected:
            yield connected


async def call(connected: mcp.Client, name: str, **arguments: Any) -> dict[str, Any]:
    """What a tool says: one text item, which is JSON."""
    result = await connected.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert [item.type for item in result.content] == ["text"]
    said: dict[str, Any] = json.loads(result.content[0].text)
    assert said == result.structured_content
    return said


async def fault(connected: mcp.Client, name: str, **arguments: Any) -> str:
    """Why a tool failed: an error of the tool, which the model reads."""
    result = await connected.call_tool(name, arguments)
    assert result.is_error
    assert "Traceback" not in result.content[0].text
    return str(result.content[0].text)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_three_tools_over_every_transport(
    process: Process, corpus: Corpus, reader: str, transport: str
) -> None:
    async with client(process, transport, reader) as connected:
        assert sorted(tool.name for tool in (await connected.list_tools()).tools) == ["context", "fetch", "search"]
        results = (await call(connected, "search", query="parcels to Norway"))["results"]
        assert {result["title"] for result in results} == {"Returns", "Shipping", "Battery"}
        assert {"id", "title", "url"} <= set(results[0])
        assert "Norway" in results[0]["text"]
        assert results[0]["title"] == "Shipping"
        assert results[0]["url"].endswith(f"/v1/files/{corpus.files['shipping.md']}/content")
        fetched = await call(connected, "fetch", id=results[0]["id"])
        assert set(fetched) == {"id", "title", "text", "url", "metadata"}
        span = slice(fetched["metadata"]["start"], fetched["metadata"]["end"])
        assert fetched["text"][span] == results[0]["text"]
        packed = await call(connected, "context", question="How do parcels go to Norway?")
        assert packed["grounded"]
        assert "boat" in packed["passages"][0]["text"]
        assert (await call(connected, "fetch", id=packed["passages"][0]["id"]))["title"] == "Shipping"
        assert "Search first" in await fault(connected, "fetch", id="nonsense")


async def test_stores_filters_and_limits(process: Process, corpus: Corpus) -> None:
    async with client(process, "http") as connected:
        lamp = {"type": "eq", "key": "topic", "value": "lamp"}
        asked = {"query": "kettle lamp boat", "vector_stores": ["help"]}
        assert len((await call(connected, "search", **asked, filters=lamp))["results"]) == 1
        assert len((await call(connected, "search", **asked, limit=2))["results"]) == 2
        packed = await call(connected, "context", question="kettle lamp boat", filters=lamp, window=2048)
        assert len(packed["passages"]) == 1
        assert 0 < packed["prompt_tokens"] <= 2048


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", {}, "'query'"),
        ("search", {"query": ""}, "'query'"),
        ("search", {"query": 7}, "'query'"),
        ("search", {"query": "lamp", "colour": "red"}, "'colour'"),
        ("search", {"query": "lamp", "vector_stores": ["none"]}, "'none'"),
        ("search", {"query": "lamp", "filters": {"type": "like"}}, "filters.type"),
        ("search", {"query": "lamp", "filters": {"type": "eq", "key": "none", "value": 1}}, "'none'"),
        ("fetch", {"id": "vs_1:file-1:1:0-5"}, "vs_1"),
        ("fetch", {"id": f"help:file-1:{'9' * 30}:0-5"}, "Search first"),
        ("fetch", {"id": "help:file-1:1:0-5"}, "file-1"),
        ("context", {"question": "lamp", "model": "none"}, "'none'"),
        ("context", {"question": "lamp", "window": 3}, "3 tokens"),
        ("delete", {"id": "1"}, "search, fetch, context"),
    ],
)
async def test_what_is_wrong_is_told_to_the_model(
    process: Process, corpus: Corpus, name: str, arguments: dict[str, Any], said: str
) -> None:
    async with client(process, "http") as connected:
        assert said in await fault(connected, name, **arguments)
        assert (await call(connected, "search", query="lamp"))["results"]


async def test_another_version_is_not_passed_off_as_the_cited_one(process: Process, http: httpx.Client) -> None:
    store = await anyio.to_thread.run_sync(lambda: fill(http, "versions").store)
    async with client(process, "http") as connected:
        found = await call(connected, "search", query="parcels to Norway", vector_stores=["versions"])
        where, span = found["results"][0]["id"].rsplit(":", 1)
        version = int(where.rsplit(":", 1)[1])
        other = f"{where.rsplit(':', 1)[0]}:{version + 1}:{span}"
        assert "Search again" in await fault(connected, "fetch", id=other)
        await anyio.to_thread.run_sync(http.delete, f"/v1/vector_stores/{store}")
        assert "versions" in await fault(connected, "search", query="parcels", vector_stores=["versions"])
        assert "no vector store" in await fault(connected, "fetch", id=found["results"][0]["id"])


async def test_nothing_of_another_tenant_is_there(process: Process, corpus: Corpus) -> None:
    async with client(process, "http") as connected:
        cited = (await call(connected, "search", query="parcels to Norway"))["results"][0]["id"]
    other = Process("api", process.data, {**SETTINGS, "RAG_TENANT": "other"})
    with running([other]):
        async with client(other, "http") as connected:
            said = [
                await fault(connected, "search", query="parcels to Norway"),
                await fault(connected, "search", query="parcels to Norway", vector_stores=[corpus.store]),
                await fault(connected, "context", question="parcels to Norway"),
                await fault(connected, "fetch", id=cited),
            ]
    assert not any("Norway" in text or "shipping" in text for text in said)


def test_the_door_is_behind_what_every_request_passes(process: Process, http: httpx.Client) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    refused(httpx.post(f"{process.url}/mcp", json=message, trust_env=False), 401, "missing_api_key")
    refused(http.post("/mcp", json=message, headers={"Origin": "https://evil.example"}), 403, "origin_not_allowed")
    refused(http.post("/mcp", json=message, headers={"Host": "evil.example"}), 403, "host_not_allowed")
    refused(http.post("/mcp", content=b" " * (9 << 20)), 413, "body_too_large")
    refused(http.get("/mcp"), 405, "method_not_allowed")
    for nonsense in (b"", b"{", b"[]", b'{"jsonrpc": "2.0"}', b"\xff"):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        assert 400 <= http.post("/mcp", content=nonsense, headers=headers).status_code < 500


def test_the_door_is_shut_unless_it_is_asked_for(tmp_path: Path) -> None:
    with running(one_process(tmp_path, {"RAG_EMBEDDER": "toy-384"})) as installation:
        url = installation.doors[0]
        refused(httpx.post(f"{url}/mcp", json={}, trust_env=False), 404, "unknown_url")
        done = subprocess.run([*RAG, "mcp", "--url", url], input="", capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (4, "")
        assert "server.mcp" in done.stderr


def test_a_client_that_closes_stdin_ends_it(process: Process) -> None:
    done = subprocess.run(
        [*RAG, "mcp", "--url", process.url, "--key", "sesame"],
        input="no JSON\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def long(http: httpx.Client) -> None:
    """The store `long`: one long document, whose last line tells of a heron."""
    text = "".join(f"Line {number} tells of nothing.\n" for number in range(9_000)) + "\nThe heron nests in May.\n"
    body = {"name": "long", "file_ids": [upload(http, "long.txt", text)]}
    store = http.post("/v1/vector_stores", json=body).json()["id"]
    wait_for(lambda: http.get(f"/v1/vector_stores/{store}").json()["file_counts"]["completed"] == 1)


async def test_a_long_document_is_given_around_the_passage(process: Process, long: None) -> None:
    async with client(process, "http") as connected:
        found = (await call(connected, "search", query="heron nests", vector_stores=["long"]))["results"]
        found = [result for result in found if "heron" in result["text"]]
        fetched = await call(connected, "fetch", id=found[0]["id"])
    start = fetched["metadata"]["text_start"]
    assert start > 0
    span = slice(fetched["metadata"]["start"] - start, fetched["metadata"]["end"] - start)
    assert fetched["text"][span] == found[0]["text"]
