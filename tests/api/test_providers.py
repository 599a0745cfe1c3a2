"""What a provider does wrong, through both doors: its status and code, nothing of it in the message, no place kept."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from rag.models.queue import ModelQueue
from tests.api.running import Corpus, RunningServer, refused, wait_for
from tests.fakes.openai_server import Drop, Events, FakeOpenAI, Hang, Nonsense, Say, Status

SECRET = "sk-canary-4711"
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "How long must I charge the lamp?"}]},
    "/v1/responses": {"input": "How long must I charge the lamp?"},
}


@pytest.fixture
def narrow(server: RunningServer, corpus: Corpus, provider: FakeOpenAI) -> tuple[RunningServer, FakeOpenAI]:
    """The server and the provider, with what an answer needs opened and imported."""
    answer = httpx.post(f"{server.url}/v1/responses", json={**DOORS["/v1/responses"], "model": "narrow"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return server, provider


def queue_of(server: RunningServer, model: str = "narrow") -> ModelQueue:
    models = server.app.state.backend.models
    queue: ModelQueue = models.queue(models.get(model))
    return queue


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (Hang(20), 503, "timeout"),
        (Status(429, SECRET, retry_after=3), 429, "rate_limit_exceeded"),
        (Status(500, SECRET), 503, "unavailable"),
        (Status(401, SECRET), 503, "unavailable"),
        (Drop(), 503, "unavailable"),
        (Nonsense(f"<html>{SECRET}</html>".encode()), 503, "unavailable"),
        (Events((f"<{SECRET}>",)), 503, "unavailable"),
        (Events(('{"error": {"message": "' + SECRET + '"}}',)), 503, "unavailable"),
        (Events(("[]", "17", '{"choices": 3}')), 503, "unavailable"),
        (Events(("[" * 100_000,)), 503, "unavailable"),
        (Status(404, SECRET), 400, "model_refused"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int | str) else str(value),
)
def test_a_fault_has_its_status_and_nothing_of_it_leaks(
    narrow: tuple[RunningServer, FakeOpenAI], step: Any, status: int, code: str, door: str, stream: bool
) -> None:
    server, provider = narrow
    provider.chat(step)
    began = time.monotonic()
    answer = httpx.post(f"{server.url}{door}", json={**DOORS[door], "model": "narrow", "stream": stream}, timeout=30)
    refused(answer, status, code)
    assert SECRET not in answer.text + str(answer.headers)
    assert ("retry-after" in answer.headers) == (status != 400)
    assert time.monotonic() - began < 5
    assert (queue_of(server).busy, queue_of(server).waiting) == (0, 0)


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_breaks_off_soon_after_its_key_was_revoked(
    narrow: tuple[RunningServer, FakeOpenAI], http: httpx.Client, door: str
) -> None:
    server, provider = narrow
    made = http.post("/v1/keys", json={"name": "leaver"}).json()
    provider.chat(Say(*["word "] * 200, delay=0.1))
    body = {**DOORS[door], "model": "narrow", "stream": True}
    headers = {"Authorization": f"Bearer {made['secret']}"}
    with httpx.stream("POST", f"{server.url}{door}", json=body, headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()
        while "word" not in next(lines):
            pass
        http.delete(f"/v1/keys/{made['id']}")
        revoked = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert time.monotonic() - revoked < 3
    wait_for(lambda: queue_of(server).busy == 0, seconds=2)


@pytest.mark.parametrize("door", DOORS)
def test_half_a_character_of_a_model_is_none(narrow: tuple[RunningServer, FakeOpenAI], door: str) -> None:
    server, provider = narrow
    for stream in (False, True):
        provider.chat(Events((r'{"choices": [{"delta": {"content": "Two \ud83d hours."}}]}', "[DONE]")))
        answer = httpx.post(
            f"{server.url}{door}", json={**DOORS[door], "model": "narrow", "stream": stream}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        assert "Two \ufffd hours." in answer.text.replace("\\ufffd", "\ufffd")
        assert "\\ud83d" not in answer.text


@pytest.mark.parametrize("door", DOORS)
def test_a_provider_that_dribbles_is_cut_off(narrow: tuple[RunningServer, FakeOpenAI], door: str) -> None:
    server, provider = narrow
    provider.chat(Say(*["word "] * 100, delay=0.2))
    answer = httpx.post(f"{server.url}{door}", json={**DOORS[door], "model": "hasty"}, timeout=30)
    refused(answer, 503, "timeout")
    assert queue_of(server, "hasty").busy == 0


def test_what_comes_beyond_the_queue_is_told_to_try_later(narrow: tuple[RunningServer, FakeOpenAI]) -> None:
    server, provider = narrow
    provider.chat(*[Say(*["word "] * 10, delay=0.4)] * 3)
    queue = queue_of(server)

    def ask(door: str) -> httpx.Response:
        return httpx.post(f"{server.url}{door}", json={**DOORS[door], "model": "narrow"}, timeout=30)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, door) for door in [*DOORS, *DOORS][:3]]
        wait_for(lambda: (queue.busy, queue.waiting) == (2, 1))
        for door in DOORS:
            refused(ask(door), 503, "model_busy")
            assert ask(door).headers["retry-after"] == "1"
        assert [answer.result().status_code for answer in asked] == [200, 200, 200]
    assert (queue.busy, queue.waiting) == (0, 0)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("said", [b"word", b""])
def test_a_caller_who_leaves_gives_the_place_back_at_once(
    narrow: tuple[RunningServer, FakeOpenAI], door: str, said: bytes
) -> None:
    """In mid-stream, and before the first word."""
    server, provider = narrow
    provider.chat(Say(*["word "] * 200, delay=0.02 if said else 0.4))
    queue, cut_short = queue_of(server), provider.broken_pipes
    body = httpx.Request("POST", f"{server.url}{door}", json={**DOORS[door], "model": "narrow", "stream": True})
    head = f"POST {door} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(f"{head}Content-Length: {len(body.content)}\r\n\r\n".encode() + body.content)
        while said and said not in caller.recv(65536):
            pass
        wait_for(lambda: queue.busy == 1)
    left = time.monotonic()
    wait_for(lambda: queue.busy == 0, 1)
    assert time.monotonic() - left < 0.5
    wait_for(lambda: provider.broken_pipes > cut_short, 5)
