"""Chat completions: real citations, the same at once and as a stream, and errors that say so at any moment."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.running import Corpus, RunningServer, finished, refused, wait_for
from tests.fakes.openai_server import FakeOpenAI, Say, Status

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "How long must I charge the lamp?"}]


def _ask(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "vector_store_ids": ["help"], "messages": QUESTION, **fields}


def _events(answer: httpx.Response) -> list[Any]:
    """The events of a stream; `[DONE]` as None."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [None if line == "[DONE]" else json.loads(line) for line in lines]


def test_an_answer_is_cited_with_what_is_there(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Charge the lamp for two", " hours [1]. Or not [7].", usage=(11, 4)))
    answer = http.post(CHAT, json=_ask(temperature=0, user="me", n=1, tools=[], max_completion_tokens=50)).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == "Charge the lamp for two hours [1]. Or not."
    assert (answer["object"], answer["model"], answer["grounded"]) == ("chat.completion", "scripted", True)
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
    (citation,) = answer["citations"]
    assert message["content"][citation["marker_start"] : citation["marker_end"]] == "[1]"
    text = http.get(f"/v1/vector_stores/help/files/{citation['file_id']}/content").json()["data"][0]["text"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]
    assert "Charge the lamp for two hours" in citation["quote"]
    assert [marker["raw"] for marker in answer["removed_markers"]] == ["[7]"]
    annotation = message["annotations"][0]["url_citation"]
    assert (annotation["start_index"], annotation["title"]) == (citation["marker_start"], "Battery")
    assert http.get(annotation["url"]).status_code == 200
    sent = provider.requests[-1].body
    assert (sent["temperature"], sent["model"]) == (0, "gpt-4o")


@pytest.mark.parametrize("model", ["scripted", "extractive"])
def test_a_stream_says_the_same_as_an_answer_at_once(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, model: str
) -> None:
    pieces = Say("Two", " hours", " [", "1", "]. Never ", "[9]", ".", usage=(3, 2))
    if model == "scripted":
        provider.chat(pieces, pieces)
    whole = http.post(CHAT, json=_ask(model=model)).json()
    asked = _ask(model=model, stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = _events(http.post(CHAT, json=asked))
    assert done is None
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], whole["usage"]["completion_tokens"])
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == whole["choices"][0]["message"]["content"] != ""
    last, message = chunks[-1], whole["choices"][0]["message"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert last["choices"][0]["delta"]["annotations"] == message["annotations"]
    for field in ("citations", "grounded", "removed_markers"):
        assert last[field] == usage[field] == whole[field]
    assert whole["citations"]


def test_what_wording_the_question_took_stands_beside_the_usage(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI
) -> None:
    talk = [{"role": "user", "content": "Of the lamp?"}, {"role": "assistant", "content": "Yes."}, *QUESTION]
    for _ in range(2):
        provider.chat(Say("How long must one charge the lamp?", usage=(30, 8)), Say("Two hours [1].", usage=(40, 6)))
    whole = http.post(CHAT, json=_ask(messages=talk)).json()
    *_, last, usage, _ = _events(
        http.post(CHAT, json=_ask(messages=talk, stream=True, stream_options={"include_usage": True}))
    )
    assert whole["usage"]["prompt_tokens"] == usage["usage"]["prompt_tokens"] == 40
    assert whole["wording_usage"] == last["wording_usage"] == usage["wording_usage"]
    assert whole["wording_usage"] == {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38}


def test_nothing_relevant_is_said_without_a_model(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    calls = len(provider.requests)
    answer = http.post(CHAT, json=_ask(score_threshold=0.999)).json()
    assert (answer["grounded"], answer["citations"], answer["removed_markers"]) == (False, [], [])
    assert answer["choices"][0]["message"]["content"]
    assert len(provider.requests) == calls
    *_, last, done = _events(http.post(CHAT, json=_ask(score_threshold=0.999, stream=True)))
    assert (last["grounded"], last["citations"], done) == (False, [], None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails_at_once_is_a_status(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, stream: bool
) -> None:
    provider.chat(Status(429, retry_after=7), Status(503), Status(404))
    limited = http.post(CHAT, json=_ask(stream=stream))
    refused(limited, 429, "rate_limit_exceeded")
    assert limited.json()["error"]["type"] == "rate_limit_error"
    assert limited.headers["retry-after"] == "7"
    down = http.post(CHAT, json=_ask(stream=stream))
    refused(down, 503, "unavailable")
    assert int(down.headers["retry-after"]) >= 1
    refused(http.post(CHAT, json=_ask(stream=stream)), 400, "model_refused")


def test_a_provider_that_breaks_off_is_an_event(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Two ", "hours ", "and more", cut_after=2))
    *chunks, last = _events(http.post(CHAT, json=_ask(stream=True)))
    assert chunks[1]["choices"][0]["delta"]["content"]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["type"] == "server_error"
    provider.chat(Say("Two ", "hours ", "and more", cut_after=2))
    assert http.post(CHAT, json=_ask()).status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_goes_away_stops_the_work(
    server: RunningServer, corpus: Corpus, provider: FakeOpenAI, stream: bool
) -> None:
    provider.chat(Say(*["word "] * 400, delay=0.02))
    cut_short = provider.broken_pipes
    calls = len(provider.requests)
    with httpx.Client(base_url=server.url, timeout=1.0) as http:
        if stream:
            with http.stream("POST", CHAT, json=_ask(stream=True)) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post(CHAT, json=_ask())
    assert len(provider.requests) == calls + 1
    wait_for(lambda: provider.broken_pipes > cut_short, 5)  # long before the 400 words are said


def test_the_store_need_not_be_named_where_there_is_one(keyed: httpx.Client, http: httpx.Client) -> None:
    body = {"model": "extractive", "messages": QUESTION}
    for store in keyed.get("/v1/vector_stores", params={"limit": 100}).json()["data"]:
        keyed.delete(f"/v1/vector_stores/{store['id']}")
    message = refused(keyed.post(CHAT, json=body), 400, "vector_store_required", "vector_store_ids")
    assert "none" in message
    keyed.post("/v1/vector_stores", json={"name": "alone"})
    assert keyed.post(CHAT, json=body).json()["grounded"] is False
    keyed.post("/v1/vector_stores", json={"name": "other"})
    message = refused(keyed.post(CHAT, json=body), 400, "vector_store_required", "vector_store_ids")
    assert "alone" in message
    assert "other" in message


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "xml"}}, 400, "invalid_value", "response_format.type"),
        ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        ({"seed": 1}, 400, "unsupported_parameter", "seed"),
        ({"n": 2}, 400, "invalid_value", "n"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"top_p": 0}, 400, "invalid_sampling", "top_p"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 513}, 400, "invalid_sampling", "max_tokens"),
        ({"stop": ["a"] * 5}, 400, "invalid_value", "stop"),
        ({"stream": "yes"}, 400, "invalid_value", "stream"),
        ({"vector_store_ids": []}, 400, "invalid_value", "vector_store_ids"),
        ({"vector_store_ids": ["none"]}, 404, "vector_store_not_found", "vector_store_id"),
        ({"model": "none"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, "invalid_value", "model"),
        ({"messages": "hello"}, 400, "invalid_value", "messages"),
        ({"knowledge": 1}, 400, "unknown_parameter", "knowledge"),
    ],
)
def test_what_is_not_served_is_refused_by_field(
    http: httpx.Client, corpus: Corpus, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    refused(http.post(CHAT, json=_ask(**fields)), status, code, param)


def test_the_official_client_is_at_home(server: RunningServer, http: httpx.Client, corpus: Corpus) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        file = client.files.create(file=("otter.txt", b"The otter sleeps on its back."), purpose="assistants")
        store = client.vector_stores.create(name="otters", file_ids=[file.id])
        finished(http, store.id, file.id)
        assert client.vector_stores.files.retrieve(file.id, vector_store_id=store.id).status == "completed"
        hits = client.vector_stores.search(store.id, query="How does the otter sleep?")
        assert [hit.content[0].text for hit in hits] == ["The otter sleeps on its back."]
        assert {"extractive", "scripted", "toy-384"} < {model.id for model in client.models.list()}
        stream = client.chat.completions.create(
            model="extractive",
            messages=[{"role": "user", "content": "How does the otter sleep?"}],
            stream=True,
            extra_body={"vector_store_ids": [store.id]},
        )
        chunks = list(stream)
        assert "on its back" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].citations[0]["file_id"] == file.id  # type: ignore[attr-defined]
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve("none")
        assert missing.value.code == "model_not_found"
        assert client.vector_stores.delete(store.id).deleted
        assert client.files.list(limit=1).data[0].id == file.id
