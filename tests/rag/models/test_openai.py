"""The provider for compatible servers, against a real server on loopback that misbehaves to order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.models import Delta, ModelAlias, Sampling, Usage
from rag.models.openai import OpenAILLM
from tests.fakes.openai_server import Drop, Events, FakeOpenAI, Hang, Nonsense, Say, Status

KEY = "sk-canary-7d1f"
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which port?"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with FakeOpenAI() as fake:
        yield fake


def alias(server: FakeOpenAI, **changes: object) -> ModelAlias:
    fields: dict[str, object] = {
        "name": "remote",
        "provider": "openai",
        "model": "small-1",
        "window": 4096,
        "output_limit": 256,
        "base_url": server.base_url,
        "api_key_env": "TEST_KEY",
        "timeout": 5.0,
        "retries": 0,
    }
    return ModelAlias(**{**fields, **changes})  # type: ignore[arg-type]


async def collect(llm: OpenAILLM, sampling: Sampling | None = None) -> list[Delta]:
    try:
        return [delta async for delta in llm.stream(MESSAGES, sampling or Sampling())]
    finally:
        await llm.close()


async def partly(llm: OpenAILLM) -> tuple[str, RagError]:
    """What arrived before the error, and the error."""
    text = ""
    with pytest.raises(RagError) as caught:  # noqa: PT012
        async for delta in llm.stream(MESSAGES, Sampling()):
            text += delta.text
    await llm.close()
    return text, caught.value


async def test_an_answer_arrives_in_its_pieces_with_finish_and_usage(server: FakeOpenAI) -> None:
    server.chat(Say("Port ", "8000", " [1]", finish_reason="length", usage=(11, 3)))
    deltas = await collect(OpenAILLM(alias(server)))
    assert [delta.text for delta in deltas] == ["Port ", "8000", " [1]", ""]
    assert deltas[-1] == Delta(finish_reason="length", usage=Usage(11, 3))


async def test_what_is_sent_is_messages_and_sampling_and_nothing_else(server: FakeOpenAI) -> None:
    sampling = Sampling(temperature=0.0, top_p=0.5, max_tokens=9, stop=("END",))
    await collect(OpenAILLM(alias(server)), sampling)
    await collect(OpenAILLM(alias(server)))
    full, bare = (request.body for request in server.requests)
    assert full == {
        "model": "small-1",
        "messages": list(MESSAGES),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 9,
        "stop": ["END"],
    }
    assert set(bare) == {"model", "messages", "stream", "stream_options"}
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_key_of_the_hosted_service_goes_to_no_other_server(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hosted-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    await collect(OpenAILLM(alias(server, api_key_env=None)))
    assert "secret" not in json.dumps(server.requests[0].headers)


async def test_a_proxy_in_the_environment_is_not_used(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await collect(OpenAILLM(alias(server))))[0].text == "Which port?"


def test_a_key_that_is_not_in_the_environment_is_the_operators_to_set(server: FakeOpenAI) -> None:
    with pytest.raises(TryLater, match="NO_SUCH_KEY"):
        OpenAILLM(alias(server, api_key_env="NO_SUCH_KEY"))


async def test_a_server_that_refuses_stream_options_is_asked_once_more_and_remembered(server: FakeOpenAI) -> None:
    server.refuse_stream_options = True
    llm = OpenAILLM(alias(server))
    for _ in range(2):
        deltas = [delta async for delta in llm.stream(MESSAGES, Sampling())]
        assert deltas == [Delta("Which port?"), Delta(finish_reason="stop", usage=None)]
    await llm.close()
    assert ["stream_options" in request.body for request in server.requests] == [True, False, False]


async def test_a_server_that_knows_only_max_completion_tokens_is_asked_with_that(server: FakeOpenAI) -> None:
    server.chat(Status(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    await collect(OpenAILLM(alias(server)), Sampling(max_tokens=5))
    assert server.requests[1].body["max_completion_tokens"] == 5
    assert "max_tokens" not in server.requests[1].body


async def test_chunks_that_break_the_form_are_read_for_what_they_hold(server: FakeOpenAI) -> None:
    def event(**chunk: object) -> str:
        return json.dumps(chunk)

    server.chat(
        Events(
            (
                event(),
                event(choices=[]),
                event(choices=None),
                event(choices=[{}]),
                event(choices=[{"delta": None}]),
                event(choices=[{"delta": {"content": None, "reasoning_content": "hm"}}]),
                event(choices=[{"delta": {"content": "One"}}], usage={}),
                event(choices=[{"delta": {"content": " two"}}], usage={"prompt_tokens": "x"}),
                "[DONE]",
            )
        )
    )
    assert await collect(OpenAILLM(alias(server))) == [Delta("One"), Delta(" two"), Delta(finish_reason="stop")]


async def test_a_cut_stream_delivers_what_came_and_then_says_try_later(server: FakeOpenAI) -> None:
    server.chat(Say("Port ", "8000", " is", cut_after=2))
    text, error = await partly(OpenAILLM(alias(server)))
    assert (text, type(error)) == ("Port 8000", TryLater)


async def test_a_stream_that_ends_without_saying_so_was_cut(server: FakeOpenAI) -> None:
    piece = json.dumps({"choices": [{"delta": {"content": "Dogs are"}}]})
    server.chat(Events((piece,)))
    text, error = await partly(OpenAILLM(alias(server)))
    assert (text, type(error)) == ("Dogs are", TryLater)
    finish = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    for said in ((piece, finish), (piece, "[DONE]")):
        server.chat(Events(said))
        assert [delta.finish_reason for delta in await collect(OpenAILLM(alias(server)))] == [None, "stop"]


async def test_a_stream_that_goes_silent_times_out(server: FakeOpenAI) -> None:
    server.chat(Say("Port ", "8000", hang_after=1))
    text, error = await partly(OpenAILLM(alias(server, timeout=0.2)))
    assert (text, type(error), error.code) == ("Port ", TryLater, "timeout")


@pytest.mark.parametrize(
    "step",
    [
        Hang(),
        Drop(),
        Status(500),
        Status(503),
        Status(529),
        Nonsense(),
        Events(("not json",)),
        Events(("[DONE]",)),
        Events(()),
    ],
    ids=repr,
)
async def test_a_server_that_fails_is_tried_later(server: FakeOpenAI, step: Hang | Drop | Status | Nonsense) -> None:
    server.chat(step)
    text, error = await partly(OpenAILLM(alias(server, timeout=0.3)))
    assert (text, type(error)) == ("", TryLater)


async def test_an_error_inside_the_stream_is_tried_later_and_its_words_are_for_the_log(
    server: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    piece = json.dumps({"choices": [{"delta": {"content": "One"}}]})
    server.chat(Events((piece, json.dumps({"error": {"message": "out of memory"}}))))
    text, error = await partly(OpenAILLM(alias(server)))
    assert (text, type(error)) == ("One", TryLater)
    assert "out of memory" not in error.message
    assert "out of memory" in caplog.text


async def test_nobody_listening_is_tried_later() -> None:
    with FakeOpenAI() as gone:
        nowhere = alias(gone, api_key_env=None)
    _, error = await partly(OpenAILLM(nowhere))
    assert type(error) is TryLater


async def test_too_many_requests_carries_how_long_to_wait(server: FakeOpenAI) -> None:
    server.chat(Status(429, retry_after=7))
    _, error = await partly(OpenAILLM(alias(server)))
    assert isinstance(error, TryLater)
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 7.0)


async def test_a_retry_waits_as_long_as_the_server_asks(server: FakeOpenAI) -> None:
    server.chat(Status(429, retry_after=0.4), Status(500, retry_after=0.1), Say("at last"))
    began = time.monotonic()
    deltas = await collect(OpenAILLM(alias(server, retries=2)))
    assert time.monotonic() - began >= 0.5
    assert deltas[0].text == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [401, 403])
async def test_refused_credentials_are_the_operators_to_mend_and_no_key_leaks(server: FakeOpenAI, code: int) -> None:
    server.chat(Status(code, f"Incorrect API key provided: {KEY}"))
    _, error = await partly(OpenAILLM(alias(server)))
    assert type(error) is TryLater
    assert "TEST_KEY" in error.message
    assert KEY not in str(error)


async def test_where_no_key_is_named_the_advice_is_to_name_one(server: FakeOpenAI) -> None:
    server.chat(Status(401))
    _, error = await partly(OpenAILLM(alias(server, api_key_env=None)))
    assert "OPENAI_API_KEY" not in error.message
    assert "[models.remote]" in error.message
    assert "`api_key_env`" in error.message


@pytest.mark.parametrize("code", [400, 404, 413, 422])
async def test_a_refused_request_is_the_callers_to_change(server: FakeOpenAI, code: int) -> None:
    server.chat(*[Status(code, f"context of 9999 tokens is too long, says {KEY}")] * 2)
    _, error = await partly(OpenAILLM(alias(server)))
    assert isinstance(error, ChangeRequest)
    assert "9999 tokens" in error.message
    assert KEY not in error.message


async def test_a_redirect_is_not_followed(server: FakeOpenAI) -> None:
    server.chat(Status(307))
    _, error = await partly(OpenAILLM(alias(server)))
    assert type(error) is TryLater
    assert len(server.requests) == 1


async def test_closing_the_iterator_hangs_up(server: FakeOpenAI) -> None:
    server.chat(Say(*["word "] * 2000, delay=0.005))
    llm = OpenAILLM(alias(server))
    stream = llm.stream(MESSAGES, Sampling())
    assert (await anext(stream)).text == "word "
    await stream.aclose()  # type: ignore[attr-defined]
    for _ in range(250):
        if server.broken_pipes:
            break
        await asyncio.sleep(0.02)
    assert server.broken_pipes == 1
    await llm.close()
    await llm.close()
