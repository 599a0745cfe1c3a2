"""Files and vector stores that expire: at once for whoever asks, and what they held within seconds."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from rag.catalog import schema
from rag.catalog.records import DAY
from tests.api.running import RunningServer, finished, refused, upload, wait_for

DAYS = {"anchor": "last_active_at", "days": 3}


def _upload(http: httpx.Client, fields: dict[str, Any], name: str = "a.txt", text: str = "The heron stands.") -> Any:
    parts = {"file": (name, text.encode()), "purpose": (None, "assistants")}
    return http.post("/v1/files", files={**parts, **{name: (None, value) for name, value in fields.items()}})


def _age(server: RunningServer, table: sa.Table, public_id: str, **values: int) -> None:
    with server.app.state.backend.database.write() as connection:
        connection.execute(sa.update(table).where(table.c.public_id == public_id).values(**values))


def test_a_file_says_when_it_expires_and_then_is_gone_from_everywhere(
    http: httpx.Client, server: RunningServer
) -> None:
    anchored = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = _upload(http, anchored).json()
    assert file["expires_at"] == file["created_at"] + 3600
    assert http.get(f"/v1/files/{file['id']}").json() == file
    store = http.post("/v1/vector_stores", json={"name": "expiring files"}).json()["id"]
    http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]})
    assert finished(http, store, file["id"])["status"] == "completed"

    _age(server, schema.files, file["id"], expires_at=int(time.time()) - 1)
    for path in ("", "/content"):
        refused(http.get(f"/v1/files/{file['id']}{path}"), 404, "file_not_found", "file_id")
    assert file["id"] not in [row["id"] for row in http.get("/v1/files", params={"limit": 100}).json()["data"]]
    refused(
        http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]}), 404, "file_not_found", "file_id"
    )
    wait_for(lambda: http.get(f"/v1/vector_stores/{store}").json()["file_counts"]["total"] == 0)
    assert http.post(f"/v1/vector_stores/{store}/search", json={"query": "heron"}).json()["data"] == []
    with server.app.state.backend.database.read() as connection:
        left = sa.select(schema.files.c.id).where(schema.files.c.public_id == file["id"])
        assert connection.execute(left).first() is None
    http.delete(f"/v1/vector_stores/{store}")


def test_a_file_without_a_term_says_nothing_of_one(http: httpx.Client) -> None:
    assert "expires_at" not in http.get(f"/v1/files/{upload(http, 'a.txt', 'x')}").json()
    file = _upload(http, {"expires_after": '{"anchor": "created_at", "seconds": 2592000}'}).json()
    assert file["expires_at"] - file["created_at"] == 2_592_000


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_after[anchor]": "created_at"},
        {"expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"},
        {"expires_after": "3600"},
        {"expires_after": "{"},
    ],
)
def test_a_term_that_cannot_be_is_refused(http: httpx.Client, fields: dict[str, str]) -> None:
    refused(_upload(http, fields), 400, "invalid_value", "expires_after")


def test_a_store_that_is_not_used_expires_and_what_it_held_goes(http: httpx.Client, server: RunningServer) -> None:
    store = http.post("/v1/vector_stores", json={"name": "expiring", "expires_after": DAYS}).json()
    assert (store["expires_after"], store["expires_at"]) == (DAYS, store["last_active_at"] + 3 * DAY)
    path = f"/v1/vector_stores/{store['id']}"
    file_id = upload(http, "a.txt", "The heron stands in the water.")
    http.post(f"{path}/files", json={"file_id": file_id})
    finished(http, store["id"], file_id)

    _age(server, schema.stores, store["id"], last_active_at=int(time.time()) - 3 * DAY)
    told = http.get(path).json()
    assert (told["status"], told["expires_at"] <= time.time()) == ("expired", True)
    for answer in (
        http.post(f"{path}/search", json={"query": "heron"}),
        http.post(f"{path}/context", json={"question": "heron"}),
        http.post(f"{path}/files", json={"file_id": file_id}),
        http.post(f"{path}/file_batches", json={"file_ids": [file_id]}),
        http.post(path, json={"expires_after": DAYS}),
    ):
        refused(answer, 400, "vector_store_expired", "vector_store_id")
    wait_for(lambda: http.get(path).json()["file_counts"]["total"] == 0)
    # Taking its files out was no use of it, nor is a new name.
    assert http.post(path, json={"name": "expired"}).json()["status"] == "expired"
    assert http.get(f"/v1/files/{file_id}").status_code == 200
    assert http.delete(path).json()["deleted"] is True


def test_a_store_lives_as_long_as_it_is_asked(http: httpx.Client, server: RunningServer) -> None:
    store = http.post("/v1/vector_stores", json={"name": "living", "expires_after": DAYS}).json()["id"]
    path = f"/v1/vector_stores/{store}"

    def active() -> int:
        return int(http.get(path).json()["last_active_at"])

    uses = {
        "search": lambda: http.post(f"{path}/search", json={"query": "heron"}),
        "update": lambda: http.post(path, json={"metadata": {"k": "v"}}),
        "attach": lambda: http.post(f"{path}/files", json={"file_id": upload(http, "a.txt", "text")}),
    }
    for use in uses.values():
        long_ago = int(time.time()) - 2 * DAY
        _age(server, schema.stores, store, last_active_at=long_ago)
        assert active() == long_ago
        assert use().status_code == 200
        wait_for(lambda: active() >= time.time() - 60)
    assert http.get(path).json()["status"] != "expired"


def test_the_term_of_a_store_is_changed_and_taken_away(http: httpx.Client) -> None:
    store = http.post("/v1/vector_stores", json={"name": "term"}).json()
    path = f"/v1/vector_stores/{store['id']}"
    assert ("expires_after" in store, store["expires_at"]) == (False, None)
    assert http.post(path, json={"expires_after": DAYS}).json()["expires_after"] == DAYS
    kept = http.post(path, json={"metadata": {"k": "v"}}).json()
    assert (kept["expires_after"], kept["expires_at"]) == (DAYS, kept["last_active_at"] + 3 * DAY)
    gone = http.post(path, json={"expires_after": None}).json()
    assert ("expires_after" in gone, gone["expires_at"]) == (False, None)
    refused(http.post(path, json={"expires_after": {**DAYS, "days": 366}}), 400, "invalid_value", "expires_after.days")
    http.delete(path)
