"""The doors beside OpenAI's interface (MCP, Dify) show a caller just what the interface itself shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.campaigns.walls import TOPICS, Attacker, Item, World, bearer, claim, new_key

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

QUERY = " ".join(TOPICS)
ALL = 50
DIFY = "/v1/dify/retrieval"


def tool(world: World, headers: Mapping[str, str], name: str, **arguments: Any) -> httpx.Response:
    """A call of a tool as it goes over the wire, with the headers of this caller."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    accept = {"Accept": "application/json, text/event-stream"}
    return world.http.post("/mcp", headers={**accept, **headers}, json=call)


def said(answer: httpx.Response) -> dict[str, Any]:
    """What a tool gave, else `{"error": why not}`."""
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    text = result["content"][0]["text"]
    told: dict[str, Any] = {"error": text} if result.get("isError") else json.loads(text)
    return told


def readers(world: World) -> Iterator[Attacker]:
    """Who may ask at all, the operator of another tenant and administrators among them."""
    for attacker in world.attackers:
        if world.http.get("/v1/traces/none", headers=dict(attacker.headers)).status_code == 404:
            yield attacker


def seen(world: World, attacker: Attacker, store: str | None = None) -> dict[str, Item]:
    """What is theirs to see by the rule, by file id."""
    return {item.file_id: item for item in world.items if attacker.sees(item) and store in (None, item.store)}


def test_every_door_finds_what_the_caller_sees_and_nothing_else(world: World) -> None:
    asked = 0
    for attacker in readers(world):
        headers, mine = dict(attacker.headers), seen(world, attacker)
        answers = [
            tool(world, headers, "search", query=QUERY, limit=ALL),
            tool(world, headers, "context", question=QUERY),
        ]
        found = said(answers[0]).get("results", [])
        assert {result["id"].split(":")[1] for result in found} == set(mine), attacker.name
        packed = said(answers[1]).get("passages", [])
        assert bool(packed) == bool(mine)
        assert {passage["id"].split(":")[1] for passage in packed} <= set(mine)
        for (tenant, name), store in world.stores.items():
            body = {"knowledge_id": store, "query": QUERY, "retrieval_setting": {"top_k": ALL, "score_threshold": 0.0}}
            dify = world.http.post(DIFY, headers=headers, json=body)
            http = world.http.post(
                f"/v1/vector_stores/{store}/search", headers=headers, json={"query": QUERY, "max_num_results": ALL}
            )
            named = tool(world, headers, "search", query=QUERY, limit=ALL, vector_stores=[store])
            answers += [dify, named]
            assert (dify.status_code, dify.json().get("error_code")) == (
                (200, None) if http.is_success else (404, 2001)
            )
            listed = [hit["file_id"] for hit in http.json().get("data", [])]
            assert [record["metadata"]["file_id"] for record in dify.json().get("records", [])] == listed
            assert [result["id"].split(":")[1] for result in said(named).get("results", [])] == listed
            assert set(listed) == (set(seen(world, attacker, name)) if tenant == attacker.tenant else set())
        for answer in answers:
            assert not [word for word in world.forbidden(attacker) if word in answer.text], attacker.name
        asked += len(answers)
    assert asked > 100


def test_a_fetch_is_held_to_the_walls(world: World) -> None:
    """An id of a passage is no secret: who may not see its document is told that there is none."""
    ids = {}
    for tenant, headers in world.admins.items():
        for result in said(tool(world, headers, "search", query=QUERY, limit=ALL))["results"]:
            ids[tenant, result["id"].split(":")[1]] = result["id"]
    assert len(ids) == len(world.items)
    for attacker in [one for one in readers(world) if one.name in ("reader", "granted, hr", "delegate", "neighbour")]:
        kinds = {(item.tenant, item.store, item.tags): item for item in world.items}
        for item in kinds.values():
            answer = tool(world, attacker.headers, "fetch", id=ids[item.tenant, item.file_id])
            if attacker.sees(item):
                assert item.canary in said(answer)["text"]
                continue
            store, file, rest = ids[item.tenant, item.file_id].split(":", 2)
            gone, nowhere = f"file-{'0' * 24}", f"vs_{'0' * 24}"
            there = world.uses(attacker, item.tenant, item.store)
            twin = f"{store}:{gone}:{rest}" if there else f"{nowhere}:{file}:{rest}"
            told = tool(world, attacker.headers, "fetch", id=twin).text
            assert answer.text == told.replace(gone, file).replace(nowhere, store)


def test_who_may_not_ask_may_not_ask_at_any_door(world: World) -> None:
    body = {"knowledge_id": "handbook", "query": QUERY, "retrieval_setting": {"top_k": 1, "score_threshold": 0.0}}
    drop_box = next(attacker for attacker in world.attackers if attacker.name == "drop box")
    assert tool(world, drop_box.headers, "search", query=QUERY).json()["error"]["code"] == "insufficient_scope"
    assert world.http.post(DIFY, headers=dict(drop_box.headers), json=body).json()["error_code"] == 1002
    refused = [attacker for attacker in world.attackers if attacker.tenant is None]
    assert len(refused) == 5
    for attacker in refused:
        assert tool(world, attacker.headers, "search", query=QUERY).status_code == 401
        dify = world.http.post(DIFY, headers=dict(attacker.headers), json=body)
        assert (dify.status_code, dify.json()["error_code"]) in ((401, 1001), (403, 1002))


def test_a_claim_and_a_revocation_count_at_every_door(world: World) -> None:
    made = new_key(world, "acme", "query", permissions=["hr", "board"])
    headers = bearer(made["secret"])
    by_tags = {
        (): {item.file_id for item in world.items if item.tenant == "acme" and not item.tags},
        ("hr",): {item.file_id for item in world.items if item.tenant == "acme" and set(item.tags) <= {"hr", "board"}},
    }
    for tags, expected in by_tags.items():
        found = said(tool(world, {**headers, **claim(tags)}, "search", query=QUERY, limit=ALL))["results"]
        assert {result["id"].split(":")[1] for result in found} == expected
    late = tool(world, {**headers, **claim(["hr"], seconds=-1)}, "search", query=QUERY)
    assert (late.status_code, late.json()["error"]["code"]) == (401, "invalid_claim")
    world.http.delete(f"/v1/keys/{made['id']}", headers=world.admins["acme"])
    assert tool(world, headers, "search", query=QUERY).status_code == 401


def test_limits_of_a_key_count_at_every_door(world: World) -> None:
    limits = {"requests_per_minute": 2, "tokens_per_request": 600}
    headers = bearer(new_key(world, "acme", "query", limits=limits)["secret"])
    packed = said(tool(world, headers, "context", question=QUERY, vector_stores=["handbook"]))
    assert packed["prompt_tokens"] <= 600
    assert tool(world, headers, "search", query=QUERY).status_code == 200
    assert tool(world, headers, "search", query=QUERY).status_code == 429
    body = {"knowledge_id": "handbook", "query": QUERY, "retrieval_setting": {"top_k": 1, "score_threshold": 0.0}}
    assert world.http.post(DIFY, headers=headers, json=body).json()["error_code"] == 429
