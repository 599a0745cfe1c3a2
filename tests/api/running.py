"""A real server in this process, and what tests say to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from rag.settings import Settings
from rag.telemetry import Telemetry

DOCUMENTS = {
    "returns.md": "# Returns\n\nYou may return a kettle within 30 days. Refunds take one week.\n",
    "shipping.md": "# Shipping\n\nParcels to Norway travel by boat. The boat leaves on Mondays.\n",
    "battery.md": "# Battery\n\nCharge the lamp for two hours. A full battery lasts nine evenings.\n",
}
ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "returns.md": {"topic": "shop", "year": 2023},
    "shipping.md": {"topic": "shop", "year": 2024},
    "battery.md": {"topic": "lamp", "year": 2024, "public": True},
}


class RunningServer:
    """The app under uvicorn on a free loopback port, in a thread."""

    def __init__(self, settings: Settings, *, jobs: bool, telemetry: Telemetry | None = None) -> None:
        self.app = create_app(settings, jobs=jobs, telemetry=telemetry)
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, http="h11"))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> RunningServer:
        self._thread.start()
        wait_for(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started
        wait_for(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    def say(self, request: bytes) -> bytes:
        """Send raw bytes and read until the server closes, or has nothing more to say for a second."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while piece := connection.recv(65536):
                    answer += piece
            except TimeoutError:
                pass
            return answer


@dataclass(frozen=True)
class Corpus:
    """A filled store: its id, and the ids of its files by name."""

    store: str
    files: Mapping[str, str]


def wait_for(holds: Any, seconds: float = 30.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def upload(http: httpx.Client, name: str, content: bytes | str) -> str:
    """Upload a file; its id."""
    data = content.encode() if isinstance(content, str) else content
    answer = http.post("/v1/files", files={"file": (name, data)}, data={"purpose": "assistants"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def fill(http: httpx.Client, name: str) -> Corpus:
    """A store with the three documents, ingested."""
    store = http.post("/v1/vector_stores", json={"name": name}).json()["id"]
    files = {title: upload(http, title, text) for title, text in DOCUMENTS.items()}
    for title, file_id in files.items():
        body = {"file_id": file_id, "attributes": ATTRIBUTES[title]}
        assert http.post(f"/v1/vector_stores/{store}/files", json=body).status_code == 200
    for file_id in files.values():
        assert finished(http, store, file_id)["status"] == "completed"
    return Corpus(store, files)


def finished(http: httpx.Client, store: str, file_id: str) -> dict[str, Any]:
    """The file of a store once work on it has ended."""
    seen: dict[str, Any] = {}

    def ended() -> bool:
        seen.update(http.get(f"/v1/vector_stores/{store}/files/{file_id}").json())
        return bool(seen["status"] != "in_progress")

    wait_for(ended)
    return seen


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """Check an error's status and its whole shape; its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert "Traceback" not in answer.text
    return str(error["message"])
