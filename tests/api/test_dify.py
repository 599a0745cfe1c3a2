"""Dify's external knowledge endpoint, as Dify calls it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.running import Corpus

PATH = "/v1/dify/retrieval"


def ask(http: httpx.Client, query: str, *, top_k: int = 4, threshold: float = 0.0, **fields: Any) -> httpx.Response:
    setting = {"top_k": top_k, "score_threshold": threshold}
    return http.post(PATH, json={"knowledge_id": "help", "query": query, "retrieval_setting": setting, **fields})


def records(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"records"}
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


def failed(answer: httpx.Response, status: int, number: int, code: str) -> None:
    """Check an error in both its forms, and that it is as long as it says."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"error", "error_code", "error_msg"}
    assert (said["error_code"], said["error"]["code"]) == (number, code)
    assert said["error_msg"] == said["error"]["message"]
    assert len(answer.content) == int(answer.headers["content-length"])


def test_records(http: httpx.Client, corpus: Corpus) -> None:
    found = records(ask(http, "parcels to Norway"))
    assert set(found[0]) == {"content", "score", "title", "metadata"}
    assert "Norway" in found[0]["content"]
    assert found[0]["title"] == "Shipping"
    assert found[0]["metadata"]["file_id"] == corpus.files["shipping.md"]
    assert (found[0]["metadata"]["topic"], found[0]["metadata"]["year"]) == ("shop", 2024)
    assert all(0 <= record["score"] <= 1 for record in found)
    assert len(records(ask(http, "kettle lamp boat", top_k=2))) == 2
    by_id = records(ask(http, "parcels to Norway", knowledge_id=corpus.store))
    assert by_id == found


def test_a_threshold_is_a_relevance(http: httpx.Client, corpus: Corpus) -> None:
    scores = sorted(record["score"] for record in records(ask(http, "parcels to Norway")))
    assert scores[0] < scores[-1]
    kept = records(ask(http, "parcels to Norway", threshold=scores[-1]))
    assert [record["score"] for record in kept] == [scores[-1]]
    assert records(ask(http, "xyzzy quux", threshold=1.0)) == []


@pytest.mark.parametrize(
    ("logical", "conditions", "titles"),
    [
        ("and", [("topic", "is", "shop")], {"Returns", "Shipping"}),
        ("and", [("topic", "is not", "shop")], {"Battery"}),
        ("and", [("topic", "in", ["lamp", "kettle"])], {"Battery"}),
        ("and", [("topic", "not in", ["lamp"])], {"Returns", "Shipping"}),
        ("and", [("year", "=", 2024), ("topic", "is", "shop")], {"Shipping"}),
        ("and", [("year", "≠", 2024)], {"Returns"}),
        ("and", [("year", ">", "2023")], {"Shipping", "Battery"}),
        ("and", [("year", "<", 2024)], {"Returns"}),
        ("and", [("year", "≥", 2023), ("year", "≤", 2023)], {"Returns"}),
        ("and", [("year", "before", 2024)], {"Returns"}),
        ("and", [("year", "after", 2023)], {"Shipping", "Battery"}),
        ("or", [("topic", "is", "lamp"), ("year", "<", 2024)], {"Battery", "Returns"}),
        (None, [(["topic"], "is", "lamp")], {"Battery"}),
        ("and", [], {"Returns", "Shipping", "Battery"}),
    ],
)
def test_conditions(http: httpx.Client, corpus: Corpus, logical: Any, conditions: Any, titles: set[str]) -> None:
    parts = [{"name": name, "comparison_operator": operator, "value": value} for name, operator, value in conditions]
    condition = {"logical_operator": logical, "conditions": parts}
    found = records(ask(http, "kettle lamp boat", metadata_condition=condition))
    assert {record["title"] for record in found} == titles
    assert len(records(ask(http, "kettle lamp boat", metadata_condition=None))) == 3


@pytest.mark.parametrize(
    ("operator", "value", "code"),
    [
        ("contains", "sho", "invalid_condition"),
        ("empty", None, "invalid_condition"),
        ("like", "shop", "invalid_value"),
        ("is", None, "invalid_condition"),
        ("in", "shop", "invalid_condition"),
        ("=", "many", "invalid_condition"),
        (">", "shop", "invalid_condition"),
    ],
)
def test_conditions_that_cannot_be_asked(
    http: httpx.Client, corpus: Corpus, operator: str, value: Any, code: str
) -> None:
    condition = {"conditions": [{"name": "topic", "comparison_operator": operator, "value": value}]}
    failed(ask(http, "lamp", metadata_condition=condition), 400, 400, code)


def test_what_dify_sends_when_the_address_is_entered(locked: Any) -> None:
    """It posts nothing but a key, and takes all but 403, 404 and 502 for an address that works."""
    for headers, status, number, code in [
        ({"Authorization": "Bearer sesame"}, 400, 400, "missing_required_parameter"),
        ({"Authorization": "Bearer wrong"}, 403, 1002, "invalid_api_key"),
        ({"Authorization": "sesame"}, 401, 1001, "missing_api_key"),
        ({}, 401, 1001, "missing_api_key"),
    ]:
        failed(httpx.post(f"{locked.url}{PATH}", headers=headers), status, number, code)


def test_errors_on_the_way_in(http: httpx.Client, corpus: Corpus) -> None:
    failed(ask(http, "lamp", knowledge_id="none"), 404, 2001, "vector_store_not_found")
    failed(ask(http, " "), 400, 400, "empty_query")
    failed(ask(http, "lamp", top_k=0), 400, 400, "invalid_value")
    failed(ask(http, "lamp", colour="red"), 400, 400, "unknown_parameter")
    failed(http.post(PATH, content=b"{", headers={"Content-Type": "application/json"}), 400, 400, "invalid_json")
    failed(http.post(PATH, content=b" " * (9 << 20)), 413, 413, "body_too_large")
    failed(http.post(PATH, json={}, headers={"Host": "evil.example"}), 403, 1002, "host_not_allowed")
    assert http.get(PATH).status_code == 405
