"""Starting, being ready, stopping; health, status and models."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from api.app import check_binding, create_app
from indexes.errors import ChangeRequest
from rag.settings import ServerSettings, Settings
from tests.api.running import DOCUMENTS, RunningServer, finished, upload, wait_for


def _bound(host: str, key: str | None = None) -> Settings:
    return Settings(server=ServerSettings(host=host, api_key=None if key is None else SecretStr(key)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    check_binding(_bound(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "rag.example", "localhost.example", ""])
def test_elsewhere_needs_a_key(host: str) -> None:
    for key in (None, ""):
        with pytest.raises(ChangeRequest, match="loopback") as refusal:
            check_binding(_bound(host, key))
        assert refusal.value.code == "key_required"
    check_binding(_bound(host, "sesame"))


def test_somebody_s_key_is_not_the_operator_s() -> None:
    with pytest.raises(ChangeRequest, match="whoever has it") as refusal:
        check_binding(_bound("127.0.0.1", "rag_" + "A" * 43))
    assert refusal.value.code == "not_the_operator"
    check_binding(_bound("127.0.0.1", "rag_of_my_own"))


def test_health_and_status(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready", "missing": []}
    status = http.get("/v1/status").json()
    assert status["runs_jobs"] is True
    assert (status["embedder"], status["model"]) == ("toy-384", "extractive")
    assert status["versions"]["fastapi"]


def test_an_embedder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    broken = {"provider": "sentence-transformers", "model": str(tmp_path / "nothing")}
    settings = Settings(data=tmp_path / "data", embedder="broken", embedders={"broken": broken})
    running = RunningServer(settings, jobs=False)
    running._thread.start()
    try:
        wait_for(lambda: running._server.started)
        wait_for(lambda: "being loaded" not in httpx.get(f"{running.url}/readyz").text)
        answer = httpx.get(f"{running.url}/readyz")
        assert answer.status_code == 503
        assert "nothing" in answer.json()["missing"][0]
        assert httpx.get(f"{running.url}/healthz").status_code == 200
    finally:
        running.__exit__()


def test_what_is_unfinished_at_a_stop_is_done_after_the_next_start(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, embedder="toy-384")
    with RunningServer(settings, jobs=False) as first, httpx.Client(base_url=first.url) as http:
        file_id = upload(http, "returns.md", DOCUMENTS["returns.md"])
        store = http.post("/v1/vector_stores", json={"name": "kept", "file_ids": [file_id]}).json()["id"]
        assert http.get(f"/v1/vector_stores/{store}").json()["file_counts"]["in_progress"] == 1
    # In a process of its own: the jobs of one data folder run once in a process.
    with _served(tmp_path) as url, httpx.Client(base_url=url, timeout=60) as http:
        assert finished(http, store, file_id)["status"] == "completed"
        hits = http.post("/v1/vector_stores/kept/search", json={"query": "kettle"}).json()["data"]
        assert [hit["file_id"] for hit in hits] == [file_id]


SERVE = """
import sys, uvicorn
from pathlib import Path
from api.app import create_app
from rag.settings import Settings
settings = Settings(data=Path(sys.argv[1]), embedder="toy-384")
uvicorn.run(create_app(settings), fd=int(sys.argv[2]), log_config=None)
"""


@contextmanager
def _served(data: Path) -> Iterator[str]:
    """A server process that runs jobs; it must end by itself when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        command = [sys.executable, "-c", SERVE, str(data), str(number)]
        process = subprocess.Popen(command, pass_fds=[number])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_description_is_complete() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    assert "/v1/chat/completions" in paths
    assert all(described["summary"] for methods in paths.values() for described in methods.values())
