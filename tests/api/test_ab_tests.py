"""A/B tests over HTTP: who gets which arm, what the trace and the report say, and what is refused."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rag.backend import Backend
from rag.traces import find_trace
from tests.api.running import Corpus, RunningServer, fill, refused
from tests.fakes.openai_server import FakeOpenAI, Say

QUESTION = "How long must I charge the lamp?"
ARMS = [{"name": "quotes", "share": 0.5, "model": "extractive"}, {"name": "words", "share": 0.5, "model": "scripted"}]
USERS = [f"user-{number}" for number in range(40)]


@pytest.fixture
def begun(http: httpx.Client) -> Iterator[str]:
    """The id of a test over models that runs."""
    answer = http.post("/v1/ab_tests", json={"name": "models", "arms": ARMS})
    assert answer.status_code == 200, answer.text
    yield answer.json()["id"]
    http.delete(f"/v1/ab_tests/{answer.json()['id']}")


def arm_of(test: str, user: str) -> str:
    """By the definition: the first half of the hashes is in the first arm."""
    return "quotes" if hashlib.sha256(f"{test}\0{user}".encode()).digest()[0] < 128 else "words"


def some_of(test: str, arm: str, number: int) -> list[str]:
    return [user for user in USERS if arm_of(test, user) == arm][:number]


def ask(http: httpx.Client, store: str, user: str | None, path: str = "/v1/chat/completions", **more: Any) -> Any:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], "vector_store_ids": [store]}
    if path == "/v1/responses":
        said = {"input": QUESTION, "tools": [{"type": "file_search", "vector_store_ids": [store]}]}
    answer = http.post(path, json={**said, **({"user": user} if user else {}), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def trace(http: httpx.Client, answer: Any) -> Any:
    return http.get(f"/v1/traces/{answer['trace_id']}").json()


def test_a_user_gets_their_arm_and_the_report_counts_it(
    http: httpx.Client, begun: str, provider: FakeOpenAI, server: RunningServer
) -> None:
    passing = fill(http, "compared").store
    quotes, words = some_of(begun, "quotes", 3), some_of(begun, "words", 4)
    provider.chat(*[Say("Charge the lamp for two hours [1]. It lasts forty evenings [1].")] * 4)
    for user in quotes + words:
        model, arm = ("extractive", "quotes") if user in quotes else ("scripted", "words")
        answer = ask(http, passing, user, model="extractive")
        assert answer["model"] == model
        assert trace(http, answer)["ab_tests"] == {begun: arm}
        thumb = {"trace_id": answer["trace_id"], "name": "thumb", "value": user != words[0]}
        http.post("/v1/feedback", json=thumb).raise_for_status()
        machine = {"trace_id": answer["trace_id"], "name": "judge", "value": False, "source": "llm_judge"}
        http.post("/v1/feedback", json=machine).raise_for_status()
    report = http.get(f"/v1/ab_tests/{begun}/report").json()
    one, other = report["arms"]
    assert one["judged"] == {"number": 3, "of": 3, "value": 1.0}
    assert one["ungrounded"] == {"number": 0, "of": 3, "value": 0.0}
    assert one["failed"]["number"] == one["abstained"]["number"] == 0
    assert other["positive"] == {"number": 3, "of": 4, "value": 0.75}
    assert other["ungrounded"] == {"number": 4, "of": 4, "value": 1.0}
    found = {one["measure"]: one for one in report["differences"]}
    assert found["positive"]["difference"] == -0.25
    assert found["positive"]["low"] < -0.25 < found["positive"]["high"]
    assert found["ungrounded"]["low"] > 0
    assert found["ungrounded"]["p"] < 0.05 < found["positive"]["p"]
    http.delete(f"/v1/vector_stores/{passing}").raise_for_status()
    assert [arm["failed"]["of"] for arm in http.get(f"/v1/ab_tests/{begun}/report").json()["arms"]] == [0, 0]


def test_only_who_says_who_they_are_takes_part(http: httpx.Client, begun: str, corpus: Corpus) -> None:
    (user,) = some_of(begun, "quotes", 1)
    for path in ("/v1/chat/completions", "/v1/responses"):
        (answer, nobody) = (ask(http, corpus.store, who, path, model="extractive") for who in (user, None))
        (by_safety,) = (ask(http, corpus.store, None, path, model="extractive", safety_identifier=user),)
        assert trace(http, answer)["ab_tests"] == trace(http, by_safety)["ab_tests"] == {begun: "quotes"}
        assert trace(http, nobody)["ab_tests"] == {}
    (other,) = some_of(begun, "words", 1)
    context = http.post("/v1/context", json={"question": QUESTION, "vector_store_ids": [corpus.store], "user": other})
    assert context.json()["model"] == "scripted"
    assert trace(http, context.json())["ab_tests"] == {begun: "words"}
    small = ask(http, corpus.store, None, model="extractive", prompt="answer")
    assert trace(http, small)["ab_tests"] == {}


def test_one_that_is_deleted_in_flight_costs_no_trace(
    http: httpx.Client, begun: str, corpus: Corpus, server: RunningServer
) -> None:
    backend: Backend = server.app.state.backend
    row = {"tenant": "default", "key_id": None, "permissions": None, "stores": ",", "body": {}}
    http.delete(f"/v1/ab_tests/{begun}").raise_for_status()
    late = {"public_id": "trace_late", "created_at": int(time.time()), "documents": [], "arms": {begun: "quotes"}}
    backend.traces.submit({**row, **late})
    assert find_trace(backend, "trace_late")[0].public_id == "trace_late"
    refused(http.get(f"/v1/ab_tests/{begun}/report"), 404, "ab_test_not_found", "ab_test_id")


def test_it_is_listed_and_ended(http: httpx.Client, begun: str, corpus: Corpus) -> None:
    refused(http.post("/v1/ab_tests", json={"name": "again", "arms": ARMS}), 400, "ab_test_running", "arms")
    assert [one["id"] for one in http.get("/v1/ab_tests").json()["data"]] == [begun]
    ended = http.post(f"/v1/ab_tests/{begun}/end").json()
    assert ended["status"] == "ended"
    assert http.get(f"/v1/ab_tests/{begun}").json() == ended
    (user,) = some_of(begun, "words", 1)
    assert ask(http, corpus.store, user, model="extractive")["model"] == "extractive"
    assert http.get(f"/v1/ab_tests/{begun}/report").json()["test"] == ended


@pytest.mark.parametrize(
    ("arms", "status", "code"),
    [
        ([ARMS[0], {**ARMS[1], "share": 0.4}], 400, "invalid_arms"),
        ([ARMS[0], {**ARMS[1], "model": "unknown"}], 404, "model_not_found"),
        ([ARMS[0], {**ARMS[1], "prompt": "unknown"}], 400, "unknown_prompt"),
        ([ARMS[0]], 400, "invalid_value"),
        ([ARMS[0], {**ARMS[1], "share": 0}], 400, "invalid_value"),
    ],
)
def test_what_is_refused(http: httpx.Client, arms: list[Any], status: int, code: str) -> None:
    answer = http.post("/v1/ab_tests", json={"name": "wrong", "arms": arms})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
