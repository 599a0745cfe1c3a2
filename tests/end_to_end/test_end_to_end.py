"""What holds for every installation, from one process to a cluster: written at one door, seen at the other at once."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.running import DOCUMENTS, fill, finished, refused, upload, wait_for

Doors = list[httpx.Client]


def texts(door: httpx.Client, store: str, query: str, **body: Any) -> list[str]:
    """What a search finds, best first."""
    answer = door.post(f"/v1/vector_stores/{store}/search", json={"query": query, **body})
    assert answer.status_code == 200, answer.text
    return [hit["content"][0]["text"] for hit in answer.json()["data"]]


def test_what_is_written_at_one_door_is_found_at_the_other_at_once(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    corpus = fill(here, "found")
    assert "Norway" in texts(there, corpus.store, "parcels to Norway")[0]
    for mode in ("dense", "keyword", "hybrid"):
        assert texts(there, corpus.store, "charge the lamp battery", mode=mode)
    assert there.get(f"/v1/vector_stores/{corpus.store}").json()["file_counts"]["completed"] == 3


def test_a_replaced_document_answers_with_one_version_at_every_door(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    corpus = fill(here, "replaced")
    for number in range(4):
        new = f"# Shipping\n\nParcels to Norway travel by balloon number {number}.\n"
        body = {"file_id": upload(here, "shipping.md", new), "source": "shipping", "owned": True}
        assert there.post(f"/v1/vector_stores/{corpus.store}/files", json=body).status_code == 200
        assert finished(here, corpus.store, body["file_id"])["status"] == "completed"
        for door in (there, here):
            found = [text for text in texts(door, corpus.store, "parcels by balloon") if "balloon" in text]
            assert found == [new.strip()]


def test_deleted_and_changed_documents_are_gone_and_changed_at_every_door(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    corpus = fill(here, "changed")
    lamp = {"type": "eq", "key": "topic", "value": "lamp"}
    assert len(texts(there, corpus.store, "the lamp kettle boat", filters=lamp)) == 1
    attributes = {"attributes": {"topic": "lamp"}}
    shipping = f"/v1/vector_stores/{corpus.store}/files/{corpus.files['shipping.md']}"
    assert here.post(shipping, json=attributes).status_code == 200
    assert len(texts(there, corpus.store, "the lamp kettle boat", filters=lamp)) == 2
    assert there.delete(shipping).status_code == 200
    assert len(texts(here, corpus.store, "the lamp kettle boat", filters=lamp)) == 1
    assert not [text for text in texts(here, corpus.store, "Norway boat") if "Norway" in text]
    refused(here.get(shipping), 404, "file_not_found", "file_id")


def test_every_file_ends_and_the_same_text_is_embedded_once(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    store = here.post("/v1/vector_stores", json={"name": "many"}).json()["id"]
    files = {}
    for number in range(24):
        file = upload(
            doors[number % 2], f"{number}.md", f"# Birds\n\nText {number % 8} about plovers and their eggs.\n"
        )
        files[file] = number
    files |= {upload(here, "broken.pdf", b"%PDF-1.7\nno"): -1, upload(there, "empty.txt", b""): -1}
    for number, file in enumerate(files):
        body = {"file_id": file, "source": str(number)}
        assert doors[number % 2].post(f"/v1/vector_stores/{store}/files", json=body).status_code == 200
    ends = {file: finished(doors[n % 2], store, file) for n, file in enumerate(files)}
    assert {files[file] >= 0 for file, end in ends.items() if end["status"] == "completed"} == {True}
    assert sorted(end["last_error"]["detail"] for end in ends.values() if end["last_error"]) == [
        "empty",
        "invalid_file",
    ]
    assert len(texts(here, store, "plovers", max_num_results=50)) == 24
    # Two workers may embed the same text at the same moment; the vector is kept once.
    assert 8 <= sum(end["progress"]["embedded"] for end in ends.values()) <= 24


def test_context_and_cited_answers_stand_on_what_is_stored(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    corpus = fill(here, "cited")
    ask = {"messages": [{"role": "user", "content": "How long must I charge the lamp?"}]}
    context = there.post(f"/v1/vector_stores/{corpus.store}/context", json=ask)
    assert context.status_code == 200, context.text
    assert any("two hours" in json.dumps(message) for message in context.json()["messages"])
    body = {"model": "extractive", "vector_store_ids": [corpus.store], **ask}
    answer = there.post("/v1/chat/completions", json=body).json()
    assert "two hours" in answer["choices"][0]["message"]["content"]
    [citation, *_] = answer["citations"]
    stored = here.get(f"/v1/vector_stores/{corpus.store}/files/{citation['file_id']}/content").json()["data"][0]["text"]
    assert stored[citation["start"] : citation["end"]] == citation["quote"]


def test_a_deleted_store_is_gone_at_every_door(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    corpus = fill(here, "gone")
    assert texts(there, corpus.store, "kettle")
    assert here.delete(f"/v1/vector_stores/{corpus.store}").status_code == 200
    for door in (there, here):
        answer = door.post(f"/v1/vector_stores/{corpus.store}/search", json={"query": "kettle"})
        refused(answer, 404, "vector_store_not_found", "vector_store_id")


def test_originals_come_back_as_they_were(doors: Doors) -> None:
    here, there = doors[0], doors[-1]
    data = bytes(range(256)) * 5_000
    file = upload(here, "any.bin", data)
    assert there.get(f"/v1/files/{file}/content").content == data
    assert there.delete(f"/v1/files/{file}").status_code == 200
    wait_for(lambda: here.get(f"/v1/files/{file}").status_code == 404)


@pytest.mark.parametrize("title", sorted(DOCUMENTS))
def test_text_is_kept_to_the_character(doors: Doors, title: str) -> None:
    corpus = fill(doors[0], f"kept {title}")
    text = doors[-1].get(f"/v1/vector_stores/{corpus.store}/files/{corpus.files[title]}/content").json()
    assert text["data"][0]["text"].strip() == DOCUMENTS[title].strip()
