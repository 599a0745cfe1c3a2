"""Markers of every kind, cut anywhere, through every door: none dangles, each quotes stored text, all doors agree."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.api.running import Corpus
from tests.fakes.openai_server import FakeOpenAI, Say

CASES = 60
SAYING = "the lamp is charged for two hours and parcels travel by boat while refunds take one week"
QUESTION = "Charge the lamp, return a kettle, parcels to Norway by boat"
SEARCH = {"score_threshold": 0.0}


def scripted(chosen: random.Random) -> list[str]:
    """An answer with valid, unknown, out-of-range, repeated and odd markers, in pieces of one to five characters."""
    said = ""
    for _ in range(chosen.randint(1, 8)):
        said += " ".join(chosen.choices(SAYING.split(), k=chosen.randint(1, 6)))
        said += chosen.choice(["", " ", ", ", ". "])
        said += "".join(marker(chosen) for _ in range(chosen.choice([0, 1, 1, 2, 3])))
        said += chosen.choice([" ", ". ", ".\n", ".\n\n- "])
    cuts = sorted(chosen.sample(range(1, len(said)), min(len(said) - 1, chosen.randint(1, len(said) // 2))))
    return [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]


def marker(chosen: random.Random) -> str:
    """A marker as some model would write it; the passages are numbers 1 to 3."""
    number = chosen.choice([1, 1, 2, 3, 0, 4, 9, 17, 100, 10**12])
    other = chosen.randint(1, 6)
    numbered = ["[{0}]", "[{0}]", " [{0}]", "[^{0}]", "[ {0} ]", "[{0}][{0}]"]
    forms = (*numbered, "[{0}, {1}]", "[{0}-{1}]", "【{0}】", "【{0}†source】")
    return chosen.choice(forms).format(number, other)


@pytest.fixture(scope="module")
def texts(server: Any, corpus: Corpus) -> Mapping[str, str]:
    """The stored text of each file."""
    with httpx.Client(base_url=server.url) as http:
        places = {file: f"/v1/vector_stores/help/files/{file}/content" for file in corpus.files.values()}
        return {file: http.get(place).json()["data"][0]["text"] for file, place in places.items()}


def test_no_marker_dangles_through_any_door(
    http: httpx.Client, corpus: Corpus, provider: FakeOpenAI, texts: Mapping[str, str]
) -> None:
    cited = removed = 0
    for case in range(CASES):
        pieces = scripted(random.Random(case))
        provider.chat(*[Say(*pieces)] * 4)
        plain, *others = [chat(http), chat_stream(http), response(http), response_stream(http)]
        assert others == [plain] * 3, (case, pieces)
        check(plain, texts, (case, pieces))
        cited += len(plain["citations"])
        removed += len(plain["removed_markers"])
    assert cited > CASES
    assert removed > CASES


def check(answer: Mapping[str, Any], texts: Mapping[str, str], case: object) -> None:
    text = answer["text"]
    for citation in answer["citations"]:
        assert text[citation["marker_start"] : citation["marker_end"]] == f"[{citation['number']}]", case
        assert texts[citation["file_id"]][citation["start"] : citation["end"]] == citation["quote"] != "", case
    marked = [(found.start(), int(found[1])) for found in re.finditer(r"\[(\d+)\]", text)]
    assert marked == [(citation["marker_start"], citation["number"]) for citation in answer["citations"]], case
    assert not re.search(r"[【】^†]|\[\s*\d+\s*[,\]-]\s*\d", text), case


def chat(http: httpx.Client) -> dict[str, Any]:
    body = http.post("/v1/chat/completions", json=chat_body()).json()
    return gist(body["choices"][0]["message"]["content"], body)


def chat_stream(http: httpx.Client) -> dict[str, Any]:
    events = data_of(http.post("/v1/chat/completions", json=chat_body(stream=True)))
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    return gist(said, events[-1])


def response(http: httpx.Client) -> dict[str, Any]:
    body = http.post("/v1/responses", json=response_body()).json()
    part = body["output"][1]["content"][0]
    assert [note["index"] for note in part["annotations"]] == [c["marker_start"] for c in body["citations"]]
    return gist(part["text"], body)


def response_stream(http: httpx.Client) -> dict[str, Any]:
    events = data_of(http.post("/v1/responses", json=response_body(stream=True)))
    said = ""
    for event in events:
        said += event["delta"] if event["type"] == "response.output_text.delta" else ""
        if event["type"] == "response.output_text.annotation.added":
            assert said[event["annotation"]["index"]] == "["
    return gist(said, events[-1]["response"])


def gist(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What all doors must agree on."""
    return {"text": text, **{name: body[name] for name in ("citations", "removed_markers", "grounded")}}


def data_of(answer: httpx.Response) -> list[Any]:
    lines = (line for line in answer.text.splitlines() if line.startswith("data: ") and line != "data: [DONE]")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def chat_body(**fields: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": QUESTION}]
    return {"model": "scripted", "vector_store_ids": ["help"], "messages": question, **SEARCH, **fields}


def response_body(**fields: Any) -> dict[str, Any]:
    tool = {"type": "file_search", "vector_store_ids": ["help"], "ranking_options": SEARCH}
    return {"model": "scripted", "input": QUESTION, "tools": [tool], "store": False, **fields}
