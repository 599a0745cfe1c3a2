"""Who may call, with which key, from where, and how much they may send."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.middleware import METRICS_PATH
from api.server import Server
from rag.settings import ServerSettings, Settings, load_settings
from tests.api.running import RunningServer, refused

OPEN = {"/healthz", "/readyz"}
BESIDES = ["/redoc", "/docs/", "/docs/oauth2-redirect", "//docs", "/", "/nope", "/v1/", "/healthz/", "//healthz"]


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path of the app."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


DIFY = "/v1/dify/retrieval"


def test_every_route_but_health_asks_for_the_key(locked: RunningServer) -> None:
    routes = list(_routes(locked.app))
    assert len(routes) >= 25
    assert {path for _, path in routes} >= OPEN
    with httpx.Client(base_url=locked.url) as client:
        for method, path in [*routes, *(("GET", path) for path in BESIDES)]:
            if path in OPEN:
                assert client.request(method, path).status_code == 200
                continue
            if path == METRICS_PATH:  # open to this machine here: see test_metrics
                continue
            if path == DIFY:  # says more, in Dify's words: see test_dify
                assert client.request(method, path).status_code == 401
                continue
            refused(client.request(method, path), 401, "missing_api_key")
            refused(client.request(method, path, headers={"Authorization": "Bearer wrong"}), 401, "invalid_api_key")
            right = client.request(method, path, headers={"Authorization": "Bearer sesame"})
            assert right.status_code != 401, (method, path)


def test_the_documentation_asks_for_none_and_leads_nowhere_else(locked: RunningServer) -> None:
    with httpx.Client(base_url=locked.url) as client:
        page = client.get("/docs")
        for link in ["/openapi.json", *re.findall(r'(?:src|href)="([^"]+)"', page.text)]:
            assert client.get(link).status_code == 200, link
        assert client.get("/openapi.json").json()["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
        for path in (b"../../v1/models", b"..%2f..%2fv1/models", b"%2e%2e/%2e%2e/v1/models", b"/../v1/models"):
            answer = locked.say(
                b"GET /docs/files/" + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Basic sesame", "sesame", "Bearer sesam", "Bearer sesame2", "Bearer ü"]
)
def test_what_is_nearly_the_key_is_not(locked: RunningServer, value: str) -> None:
    answer = httpx.get(f"{locked.url}/v1/models", headers={"Authorization": value.encode()})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_two_keys_are_none(locked: RunningServer) -> None:
    twice = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer sesame")]
    refused(httpx.get(f"{locked.url}/v1/models", headers=twice), 401, "missing_api_key")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "169.254.169.254",
        "0.0.0.0",
        "a b",
        "[::1",
        "@localhost",
    ],
)
def test_a_foreign_host_is_refused(server: RunningServer, host: str) -> None:
    for path in ("/healthz", "/v1/files", "/docs"):
        refused(httpx.get(server.url + path, headers={"Host": host}), 403, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.:8000", "127.0.0.1", "127.1.2.3:5", "[::1]:8000"]
)
def test_loopback_names_are_answered(server: RunningServer, host: str) -> None:
    assert httpx.get(f"{server.url}/healthz", headers={"Host": host}).status_code == 200


def test_no_host_or_two_are_refused(server: RunningServer) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        assert server.say(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n").split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "file://", "http://localhost.evil.example", "localhost", "https://app.example"],
)
def test_a_foreign_page_is_refused(server: RunningServer, origin: str) -> None:
    for method, path in (("POST", "/v1/vector_stores"), ("GET", "/v1/files"), ("OPTIONS", "/v1/files")):
        answer = httpx.request(method, server.url + path, headers={"Origin": origin})
        refused(answer, 403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


def test_own_pages_and_named_ones_may_call(server: RunningServer, keyed: httpx.Client) -> None:
    own = {"Origin": server.url}
    assert httpx.get(f"{server.url}/v1/files", headers=own).status_code == 200
    assert keyed.get("/v1/files", headers={"Host": "rag.example:80"}).status_code == 200
    app = {"Origin": "https://app.example"}
    assert keyed.get("/v1/files", headers=app).headers["access-control-allow-origin"] == "https://app.example"
    asking = {**app, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert keyed.options("/v1/files", headers=asking).status_code == 200
    refused(keyed.get("/v1/files", headers={"Origin": "https://app.example.evil"}), 403, "origin_not_allowed")


def test_bound_to_everywhere_an_address_is_answered_and_a_name_is_not() -> None:
    from api.middleware import KnownCallers

    async def nothing(*_: Any) -> None: ...

    callers = KnownCallers(nothing, bound="0.0.0.0", hosts=(), origins=())
    assert callers._knows_host("192.0.2.7")
    assert not callers._knows_host("evil.example")
    named = KnownCallers(nothing, bound="192.0.2.7", hosts=(), origins=())
    assert named._knows_host("192.0.2.7")
    assert not named._knows_host("192.0.2.8")


def test_a_body_that_says_it_is_too_large_is_refused_unread(locked: RunningServer, keyed: httpx.Client) -> None:
    head = b"POST /v1/vector_stores HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n"
    head += b"Content-Type: application/json\r\n"
    answer = locked.say(head + b"Content-Length: 2000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "body_too_large"
    assert locked.say(head + b"Content-Length: -5\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/v1/vector_stores", "/v1/files"])
def test_a_body_that_does_not_say_is_counted(locked: RunningServer, path: str) -> None:
    kind = b"application/json" if path.endswith("stores") else b"multipart/form-data; boundary=b"
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if b"multi" in kind else b'"'
    body = start + b"x" * (2 << 20)
    chunked = b"".join(
        b"10000\r\n" + body[at : at + 65536].ljust(65536, b"x") + b"\r\n" for at in range(0, len(body), 65536)
    )
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n".encode()
    answer = locked.say(
        head + b"Content-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "body_too_large"


def test_json_is_held_to_less_than_uploads(http: httpx.Client) -> None:
    answer = http.post("/v1/vector_stores", content=b'{"name": "' + b"x" * (9 << 20) + b'"}')
    refused(answer, 413, "body_too_large")


def test_every_answer_has_an_id(http: httpx.Client) -> None:
    own = http.get("/nope").headers["x-request-id"]
    assert own.startswith("req_")
    assert http.get("/nope").headers["x-request-id"] != own
    assert http.get("/nope", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.get("/nope", headers={"X-Request-ID": "a b<script>"}).headers["x-request-id"].startswith("req_")


async def test_an_unexpected_error_says_nothing(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(data=tmp_path, embedder="toy-384", server=ServerSettings()), jobs=False)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("the secret of the house")

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    async with app.router.lifespan_context(app), client:
        answer = await client.get("/boom")
    refused(answer, 500, "server_error")
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text


def test_headers_without_an_end_are_refused(http: httpx.Client) -> None:
    """Before anything of them is looked at: nobody is asked for a key to be held in memory."""
    host, port = http.base_url.host, http.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=10) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                caller.sendall(b"a" * (1 << 16))
        with contextlib.suppress(ConnectionError):
            assert caller.recv(64).startswith(b"HTTP/1.1 400 ")


def test_the_server_bounds_headers(tmp_path: Path) -> None:
    assert Server(load_settings(environment={}, flags={"data": tmp_path}), jobs=False).config.http == "h11"
