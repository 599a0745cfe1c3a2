"""The provider for compatible servers, against a real server on loopback that misbehaves to order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.models import Delta, ModelAlias, Sampling
from rag.models.openai import OpenAILLM
from tests.fakes.openai_server import Events, FakeOpenAI, Say, Status

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


async def refused(llm: OpenAILLM) -> RagError:
    with pytest.raises(RagError) as caught:
        await collect(llm)
    return caught.value


async def test_nothing_more_is_sent_than_what_is_asked(server: FakeOpenAI) -> None:
    await collect(OpenAILLM(alias(server)))
    [request] = server.requests
    assert set(request.body) == {"model", "messages", "stream", "stream_options"}
    assert (request.body["model"], request.headers["authorization"]) == ("small-1", f"Bearer {KEY}")


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


async def test_a_stream_ends_by_a_reason_or_by_its_last_event(server: FakeOpenAI) -> None:
    piece = json.dumps({"choices": [{"delta": {"content": "Dogs are"}}]})
    finish = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    for said in ((piece, finish), (piece, "[DONE]")):
        server.chat(Events(said))
        assert [delta.finish_reason for delta in await collect(OpenAILLM(alias(server)))] == [None, "stop"]


async def test_an_error_inside_the_stream_is_tried_later_and_its_words_are_for_the_log(
    server: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    piece = json.dumps({"choices": [{"delta": {"content": "One"}}]})
    server.chat(Events((piece, json.dumps({"error": {"message": "out of memory"}}))))
    error = await refused(OpenAILLM(alias(server)))
    assert type(error) is TryLater
    assert "out of memory" not in error.message
    assert "out of memory" in caplog.text


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
    error = await refused(OpenAILLM(alias(server)))
    assert type(error) is TryLater
    assert "TEST_KEY" in error.message
    assert KEY not in str(error)


async def test_where_no_key_is_named_the_advice_is_to_name_one(server: FakeOpenAI) -> None:
    server.chat(Status(401))
    error = await refused(OpenAILLM(alias(server, api_key_env=None)))
    assert "OPENAI_API_KEY" not in error.message
    assert "[models.remote]" in error.message
    assert "`api_key_env`" in error.message


async def test_no_key_leaks_from_a_refusal(server: FakeOpenAI) -> None:
    server.chat(*[Status(400, f"context of 9999 tokens is too long, says {KEY}")] * 2)
    error = await refused(OpenAILLM(alias(server)))
    assert isinstance(error, ChangeRequest)
    assert "9999 tokens" in error.message
    assert KEY not in error.message


async def test_a_redirect_is_not_followed(server: FakeOpenAI) -> None:
    server.chat(Status(307))
    error = await refused(OpenAILLM(alias(server)))
    assert type(error) is TryLater
    assert len(server.requests) == 1
