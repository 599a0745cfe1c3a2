"""Question sets and evaluations over HTTP: made, versioned, listed, carried out, refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.running import Corpus, refused, upload, wait_for

SETS = "/v1/question_sets"
EVALUATIONS = "/v1/evaluations"
LINES = [
    {"id": "refund", "question": "How long does a refund take?", "labels": [{"document": "FILE", "text": "one week"}]},
    {"id": "boat", "question": "When does the boat leave?", "labels": [{"text": "leaves on Mondays"}], "split": "dev"},
    {
        "id": "gone",
        "question": "How long lasts a battery?",
        "labels": [{"document": "kites.md"}, {"text": "nine evenings"}],
    },
]


def put(http: httpx.Client, corpus: Corpus, name: str, lines: list[dict[str, Any]] = LINES) -> dict[str, Any]:
    text = "\n".join(map(json.dumps, lines)).replace("FILE", corpus.files["returns.md"])
    answer = http.post(SETS, params={"name": name}, content=text, headers={"Content-Type": "application/jsonl"})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_set_is_kept_listed_written_out_and_forgotten(http: httpx.Client, corpus: Corpus) -> None:
    first, second = put(http, corpus, "kept"), put(http, corpus, "kept", LINES[:1])
    assert (first["version"], first["size"], second["version"], second["size"]) == (1, 3, 2, 1)
    assert http.get(f"{SETS}/kept").json() == second
    assert http.get(f"{SETS}/kept@1").json() == http.get(f"{SETS}/{first['id']}").json() == first
    listed = http.get(SETS, params={"order": "asc", "limit": 1}).json()
    assert (listed["data"], listed["has_more"]) == ([first], True)
    written = http.get(f"{SETS}/{first['id']}/export")
    assert written.headers["content-type"].startswith("application/jsonl")
    lines = [json.loads(line) for line in written.text.splitlines()]
    assert [line["id"] for line in lines] == ["refund", "boat", "gone"]
    assert lines[0]["labels"][0]["document"] == corpus.files["returns.md"]
    for made in (first, second):
        assert http.delete(f"{SETS}/{made['id']}").json()["deleted"]
    refused(http.get(f"{SETS}/kept"), 404, "question_set_not_found", "question_set_id")


@pytest.mark.parametrize(
    ("name", "body", "code", "param"),
    [
        ("a", "", "empty_question_set", None),
        ("a", '{"question": "?"}\n{', "broken_line", None),
        ("a", '{"question": "?"}', "no_positives", None),
        ("a", '{"question": "?"}\n{"question": "?"}', "duplicate_id", None),
        ("a@b", '{"question": "?", "answers": ["x"]}', "invalid_value", "name"),
        ("qs_" + "0" * 24, '{"question": "?", "answers": ["x"]}', "invalid_value", "name"),
        ("", '{"question": "?", "answers": ["x"]}', "invalid_value", "name"),
    ],
)
def test_what_is_no_set_is_refused(http: httpx.Client, name: str, body: str, code: str, param: str | None) -> None:
    refused(http.post(SETS, params={"name": name}, content=body), 400, code, param)


def finished(http: httpx.Client, evaluation: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(http.get(f"{EVALUATIONS}/{evaluation}").json())
        return found["status"] in ("completed", "failed")

    wait_for(ended)
    return found


def test_an_evaluation_compares_its_arms(http: httpx.Client, corpus: Corpus) -> None:
    made = put(http, corpus, "compared")
    arms = [{"name": "as it is"}, {"name": "words", "mode": "keyword"}, {"name": "few", "model": "extractive"}]
    body = {"vector_store_id": "help", "question_set": "compared", "arms": arms, "measures": ["RR@10"], "answers": True}
    asked = http.post(EVALUATIONS, json=body).json()
    assert asked["request"]["question_set"] == made["id"]
    put(http, corpus, "compared", LINES[:1])
    done = finished(http, asked["id"])
    assert (done["status"], done["questions"], done["questions_done"], done["error"]) == ("completed", 3, 3, None)
    result = done["result"]
    assert [arm["arm"]["name"] for arm in result["arms"]] == ["as it is", "words", "few"]
    first = result["arms"][0]
    assert first["measures"]["RR@10"] == {"mean": 1.0, "n": 3}
    assert first["measures"]["span_recall"]["mean"] == 1.0
    assert (first["labels_left_out"], first["first_left_out"]) == (1, ["gone: 'kites.md'"])
    assert {"retrieval", "context", "answer"} <= first["milliseconds"].keys()
    assert {"embedded", "prompt", "completion"} == first["tokens"].keys()
    assert [(one["a"], one["b"]) for one in result["comparisons"]] == [("as it is", "words"), ("as it is", "few")]
    difference = result["comparisons"][1]["measures"]["RR@10"]
    assert (difference["n"], difference["p"], difference["difference"]) == (3, 1.0, 0.0)
    listed = http.get(EVALUATIONS).json()["data"]
    assert listed[0] == done
    assert http.delete(f"{EVALUATIONS}/{done['id']}").json()["deleted"]
    refused(http.get(f"{EVALUATIONS}/{done['id']}"), 404, "evaluation_not_found", "evaluation_id")


def test_one_whose_labels_name_nothing_fails_by_name(http: httpx.Client, corpus: Corpus) -> None:
    put(http, corpus, "nowhere", [{"question": "Where?", "labels": [{"document": "nowhere.md"}]}])
    body = {"vector_store_id": "help", "question_set": "nowhere", "arms": [{"name": "a"}]}
    done = finished(http, http.post(EVALUATIONS, json=body).json()["id"])
    assert (done["status"], done["error"]["code"], done["result"]) == ("failed", "unknown_documents", None)
    assert "nowhere.md" in done["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"arms": []}, 400, "invalid_value", "arms"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, 400, "invalid_value", "arms"),
        ({"arms": [{"name": "a", "fusion": "none"}]}, 400, "invalid_value", "arms.0.fusion"),
        ({"question_set": "none"}, 404, "question_set_not_found", "question_set_id"),
        ({"measures": ["none"]}, 400, "unknown_measure", "measures"),
        ({"split": "dev", "question_set": "alone"}, 400, "empty_question_set", "split"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    http: httpx.Client, corpus: Corpus, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    put(http, corpus, "alone", [{**LINES[0], "split": "test"}])
    body = {"vector_store_id": "help", "question_set": "alone", "arms": [{"name": "a"}], **fields}
    refused(http.post(EVALUATIONS, json=body), status, code, param)


def test_what_stands_on_a_store_goes_with_it(http: httpx.Client, corpus: Corpus) -> None:
    store = http.post("/v1/vector_stores", json={"name": "short-lived", "file_ids": [upload(http, "a.txt", "A a.")]})
    put(http, corpus, "stays", [{"question": "A?", "answers": ["A"]}])
    body = {"vector_store_id": "short-lived", "question_set": "stays", "arms": [{"name": "a"}]}
    made = http.post(EVALUATIONS, json=body).json()["id"]
    assert http.delete(f"/v1/vector_stores/{store.json()['id']}").status_code == 200
    refused(http.get(f"{EVALUATIONS}/{made}"), 404, "evaluation_not_found", "evaluation_id")
    assert http.get(f"{SETS}/stays").status_code == 200


def test_feedback_becomes_candidates_only_where_words_were_kept(http: httpx.Client, corpus: Corpus) -> None:
    ask = {"model": "extractive", "vector_store_ids": ["help"], "messages": [{"role": "user", "content": "A boat?"}]}
    trace = http.post("/v1/chat/completions", json=ask).json()["trace_id"]
    given = {"trace_id": trace, "name": "better", "corrected_answer": "On Mondays."}
    assert http.post("/v1/feedback", json=given).json()["corrected_answer"] == "On Mondays."
    found = http.get("/v1/vector_stores/help/feedback_questions").json()
    assert found["data"] == []
    assert found["without_text"] >= 1
