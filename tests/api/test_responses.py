"""Responses: the shapes of the pinned specification, the same at once and as a stream, conversations that go on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.pinned import conforms
from tests.api.running import Corpus, RunningServer, refused
from tests.fakes.openai_server import FakeOpenAI, Obey, Say, Status

RESPONSES = "/v1/responses"
QUESTION = "How long must I charge the lamp?"
TOOL = {"type": "file_search", "vector_store_ids": ["help"]}
RESULTS = "file_search_call.results"
SEQUENCE = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.annotation.added",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "input": QUESTION, "tools": [TOOL], **fields}


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of the shape that the specification has for its type."""
    assert answer.status_code == 200, answer.text
    found = []
    for number, block in enumerate(answer.text.strip().split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        conforms("ResponseStreamEvent", event)
        found.append(event)
    return found


def created(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post(RESPONSES, json=asked(**fields))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    conforms("Response", body)
    assert answer.headers["x-rag-trace-id"] == body["trace_id"]
    return body


def test_an_answer_is_cited_with_what_is_there(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Charge the lamp for two", " hours [1]. Or not [7].", usage=(11, 4)))
    body = created(http, temperature=0.5, max_output_tokens=50, metadata={"a": "b"}, instructions="Be brief.")
    call, message = body["output"]
    assert (call["queries"], call["results"], call["status"]) == ([QUESTION], None, "completed")
    (part,) = message["content"]
    assert part["text"] == "Charge the lamp for two hours [1]. Or not."
    (annotation,), (citation,) = part["annotations"], body["citations"]
    assert part["text"][annotation["index"] :].startswith("[1]")
    assert (annotation["file_id"], annotation["filename"]) == (citation["file_id"], "battery.md")
    text = http.get(f"/v1/vector_stores/help/files/{citation['file_id']}/content").json()["data"][0]["text"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]
    assert [marker["raw"] for marker in body["removed_markers"]] == ["[7]"]
    usage = body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (11, 4, 15)
    assert (body["status"], body["metadata"], body["temperature"]) == ("completed", {"a": "b"}, 0.5)
    sent = provider.requests[-1].body
    assert (sent["temperature"], sent["max_tokens"]) == (0.5, 50)
    assert {"role": "system", "content": "Be brief."} in sent["messages"]


def test_the_sequence_of_events_and_the_same_answer(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    pieces = Say("Two", " hours", " [", "1", "]. Never ", "[9]", ".", usage=(3, 2))
    provider.chat(pieces, pieces)
    whole = created(http, include=[RESULTS])
    events = events_of(http.post(RESPONSES, json=asked(stream=True, include=[RESULTS])))
    kinds = [event["type"] for event in events]
    assert [kind for at, kind in enumerate(kinds) if kinds[at - 1] != kind] == [
        *SEQUENCE[:11],
        "response.output_text.delta",
        *SEQUENCE[11:],
    ]
    last = events[-1]["response"]
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert said == whole["output"][1]["content"][0]["text"] == last["output"][1]["content"][0]["text"]
    annotations = [e["annotation"] for e in events if e["type"] == "response.output_text.annotation.added"]
    assert annotations == whole["output"][1]["content"][0]["annotations"] != []
    for field in ("citations", "grounded", "removed_markers", "usage", "status"):
        assert last[field] == whole[field]
    assert events[6]["item"]["results"] == whole["output"][0]["results"] != []
    assert http.get(f"{RESPONSES}/{last['id']}", params={"include[]": RESULTS}).json() == last


def test_results_are_there_for_who_asks_for_them(http: httpx.Client, corpus: Corpus) -> None:
    tool = {**TOOL, "max_num_results": 2, "filters": {"type": "eq", "key": "topic", "value": "lamp"}}
    body = created(http, model="extractive", tools=[tool], include=[RESULTS])
    (result,) = body["output"][0]["results"]
    assert (result["filename"], result["attributes"]["topic"]) == ("battery.md", "lamp")
    assert 0 < result["score"] <= 1
    strict = {**tool, "ranking_options": {"score_threshold": 0.999}}
    body = created(http, model="extractive", tools=[strict], include=[RESULTS])
    assert (body["output"][0]["results"], body["grounded"], body["citations"]) == ([], False, [])


@pytest.mark.parametrize(("embedding", "text", "leg"), [(1, 0, "dense"), (0, 2, "keyword")])
def test_weights_of_hybrid_search_decide_the_order(
    http: httpx.Client, corpus: Corpus, embedding: float, text: float, leg: str
) -> None:
    question = "boat lamp kettle Mondays"
    weights = {"hybrid_search": {"embedding_weight": embedding, "text_weight": text}}
    tool = {**TOOL, "ranking_options": {**weights, "score_threshold": 0}}
    body = created(http, model="extractive", input=question, tools=[tool], include=[RESULTS])
    hits = http.post("/v1/vector_stores/help/search", json={"query": question, "mode": leg}).json()["data"]
    assert [r["filename"] for r in body["output"][0]["results"]] == [hit["filename"] for hit in hits]


def test_a_stream_begins_as_always_where_no_model_is_asked(http: httpx.Client, corpus: Corpus) -> None:
    events = events_of(http.post(RESPONSES, json=asked(input="xyzzy quux", stream=True)))
    kinds = [event["type"] for event in events]
    assert kinds == [kind for kind in SEQUENCE if kind != "response.output_text.annotation.added"]
    assert events[-1]["response"]["grounded"] is False


def test_a_conversation_goes_on(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Say("Two hours [1]."))
    first = created(http, instructions="Only once.")
    assert "wording_usage" not in first
    provider.chat(Say("How many evenings does the lamp last?", usage=(30, 8)), Say("Nine evenings [1].", usage=(40, 6)))
    second = created(http, input="And how many evenings?", previous_response_id=first["id"])
    # `usage` is the answer's own, exactly; what wording the question took stands beside it.
    assert (second["usage"]["input_tokens"], second["usage"]["total_tokens"]) == (40, 46)
    assert second["wording_usage"] == {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38}
    tokens = http.get(f"/v1/traces/{second['trace_id']}").json()["tokens"]
    assert [tokens[name] for name in ("usage_prompt", "wording_prompt", "wording_completion")] == [40, 30, 8]
    assert second["output"][0]["queries"] == ["How many evenings does the lamp last?"]
    asked_of_model = provider.requests[-1].body["messages"]
    assert {"role": "user", "content": QUESTION} in asked_of_model
    assert {"role": "assistant", "content": "Two hours [1]."} in asked_of_model
    assert "Only once." not in json.dumps(asked_of_model)
    provider.chat(Say("How long does charging the lamp take?"), Say("Done [1]."))
    third = created(
        http,
        previous_response_id=second["id"],
        input=[{"role": "user", "content": [{"type": "input_text", "text": "When?"}]}],
    )
    texts = [message["content"] for message in provider.requests[-1].body["messages"]]
    assert "Question: When?" in texts[-1]
    assert texts.index(QUESTION) < texts.index("Two hours [1].") < texts.index("And how many evenings?")
    assert third["previous_response_id"] == second["id"]
    assert http.delete(f"{RESPONSES}/{second['id']}").json() == {
        "id": second["id"],
        "object": "response",
        "deleted": True,
    }
    answer = http.post(RESPONSES, json=asked(previous_response_id=second["id"]))
    refused(answer, 404, "previous_response_not_found", "previous_response_id")


def test_what_is_sent_back_is_taken_back(http: httpx.Client, corpus: Corpus) -> None:
    first = created(http, model="extractive", include=[RESULTS])
    items = [{"role": "user", "content": QUESTION}, *first["output"], {"role": "user", "content": "Parcels to Norway?"}]
    second = created(http, model="extractive", input=items)
    assert second["output"][1]["content"][0]["text"]
    listed = http.get(f"{RESPONSES}/{second['id']}/input_items", params={"order": "asc"}).json()
    conforms("ResponseItemList", listed)
    assert [item["type"] for item in listed["data"]] == ["message", "file_search_call", "message", "message"]
    page = http.get(f"{RESPONSES}/{second['id']}/input_items", params={"limit": 1}).json()
    assert (page["data"], page["has_more"]) == ([listed["data"][-1]], True)
    rest = http.get(f"{RESPONSES}/{second['id']}/input_items", params={"after": page["last_id"]}).json()
    assert [item["id"] for item in rest["data"]] == [item["id"] for item in listed["data"][-2::-1]]
    refused(http.get(f"{RESPONSES}/{second['id']}/input_items?after=none"), 400, "bad_cursor", "after")


def test_items_that_come_with_one_id_are_listed_one_by_one(http: httpx.Client, corpus: Corpus) -> None:
    items = [{"type": "message", "role": "user", "id": "msg_1", "content": f"The lamp {n}?"} for n in range(3)]
    path = f"{RESPONSES}/{created(http, model='extractive', input=items)['id']}/input_items"
    seen: list[str] = []
    while len(seen) < 9:
        page = http.get(path, params={"limit": 1, **({"after": seen[-1]} if seen else {})}).json()
        seen.append(page["last_id"])
        if not page["has_more"]:
            break
    assert len(set(seen)) == len(seen) == 3


def test_what_is_not_stored_is_not_there(http: httpx.Client, corpus: Corpus) -> None:
    body = created(http, model="extractive", store=False)
    for way in (http.get, http.delete):
        refused(way(f"{RESPONSES}/{body['id']}"), 404, "response_not_found", "response_id")
    refused(http.post(f"{RESPONSES}/{body['id']}/cancel"), 404, "response_not_found", "response_id")
    kept = created(http, model="extractive")
    assert http.get(f"{RESPONSES}/{kept['id']}").json() == kept
    assert http.post(f"{RESPONSES}/{kept['id']}/cancel").json() == kept


def test_a_conversation_that_does_not_fit(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    turns = [
        {"role": role, "content": f"{word} " * 700}
        for word in ("kettle", "parcel", "norway", "monday", "refund", "evening")
        for role in ("user", "assistant")
    ]
    long = [*turns, {"role": "user", "content": QUESTION}]
    answer = http.post(RESPONSES, json=asked(input=long, model="small"))
    message = refused(answer, 400, "context_length_exceeded", "input")
    assert "truncation" in message
    body = created(http, input=long, model="small", truncation="auto")
    assert body["truncation"] == "auto"
    assert "evening" in json.dumps(provider.requests[-1].body["messages"])
    assert "kettle kettle" not in json.dumps(provider.requests[-1].body["messages"])


def test_an_answer_that_is_cut_is_incomplete(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(*[Say("Two hours", finish_reason="length")] * 2)
    body = created(http)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    last = events_of(http.post(RESPONSES, json=asked(stream=True)))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


def test_a_provider_that_breaks_off_is_a_failed_response(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI
) -> None:
    provider.chat(Say("Two ", "hours ", "and more", cut_after=2))
    last = events_of(http.post(RESPONSES, json=asked(stream=True)))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert http.get(f"{RESPONSES}/{last['response']['id']}").json()["status"] == "failed"
    provider.chat(Status(429, retry_after=7))
    refused(http.post(RESPONSES, json=asked(stream=True)), 429, "rate_limit_exceeded")


@pytest.mark.parametrize("form", ["json_object", "json_schema"])
def test_the_form_of_the_answer_is_passed_on(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, form: str
) -> None:
    said = '{"hours": [2], "says": "Two hours [1], not nine [9].", "kept": "\\"[1]\\""}'
    schema = {"name": "hours", "schema": {"type": "object"}, "strict": True}
    fields = schema if form == "json_schema" else {}
    provider.chat(Say(*said), Say(*said))
    body = created(http, text={"format": {"type": form, **fields}})
    text = body["output"][1]["content"][0]["text"]
    assert json.loads(text) == {"hours": [2], "says": "Two hours [1], not nine.", "kept": '"[1]"'}
    assert len(body["citations"]) == 2
    wanted = {"type": form, **({"json_schema": schema} if fields else {})}
    assert provider.requests[-1].body["response_format"] == wanted
    chat = {"model": "scripted", "vector_store_ids": ["help"], "messages": [{"role": "user", "content": QUESTION}]}
    answer = http.post("/v1/chat/completions", json={**chat, "response_format": wanted})
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert provider.requests[-1].body["response_format"] == wanted
    answer = http.post("/v1/chat/completions", json={**chat, "model": "extractive", "response_format": wanted})
    refused(answer, 400, "unsupported_parameter", "response_format")
    strict = {**TOOL, "ranking_options": {"score_threshold": 0.999}}
    answer = http.post(RESPONSES, json=asked(text={"format": {"type": form, **fields}}, tools=[strict]))
    refused(answer, 400, "not_grounded", "input")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, 400, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "function", "name": "f"}]}, 400, "unsupported_parameter", "tools"),
        ({"tools": [TOOL, TOOL]}, 400, "invalid_value", "tools"),
        ({"tools": [{**TOOL, "vector_store_ids": ["none"]}]}, 404, "vector_store_not_found", "vector_store_id"),
        ({"tools": [{"type": "file_search"}]}, 400, "missing_required_parameter", "tools.0.vector_store_ids"),
        ({"tool_choice": "none"}, 400, "unsupported_parameter", "tool_choice"),
        ({"tool_choice": {"type": "web_search_preview"}}, 400, "unsupported_parameter", "tool_choice"),
        ({"background": True}, 400, "unsupported_parameter", "background"),
        ({"conversation": "conv_1"}, 400, "unsupported_parameter", "conversation"),
        ({"include": ["message.output_text.logprobs"]}, 400, "unsupported_parameter", "include"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "unsupported_parameter", "input"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]},
            400,
            "unsupported_parameter",
            "input",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            400,
            "unsupported_parameter",
            "input",
        ),
        ({"input": [{"role": "assistant", "content": "x"}]}, 400, "empty_query", "input"),
        ({"input": "  "}, 400, "empty_query", "input"),
        ({"input": []}, 400, "invalid_value", "input"),
        ({"max_output_tokens": 15}, 400, "invalid_value", "max_output_tokens"),
        ({"max_output_tokens": 513}, 400, "invalid_sampling", "max_output_tokens"),
        ({"previous_response_id": "resp_none"}, 404, "previous_response_not_found", "previous_response_id"),
        ({"prompt": {"id": "answer", "version": "99"}}, 400, "unknown_prompt", "prompt"),
        ({"prompt": {"id": "standalone"}}, 400, "invalid_prompt", "prompt"),
        ({"text": {"format": {"type": "json_schema"}}}, 400, "missing_required_parameter", "text.format.name"),
        ({"model": "none"}, 404, "model_not_found", "model"),
        ({"knowledge": 1}, 400, "unknown_parameter", "knowledge"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    http: httpx.Client, corpus: Corpus, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = http.post(RESPONSES, json=asked(**fields))
    refused(answer, status, code, param)
    conforms("ErrorResponse", answer.json())


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "file_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]},
    ],
)
def test_choices_that_search_are_taken(http: httpx.Client, corpus: Corpus, choice: Any) -> None:
    assert created(http, model="extractive", tool_choice=choice)["tool_choice"] == choice


def test_the_store_of_the_alias_is_searched(http: httpx.Client, corpus: Corpus, provider: FakeOpenAI) -> None:
    http.post("/v1/vector_stores", json={"name": "another"})
    provider.chat(Say("Two hours [1]."), Say("Two hours [1]."))
    body = created(http, model="helper", tools=[])
    assert body["grounded"]
    answer = http.post(
        "/v1/chat/completions", json={"model": "helper", "messages": [{"role": "user", "content": QUESTION}]}
    )
    assert answer.json()["citations"]


def test_the_official_client_is_at_home(server: RunningServer, corpus: Corpus, provider: FakeOpenAI) -> None:
    provider.chat(Obey(lambda body: ["Two hours", " [1]."]), Obey(lambda body: ["Which one?"]), Say("Nine [1]."))
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        with client.responses.stream(model="scripted", input=QUESTION, tools=[TOOL]) as stream:  # type: ignore[list-item]
            kinds = [event.type for event in stream]
            first = stream.get_final_response()
        assert kinds[0] == "response.created"
        assert first.output_text == "Two hours [1]."
        second = client.responses.create(
            model="scripted",
            input="And then?",
            previous_response_id=first.id,
            include=["file_search_call.results"],
            tools=[TOOL],  # type: ignore[list-item]
        )
        assert second.output[0].type == "file_search_call"
        assert second.output[0].results
        assert client.responses.retrieve(second.id, include=["file_search_call.results"]).output == second.output
        assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"]
        client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(second.id)
