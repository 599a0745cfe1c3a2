"""Uploads: stored whole, described truly, never trusted."""

from __future__ import annotations

import io

import httpx
import pytest

from api.schemas.files import PURPOSES
from rag.settings import Settings
from tests.api.running import RunningServer, refused, upload


def test_an_upload_is_described_listed_returned_and_forgotten(http: httpx.Client) -> None:
    content = bytes(range(256)) * 10
    file_id = upload(http, "a b.bin", content)
    described = http.get(f"/v1/files/{file_id}").json()
    assert described == {
        "id": file_id,
        "object": "file",
        "bytes": 2560,
        "created_at": described["created_at"],
        "filename": "a b.bin",
        "purpose": "assistants",
        "status": "processed",
    }
    assert http.get("/v1/files", params={"limit": 1}).json()["data"][0]["id"] == file_id
    back = http.get(f"/v1/files/{file_id}/content")
    assert back.content == content
    assert back.headers["content-type"] == "application/octet-stream"
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.bin"
    assert http.delete(f"/v1/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        refused(http.get(path), 404, "file_not_found", "file_id")
    refused(http.delete(f"/v1/files/{file_id}"), 404, "file_not_found", "file_id")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x",
        "a\r\nX-Evil: 1.txt",
        "ü 漢字 🙂.txt",
        ".",
        "..",
        "<svg onload=x>",
        "%00",
    ],
)
def test_a_name_is_only_a_name(http: httpx.Client, server: RunningServer, name: str) -> None:
    before = _files_outside(server)
    file_id = upload(http, name, "harmless")
    stored = http.get(f"/v1/files/{file_id}").json()["filename"]
    assert stored.replace("%0D%0A", "\r\n") == name  # the client escapes line breaks
    answer = http.get(f"/v1/files/{file_id}/content")
    assert answer.text == "harmless"
    assert "x-evil" not in answer.headers
    assert _files_outside(server) == before


def _files_outside(server: RunningServer) -> list[str]:
    """Everything in and beside the data folder but the blobs, the databases and the views."""
    data = server.app.state.backend.folder
    return sorted(
        str(path) for path in [*data.parent.iterdir(), *data.glob("*")] if not path.name.endswith(("-wal", "-shm"))
    )


def test_lists_are_walked_by_cursor(http: httpx.Client) -> None:
    ids = [upload(http, f"page{number}.txt", str(number)) for number in range(5)]
    assert [row["id"] for row in http.get("/v1/files", params={"limit": 5}).json()["data"]] == ids[::-1]
    first = http.get("/v1/files", params={"limit": 2, "order": "asc", "after": ids[0]}).json()
    assert [row["id"] for row in first["data"]] == ids[1:3]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[1], ids[2], True)
    last = http.get("/v1/files", params={"order": "asc", "after": first["last_id"]}).json()
    assert ([row["id"] for row in last["data"]], last["has_more"]) == (ids[3:], False)
    assert http.get("/v1/files", params={"purpose": "batch"}).json() == {
        "object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False,
    }  # fmt: skip
    refused(http.get("/v1/files", params={"after": "file-none"}), 400, "bad_cursor", "after")
    for limit in ("0", "10001", "x", "1.5"):
        refused(http.get("/v1/files", params={"limit": limit}), 400, "invalid_value", "limit")
    refused(http.get("/v1/files", params={"order": "up"}), 400, "invalid_value", "order")


def test_a_form_that_is_not_an_upload_is_refused_by_field(http: httpx.Client) -> None:
    file = {"file": ("a.txt", b"x")}
    refused(http.post("/v1/files", files=file), 400, "missing_required_parameter", "purpose")
    refused(http.post("/v1/files", files=file, data={"purpose": "fun"}), 400, "invalid_value", "purpose")
    text = {"purpose": (None, "assistants")}
    refused(http.post("/v1/files", files=text), 400, "missing_required_parameter", "file")
    refused(http.post("/v1/files", files={**text, "file": (None, "x")}), 400, "missing_required_parameter", "file")
    extra = {**file, **text, "expires_after[hours]": (None, "1")}
    refused(http.post("/v1/files", files=extra), 400, "unknown_parameter", "expires_after[hours]")
    refused(http.post("/v1/files", json={"purpose": "assistants"}), 400, "invalid_content_type")
    refused(http.post("/v1/files", files={"file": ("n" * 1001, b"x"), **text}), 400, "invalid_filename", "file")
    broken = {"content-type": "multipart/form-data"}
    refused(http.post("/v1/files", content=b"--x\r\n", headers=broken), 400, "invalid_request")
    two = [("file", ("a", b"1")), ("file", ("b", b"2")), ("purpose", (None, "assistants"))]
    refused(http.post("/v1/files", files=two), 400, "invalid_request")


def test_a_name_with_nul_is_refused(server: RunningServer, http: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\0b"\r\n\r\nx\r\n--b--\r\n'
    )
    answer = http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    refused(answer, 400, "invalid_filename", "file")


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(http: httpx.Client, server: RunningServer) -> None:
    settings: Settings = server.app.state.backend.settings
    blobs = server.app.state.backend.folder / "blobs"
    before = sorted(blobs.rglob("*"))
    big = io.BytesIO(b"x" * ((settings.ingest.max_file_mb << 20) + 1))
    answer = http.post("/v1/files", files={"file": ("big.txt", big)}, data={"purpose": "assistants"})
    refused(answer, 413, "file_too_large", "file")
    assert sorted(blobs.rglob("*")) == before


def test_every_purpose_of_an_upload_is_answered_as_one_of_a_file(http: httpx.Client) -> None:
    for purpose, shown in {**dict.fromkeys(PURPOSES, None), "evals": "user_data"}.items():
        answer = http.post("/v1/files", files={"file": ("a.txt", b"x")}, data={"purpose": purpose}).json()
        assert answer["purpose"] == (shown or purpose)
        assert http.get("/v1/files", params={"purpose": purpose, "limit": 1}).json()["data"][0]["id"] == answer["id"]


def test_an_empty_file_is_stored(http: httpx.Client) -> None:
    file_id = upload(http, "empty.txt", b"")
    assert http.get(f"/v1/files/{file_id}/content").content == b""
