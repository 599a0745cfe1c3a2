"""File batches over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.access import Caller
from rag.catalog import files
from tests.api.running import Corpus, RunningServer, finished, refused, upload, wait_for


def _store(http: httpx.Client, name: str) -> str:
    return str(http.post("/v1/vector_stores", json={"name": name}).json()["id"])


def _batch(http: httpx.Client, store: str, **body: Any) -> dict[str, Any]:
    answer = http.post(f"/v1/vector_stores/{store}/file_batches", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _ended(http: httpx.Client, store: str, batch: str) -> dict[str, Any]:
    """A batch once nothing of it is in progress."""
    seen: dict[str, Any] = {}

    def ended() -> bool:
        seen.update(http.get(f"/v1/vector_stores/{store}/file_batches/{batch}").json())
        return bool(seen["status"] != "in_progress")

    wait_for(ended)
    return seen


def test_a_batch_is_told_of_until_all_of_it_has_ended(http: httpx.Client, bad_file: Path) -> None:
    store = _store(http, "batched")
    good = [upload(http, f"{n}.txt", f"The heron number {n} stands in the water.") for n in range(3)]
    bad = upload(http, bad_file.name, bad_file.read_bytes())
    made = _batch(http, store, file_ids=[*good, bad, good[0]], attributes={"bird": "heron"})
    assert made == {
        "id": made["id"],
        "object": "vector_store.files_batch",
        "created_at": made["created_at"],
        "vector_store_id": store,
        "status": made["status"],
        "file_counts": made["file_counts"],
    }
    assert made["file_counts"]["total"] == 4
    ended = _ended(http, store, made["id"])
    counts = {"in_progress": 0, "completed": 3, "failed": 1, "cancelled": 0, "total": 4}
    assert (ended["status"], ended["file_counts"]) == ("completed", counts)

    path = f"/v1/vector_stores/{store}/file_batches/{made['id']}/files"
    listed = http.get(path, params={"order": "asc"}).json()
    assert [row["id"] for row in listed["data"]] == [*good, bad]
    assert all(row["attributes"] == {"bird": "heron"} for row in listed["data"])
    page = http.get(path, params={"order": "asc", "limit": 2, "after": good[0]}).json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (good[1:], True)
    assert (page["first_id"], page["last_id"]) == (good[1], good[2])
    before = http.get(path, params={"order": "asc", "before": good[2]}).json()
    assert [row["id"] for row in before["data"]] == good[:2]
    assert [row["id"] for row in http.get(path, params={"filter": "failed"}).json()["data"]] == [bad]
    refused(http.get(path, params={"after": "file-none"}), 400, "bad_cursor", "after")
    refused(http.get(path, params={"filter": "odd"}), 400, "invalid_value", "filter")

    refused(http.post(path.replace("/files", "/cancel")), 400, "nothing_to_cancel", "batch_id")
    http.delete(f"/v1/vector_stores/{store}/files/{bad}")
    left = http.get(f"/v1/vector_stores/{store}/file_batches/{made['id']}").json()["file_counts"]
    assert (left["total"], left["failed"]) == (3, 0)
    http.delete(f"/v1/vector_stores/{store}")


def test_each_file_of_a_batch_can_have_its_own_attributes_and_sizes(http: httpx.Client) -> None:
    store = _store(http, "each")
    one, two = upload(http, "1.txt", "one " * 600), upload(http, "2.txt", "two " * 600)
    static = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    each = [{"file_id": one, "attributes": {"n": 1}, "chunking_strategy": static}, {"file_id": two}]
    # What is said of all is for `file_ids` only.
    batch = _batch(http, store, files=each, attributes={"n": 9})
    assert _ended(http, store, batch["id"])["file_counts"]["completed"] == 2
    first, second = finished(http, store, one), finished(http, store, two)
    assert (first["attributes"], first["chunking_strategy"]) == ({"n": 1}, static)
    assert (second["attributes"], second["chunking_strategy"]) == ({}, {"type": "other"})
    assert first["progress"]["chunks_total"] > second["progress"]["chunks_total"]
    http.delete(f"/v1/vector_stores/{store}")


def test_a_batch_of_which_everything_fails_has_failed(http: httpx.Client, bad_file: Path) -> None:
    store = _store(http, "failing batch")
    batch = _batch(http, store, file_ids=[upload(http, bad_file.name, bad_file.read_bytes())])
    assert _ended(http, store, batch["id"])["status"] == "failed"
    http.delete(f"/v1/vector_stores/{store}")


def test_a_batch_that_waits_is_cancelled_as_a_whole(keyed: httpx.Client) -> None:
    # This server runs no jobs, so what is queued stays queued.
    store = _store(keyed, "cancelled")
    waiting = [upload(keyed, f"{n}.txt", f"text {n}") for n in range(3)]
    other = upload(keyed, "other.txt", "of another batch")
    batch, beside = _batch(keyed, store, file_ids=waiting), _batch(keyed, store, file_ids=[other])
    assert (batch["status"], batch["file_counts"]["in_progress"]) == ("in_progress", 3)
    path = f"/v1/vector_stores/{store}/file_batches/{batch['id']}"
    for _ in range(2):  # the second time it is as it is
        cancelled = keyed.post(f"{path}/cancel").json()
        counts = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 3, "total": 3}
        assert (cancelled["status"], cancelled["file_counts"]) == ("cancelled", counts)
    assert keyed.get(path).json() == cancelled
    assert keyed.get(f"/v1/vector_stores/{store}/file_batches/{beside['id']}").json()["status"] == "in_progress"
    keyed.delete(f"/v1/vector_stores/{store}")
    refused(keyed.get(path), 404, "vector_store_not_found", "vector_store_id")


def test_two_thousand_files_go_at_once_and_no_more(keyed: httpx.Client, locked: RunningServer) -> None:
    store = _store(keyed, "many")
    backend = locked.app.state.backend
    blob = backend.blobs.put([b"text"])
    with backend.database.write() as connection:
        ids = [files.add_file(connection, Caller("default"), f"{n}", "assistants", blob).public_id for n in range(2001)]
    path = f"/v1/vector_stores/{store}/file_batches"
    refused(keyed.post(path, json={"file_ids": ids}), 400, "invalid_value", "file_ids")
    refused(keyed.post(path, json={"files": [{"file_id": n} for n in ids]}), 400, "invalid_value", "files")
    batch = _batch(keyed, store, file_ids=ids[:2000])
    assert batch["file_counts"]["in_progress"] == 2000
    assert keyed.post(f"{path}/{batch['id']}/cancel").json()["file_counts"]["cancelled"] == 2000
    keyed.delete(f"/v1/vector_stores/{store}")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_value", "file_ids"),
        ({"file_ids": []}, "invalid_value", "file_ids"),
        ({"file_ids": None}, "invalid_value", "file_ids"),
        ({"file_ids": ["{file}"], "files": [{"file_id": "{file}"}]}, "invalid_value", "file_ids"),
        ({"files": [{"file_id": "{file}"}, {"file_id": "{file}"}]}, "invalid_value", "files"),
        ({"files": [{}]}, "missing_required_parameter", "files.0.file_id"),
        ({"files": [{"file_id": "{file}", "x": 1}]}, "unknown_parameter", "files.0.x"),
        ({"file_ids": ["{file}"], "attributes": {"k": []}}, "invalid_value", None),
        ({"file_ids": ["{file}"], "chunking_strategy": {"type": "static"}}, "missing_required_parameter", None),
    ],
)
def test_a_batch_that_cannot_be_is_refused_by_field(
    http: httpx.Client, corpus: Corpus, body: dict[str, Any], code: str, param: str | None
) -> None:
    file = corpus.files["battery.md"]
    path = "/v1/vector_stores/help/file_batches"
    answer = http.post(path, json=_with(body, file))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert param is None or answer.json()["error"]["param"] == param


def _with(value: Any, file: str) -> Any:
    if isinstance(value, dict):
        return {name: _with(inner, file) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with(inner, file) for inner in value]
    return file if value == "{file}" else value


def test_a_batch_with_a_file_that_is_not_there_puts_nothing_in(http: httpx.Client) -> None:
    store = _store(http, "all or none")
    good = upload(http, "a.txt", "text")
    answer = http.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": [good, "file-none"]})
    refused(answer, 404, "file_not_found", "file_id")
    assert http.get(f"/v1/vector_stores/{store}").json()["file_counts"]["total"] == 0
    for path in ("vsfb_none", "vsfb_none/files"):
        refused(http.get(f"/v1/vector_stores/{store}/file_batches/{path}"), 404, "file_batch_not_found", "batch_id")
    refused(http.post(f"/v1/vector_stores/{store}/file_batches/x/cancel"), 404, "file_batch_not_found", "batch_id")
    # A batch is its store's own.
    batch = _batch(http, store, file_ids=[good])
    refused(http.get(f"/v1/vector_stores/help/file_batches/{batch['id']}"), 404, "file_batch_not_found", "batch_id")
    http.delete(f"/v1/vector_stores/{store}")
