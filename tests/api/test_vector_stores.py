"""Vector stores and the files in them."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.running import DOCUMENTS, Corpus, finished, refused, upload


def _new_store(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/vector_stores", json=fields)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_store_is_made_described_changed_and_forgotten(http: httpx.Client) -> None:
    store = _new_store(http, name="first", description="one", metadata={"k": "v"})
    assert store == {
        "id": store["id"],
        "object": "vector_store",
        "created_at": store["created_at"],
        "name": "first",
        "description": "one",
        "usage_bytes": 0,
        "file_counts": {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0},
        "status": "completed",
        "expires_at": None,
        "last_active_at": store["last_active_at"],
        "metadata": {"k": "v"},
        "embedder": "toy-384",
        "chunking_strategy": {"type": "auto"},
    }
    assert http.get(f"/v1/vector_stores/{store['id']}").json() == store
    assert http.get("/v1/vector_stores/first").json() == store
    changed = http.post("/v1/vector_stores/first", json={"name": "second", "metadata": None}).json()
    assert (changed["name"], changed["metadata"], changed["description"]) == ("second", {"k": "v"}, "one")
    assert http.get("/v1/vector_stores", params={"limit": 1}).json()["data"] == [changed]
    gone = http.delete("/v1/vector_stores/second").json()
    assert gone == {"id": store["id"], "object": "vector_store.deleted", "deleted": True}
    for name in ("second", store["id"]):
        refused(http.get(f"/v1/vector_stores/{name}"), 404, "vector_store_not_found", "vector_store_id")


def test_a_name_that_two_stores_have_names_neither_and_the_error_says_their_ids(http: httpx.Client) -> None:
    twins = [_new_store(http, name="twin")["id"] for _ in range(2)]
    for answer in (
        http.get("/v1/vector_stores/twin"),
        http.post("/v1/vector_stores", json={"name": "twin", "only_if_absent": True}),
    ):
        message = refused(answer, 400, "ambiguous_name", "vector_store_id")
        assert all(twin in message for twin in twins)
    for twin in twins:
        http.delete(f"/v1/vector_stores/{twin}")


def test_many_who_ask_at_once_for_a_store_if_it_is_absent_get_the_same_one(http: httpx.Client) -> None:
    body = {"name": "one for all", "only_if_absent": True}
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: _new_store(http, **body)["id"], range(16)))
    assert len(set(made)) == 1
    assert [s["id"] for s in http.get("/v1/vector_stores", params={"limit": 100}).json()["data"]].count(made[0]) == 1
    http.delete(f"/v1/vector_stores/{made[0]}")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"only_if_absent": True}, "invalid_value", "only_if_absent"),
        ({"nam": "x"}, "unknown_parameter", "nam"),
        ({"name": 5}, "invalid_value", "name"),
        ({"name": "a\0b"}, "nul_character", "name"),
        ({"name": "vs_" + "0" * 24}, "invalid_value", "name"),
        ({"name": "x" * 257}, "invalid_value", "name"),
        ({"metadata": {"k": 1}}, "invalid_value", "metadata.k"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata"),
        ({"metadata": []}, "invalid_value", "metadata"),
        ({"expires_after": {"anchor": "last_active_at", "days": 0}}, "invalid_value", "expires_after.days"),
        ({"expires_after": {"anchor": "created_at", "days": 1}}, "invalid_value", "expires_after.anchor"),
        ({"expires_after": {"days": 1}}, "missing_required_parameter", "expires_after.anchor"),
        ({"embedder": "nobody"}, "unknown_name", "embedder"),
        ({"chunking_strategy": {"type": "magic"}}, "invalid_value", "chunking_strategy"),
        (
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 99, "chunk_overlap_tokens": 0},
                }
            },
            "invalid_value",
            "chunking_strategy.static.max_chunk_size_tokens",
        ),
        (
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51},
                }
            },
            "invalid_value",
            "chunking_strategy.static",
        ),
        ({"file_ids": "file-1"}, "invalid_value", "file_ids"),
    ],
)
def test_a_store_that_cannot_be_is_refused_by_field(
    http: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    refused(http.post("/v1/vector_stores", json=body), 400, code, param)


def test_a_store_over_an_unknown_file_is_not_made(http: httpx.Client) -> None:
    before = http.get("/v1/vector_stores", params={"limit": 100}).json()
    refused(http.post("/v1/vector_stores", json={"file_ids": ["file-none"]}), 404, "file_not_found", "file_id")
    assert http.get("/v1/vector_stores", params={"limit": 100}).json() == before


def test_an_ingested_file_tells_everything(http: httpx.Client, corpus: Corpus) -> None:
    file_id, text = corpus.files["battery.md"], DOCUMENTS["battery.md"]
    seen = http.get(f"/v1/vector_stores/help/files/{file_id}").json()
    assert seen["progress"]["chunks_total"] == seen["progress"]["chunks_done"] == 1
    assert seen["progress"]["embedded_tokens"] > 0
    del seen["progress"], seen["created_at"]
    assert seen == {
        "id": file_id,
        "object": "vector_store.file",
        "vector_store_id": corpus.store,
        "status": "completed",
        "last_error": None,
        "usage_bytes": len(text),
        "attributes": {"topic": "lamp", "year": 2024, "public": True},
        "permissions": [],
        "chunking_strategy": {"type": "other"},
        "filename": "battery.md",
        "source": file_id,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "state": "completed",
        "attempts": 1,
    }
    content = http.get(f"/v1/vector_stores/help/files/{file_id}/content").json()
    assert content["object"] == "vector_store.file_content.page"
    assert [part["text"].strip() for part in content["data"]] == [text.strip()]
    store = http.get("/v1/vector_stores/help").json()
    assert store["file_counts"] == {"in_progress": 0, "completed": 3, "failed": 0, "cancelled": 0, "total": 3}
    assert store["usage_bytes"] == sum(map(len, DOCUMENTS.values()))


def test_the_files_of_a_store_are_listed_by_status_and_cursor(http: httpx.Client, corpus: Corpus) -> None:
    path = "/v1/vector_stores/help/files"
    ids = list(corpus.files.values())
    page = http.get(path, params={"order": "asc", "limit": 2, "filter": "completed"}).json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[:2], True)
    before = http.get(path, params={"order": "asc", "before": ids[2], "limit": 1}).json()
    assert ([row["id"] for row in before["data"]], before["has_more"]) == ([ids[1]], True)
    assert http.get(path, params={"filter": "failed"}).json()["data"] == []
    refused(http.get(path, params={"filter": "odd"}), 400, "invalid_value", "filter")
    refused(http.get(path, params={"limit": 101}), 400, "invalid_value", "limit")


def test_a_failed_file_says_why_and_can_be_tried_again(http: httpx.Client, bad_file: Path) -> None:
    store = _new_store(http, name="failing")["id"]
    file_id = upload(http, bad_file.name, bad_file.read_bytes())
    path = f"/v1/vector_stores/{store}/files/{file_id}"
    http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id})
    failed = finished(http, store, file_id)
    assert (failed["status"], failed["state"], failed["usage_bytes"]) == ("failed", "failed", 0)
    assert failed["last_error"]["code"] == failed["last_error"]["detail"] == "unsupported_file"
    assert failed["last_error"]["message"]
    refused(http.get(f"{path}/content"), 404, "content_not_available", "file_id")
    refused(http.post(f"{path}/cancel"), 400, "nothing_to_cancel", "file_id")
    again = http.post(f"{path}/retry")
    assert (again.status_code, again.json()["status"], again.json()["last_error"]) == (200, "in_progress", None)
    assert finished(http, store, file_id)["attempts"] == 2
    empty = upload(http, "empty.txt", b"")
    http.post(f"/v1/vector_stores/{store}/files", json={"file_id": empty})
    error = finished(http, store, empty)["last_error"]
    assert (error["code"], error["detail"]) == ("invalid_file", "empty")
    counts = http.get(f"/v1/vector_stores/{store}").json()["file_counts"]
    assert (counts["failed"], counts["total"]) == (2, 2)
    http.delete(f"/v1/vector_stores/{store}")


def test_work_that_waits_can_be_stopped_and_taken_up_again(keyed: httpx.Client) -> None:
    # This server runs no jobs, so what is queued stays queued.
    store = _new_store(keyed, name="waiting")["id"]
    file_id = upload(keyed, "a.txt", "some text")
    path = f"/v1/vector_stores/{store}/files/{file_id}"
    added = keyed.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id}).json()
    assert (added["status"], added["state"]) == ("in_progress", "queued")
    assert keyed.get(f"/v1/vector_stores/{store}").json()["status"] == "in_progress"
    refused(keyed.post(f"{path}/retry"), 400, "nothing_to_retry", "file_id")
    assert keyed.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert keyed.post(f"{path}/retry").json()["state"] == "queued"
    status = keyed.get("/v1/status").json()
    assert (status["runs_jobs"], status["waiting_documents"]) == (False, 1)
    gone = keyed.delete(path).json()
    assert gone == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    assert keyed.get("/v1/status").json()["waiting_documents"] == 0
    assert keyed.get(f"/v1/files/{file_id}").status_code == 200


def test_an_owned_file_goes_with_its_document(keyed: httpx.Client) -> None:
    store = _new_store(keyed, name="owner")["id"]
    file_id = upload(keyed, "a.txt", "some text")
    body = {"file_id": file_id, "source": "docs/a.txt", "owned": True}
    assert keyed.post(f"/v1/vector_stores/{store}/files", json=body).json()["source"] == "docs/a.txt"
    keyed.delete(f"/v1/vector_stores/{store}/files/{file_id}")
    refused(keyed.get(f"/v1/files/{file_id}"), 404, "file_not_found", "file_id")


def test_attributes_are_replaced_and_filter_the_next_search(http: httpx.Client) -> None:
    store = _new_store(http, name="changing")["id"]
    file_id = upload(http, "a.txt", "The heron stands in the water.")
    http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id, "attributes": {"n": 1}})
    finished(http, store, file_id)
    path = f"/v1/vector_stores/{store}/files/{file_id}"
    changed = http.post(path, json={"attributes": {"n": 2, "f": 0.5, "s": "x", "b": False}}).json()
    assert changed["attributes"] == {"n": 2, "f": 0.5, "s": "x", "b": False}

    def hits(value: int) -> int:
        body = {"query": "heron", "filters": {"type": "eq", "key": "n", "value": value}}
        return len(http.post(f"/v1/vector_stores/{store}/search", json=body).json()["data"])

    assert (hits(1), hits(2)) == (0, 1)
    assert http.post(path, json={"attributes": None}).json()["attributes"] == {}
    refused(http.post(path, json={"attributes": {"s": "a\0b"}}), 400, "nul_character", "attributes.s")
    http.delete(f"/v1/vector_stores/{store}")


def test_a_hit_is_found_by_its_file_while_its_replacement_is_not_complete(http: httpx.Client, bad_file: Path) -> None:
    store = _new_store(http, name="replacing")["id"]
    path = f"/v1/vector_stores/{store}/files"
    good = upload(http, "a.txt", "The heron stands in the water.")
    http.post(path, json={"file_id": good, "source": "a", "owned": True, "attributes": {"v": 1}})
    assert finished(http, store, good)["status"] == "completed"
    bad = upload(http, bad_file.name, bad_file.read_bytes())
    http.post(path, json={"file_id": bad, "source": "a", "owned": True, "attributes": {"v": 2}})
    assert finished(http, store, bad)["status"] == "failed"

    (hit,) = http.post(f"/v1/vector_stores/{store}/search", json={"query": "heron"}).json()["data"]
    assert (hit["file_id"], hit["attributes"]) == (good, {"v": 1})
    answering = http.get(f"{path}/{good}").json()
    assert (answering["id"], answering["status"], answering["attributes"]) == (good, "completed", {"v": 1})
    assert "heron" in http.get(f"{path}/{good}/content").json()["data"][0]["text"]
    assert http.get(f"/v1/files/{good}/content").text == "The heron stands in the water."
    assert http.get(f"{path}/{bad}").json()["attributes"] == {"v": 2}
    refused(http.get(f"{path}/{bad}/content"), 404, "content_not_available", "file_id")
    assert [row["id"] for row in http.get(path).json()["data"]] == [bad]
    refused(http.post(path, json={"file_id": good, "source": "b"}), 400, "file_in_store", "source")

    assert http.delete(f"{path}/{good}").json()["id"] == good
    assert http.post(f"/v1/vector_stores/{store}/search", json={"query": "heron"}).json()["data"] == []
    refused(http.get(f"{path}/{good}"), 404, "file_not_found", "file_id")
    refused(http.get(f"/v1/files/{good}"), 404, "file_not_found", "file_id")
    assert http.get(f"{path}/{bad}").json()["status"] == "failed"
    http.delete(f"/v1/vector_stores/{store}")


@pytest.mark.parametrize(
    "attributes",
    [
        {"k": None},
        {"k": []},
        {"": 1},
        {"x" * 65: 1},
        {"k": "x" * 513},
        {"k": 10**400},
        {str(n): n for n in range(17)},
        5,
    ],
)
def test_attributes_that_cannot_be_kept_are_refused(http: httpx.Client, corpus: Corpus, attributes: Any) -> None:
    body = {"file_id": corpus.files["battery.md"], "attributes": attributes}
    answer = http.post("/v1/vector_stores/help/files", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert answer.json()["error"]["param"].startswith("attributes")


def _static(size: int, overlap: int) -> dict[str, Any]:
    sizes = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    return {"type": "static", "static": sizes}


def _ingested(http: httpx.Client, store: str, file_id: str, **fields: Any) -> dict[str, Any]:
    answer = http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file_id, **fields})
    assert answer.status_code == 200, answer.text
    return finished(http, store, file_id)


def test_a_file_is_split_as_it_says_or_else_as_its_store_does(http: httpx.Client) -> None:
    store = _new_store(http, name="sized", chunking_strategy=_static(200, 20))["id"]
    text = "\n\n".join(f"Paragraph {n} speaks of item {n} and of the {n} things beside it." for n in range(120))
    # Three files, because a store holds a file once.
    as_store, small, auto = (upload(http, f"{name}.txt", text) for name in ("store", "small", "auto"))
    by_store = _ingested(http, store, as_store)
    by_small = _ingested(http, store, small, chunking_strategy=_static(100, 0))
    by_auto = _ingested(http, store, auto, chunking_strategy={"type": "auto"})
    told = [seen["chunking_strategy"] for seen in (by_store, by_small, by_auto)]
    assert told == [_static(200, 20), _static(100, 0), {"type": "other"}]

    chunks = {name: _chunks(http, store, file_id) for name, file_id in
              {"store": as_store, "small": small, "auto": auto}.items()}  # fmt: skip
    longest = {name: max(len(text) for text in texts) for name, texts in chunks.items()}
    assert longest["small"] < longest["store"] < longest["auto"]
    assert len(chunks["small"]) == by_small["progress"]["chunks_total"] > by_store["progress"]["chunks_total"]
    # Given in another way, the same file is split again; left out, it stays as it is.
    again = _ingested(http, store, small, chunking_strategy=_static(200, 20))
    assert again["chunking_strategy"] == _static(200, 20)
    assert again["progress"]["chunks_total"] == by_store["progress"]["chunks_total"]
    assert _ingested(http, store, small)["attempts"] == again["attempts"]
    http.delete(f"/v1/vector_stores/{store}")


def _chunks(http: httpx.Client, store: str, file_id: str) -> list[str]:
    """The texts of a file's chunks, as search tells them."""
    body = {
        "query": "Paragraph item things",
        "max_num_results": 50,
        "filters": {"type": "eq", "key": "f", "value": file_id},
    }
    http.post(f"/v1/vector_stores/{store}/files/{file_id}", json={"attributes": {"f": file_id}})
    return [
        hit["content"][0]["text"] for hit in http.post(f"/v1/vector_stores/{store}/search", json=body).json()["data"]
    ]


def test_a_size_over_what_the_embedder_reads_is_capped_and_told(http: httpx.Client) -> None:
    # toy-384 reads 512 tokens.
    store = _new_store(http, name="capped", chunking_strategy=_static(4096, 2048))
    assert store["chunking_strategy"] == _static(512, 256)
    file_id = upload(http, "a.txt", "one two three " * 900)
    told = _ingested(http, store["id"], file_id, chunking_strategy=_static(1000, 10))
    assert (told["status"], told["chunking_strategy"]) == ("completed", _static(512, 10))
    assert told["progress"]["chunks_total"] > 1
    http.delete(f"/v1/vector_stores/{store['id']}")


def test_what_is_not_there_is_not_there(http: httpx.Client, corpus: Corpus) -> None:
    store, file = "/v1/vector_stores/none", "/v1/vector_stores/help/files/file-none"
    calls = [("GET", store), ("DELETE", store), ("GET", f"{store}/files"), ("GET", f"{store}/files/x")]
    for method, path in calls:
        refused(http.request(method, path), 404, "vector_store_not_found", "vector_store_id")
    refused(http.post(f"{store}/search", json={"query": "x"}), 404, "vector_store_not_found", "vector_store_id")
    for method, path in [("GET", file), ("DELETE", file), ("GET", f"{file}/content"), ("POST", f"{file}/retry")]:
        refused(http.request(method, path), 404, "file_not_found", "file_id")
    refused(http.post(file, json={"attributes": {}}), 404, "file_not_found", "file_id")
    refused(http.post("/v1/vector_stores/help/files", json={"file_id": "file-none"}), 404, "file_not_found", "file_id")
    for odd in ("%00", "%ff", "..%2f..%2fetc", "a%0d%0ab", "%E2%80%AE"):
        assert http.get(f"/v1/vector_stores/{odd}").status_code == 404
