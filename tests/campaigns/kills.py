"""Kill the server at random moments of an ingestion, start it again, and compare what is left with what it promised.

    python -m tests.campaigns.kills --kills 100 --files 250 --seed 1 [--corpus FOLDER]

A client uploads files, replaces some with new content and deletes others, over HTTP, and records what the server
acknowledged. The server dies by SIGKILL at random moments; the client goes on with the next one. At the end, with
nothing left to do:

- every acknowledged document is there with the content acknowledged last, completed, and none that was deleted is;
- every document has exactly one visible version, all of its chunks are there once, each an exact slice of the stored
  text with a vector, and nothing else is in the catalog, the blobs or the indexes;
- the next ingestion works.

Scope: death of the process. The operating system survives, so this says nothing about power loss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import sqlalchemy as sa

from rag.backend import Backend
from rag.blobs import read_blob
from rag.catalog import schema
from rag.texts import decode_text
from tests.backends import toy_settings

STORE = "kills"
READY_WITHIN = 60.0


@dataclass
class Server:
    """The real command in a process of its own."""

    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        began = time.monotonic()
        environment = {**os.environ, "RAG_DATA": str(self.data), "RAG_EMBEDDER": "toy-384", "RAG_LOG_LEVEL": "error"}
        command = [sys.executable, "-c", "from api.cli import main; main()", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while time.monotonic() - began < READY_WITHIN:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended by itself with {self.process.returncode}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2.0, trust_env=False).status_code == 200:
                    self.starts.append(time.monotonic() - began)
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(f"the server was not ready within {READY_WITHIN} s")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, abruptly unless told otherwise, and wait until it is gone."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Workload(threading.Thread):
    """A client that keeps the server busy and remembers what was acknowledged."""

    def __init__(self, url: str, texts: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._texts = texts
        self._random = random.Random(seed)
        self._http = httpx.Client(base_url=url, timeout=20.0, trust_env=False)
        self.acknowledged: dict[str, str] = {}
        """Source to the text that was acknowledged last."""
        self.uncertain: dict[str, str | None] = {}
        """Source to what was asked for without hearing back: a text, or None for a delete."""
        self.faults: list[str] = []
        self.operations = 0
        self.searches = 0
        self.up = threading.Event()
        self.stop = threading.Event()
        self._ids: dict[str, str] = {}

    def run(self) -> None:
        round_ = 0
        while not self.stop.is_set():
            for number in range(len(self._texts)):
                if self.stop.is_set():
                    return
                source = f"{number:04d}.md"
                if round_ == 0 or self._random.random() < 0.5:
                    self._put(source, f"{self._texts[number]}\n\nRound {round_} of file {number}.\n")
                elif self._random.random() < 0.2 and source in self.acknowledged:
                    self._remove(source)
                if self._random.random() < 0.1:
                    self._search()
            round_ += 1

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def settle(self) -> None:
        """Ask again for what was left uncertain, so that the end is known."""
        for source, text in list(self.uncertain.items()):
            self._put(source, text or f"Settled {source}.\n")

    def _put(self, source: str, text: str) -> None:
        def ask() -> None:
            upload = self._call("POST", "/v1/files", files={"file": (source, text)}, data={"purpose": "assistants"})
            body = {"file_id": upload["id"], "source": source, "owned": True}
            self.uncertain[source] = text
            self._call("POST", f"/v1/vector_stores/{STORE}/files", json=body)
            self._ids[source] = upload["id"]

        if self._tried(ask):
            self.acknowledged[source] = text
            self.uncertain.pop(source, None)

    def _remove(self, source: str) -> None:
        def ask() -> None:
            self.uncertain[source] = None
            self._call("DELETE", f"/v1/vector_stores/{STORE}/files/{self._ids[source]}")

        if self._tried(ask):
            self.acknowledged.pop(source, None)
            self.uncertain.pop(source, None)

    def _search(self) -> None:
        def ask() -> None:
            found = self._call("POST", f"/v1/vector_stores/{STORE}/search", json={"query": "round of file"})
            self.searches += 1
            texts = [hit["content"][0]["text"] for hit in found["data"]]
            if not all(texts):
                self.faults.append("a hit without text")

        self._tried(ask)

    def _tried(self, ask: Any) -> bool:
        while not self.stop.is_set():
            self.up.wait(1.0)
            try:
                ask()
            except httpx.TransportError:
                if not self.up.is_set():
                    return False
                time.sleep(0.05)
                return False
            else:
                self.operations += 1
                return True
        return False

    def _call(self, method: str, path: str, **request: Any) -> Any:
        answer = self._http.request(method, path, **request)
        if answer.status_code == 404 and method == "DELETE":
            return {}
        if answer.status_code >= 400:
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.json()


def campaign(kills: int, texts: list[str], seed: int, data: Path) -> dict[str, Any]:
    """Run it and return the record. Raises AssertionError where something was lost, doubled or half there."""
    chance = random.Random(seed)
    server = Server(data, free_port())
    server.start()
    with httpx.Client(base_url=server.url, timeout=60.0, trust_env=False) as http:
        http.post("/v1/vector_stores", json={"name": STORE}).raise_for_status()
    work = Workload(server.url, texts, seed)
    work.up.set()
    work.start()
    moments: list[float] = []
    for _ in range(kills):
        moment = chance.uniform(0.0, 1.5)
        time.sleep(moment)
        work.up.clear()
        server.kill()
        moments.append(round(moment, 3))
        server.start()
        work.up.set()
    work.stop.set()
    work.join(timeout=60)
    work.stop.clear()
    work.settle()
    _finish(server)
    _next_ingestion_works(server, work)
    work.close()
    server.kill(signal.SIGTERM)
    found = check(data, work.acknowledged)
    assert not work.faults, work.faults[:5]
    return {
        "kills": kills,
        "seed": seed,
        "acknowledged operations": work.operations,
        "documents at the end": len(work.acknowledged),
        "searches in between": work.searches,
        "slowest start in seconds": round(max(server.starts), 2),
        **found,
    }


def check(data: Path, acknowledged: dict[str, str]) -> dict[str, Any]:
    """Compare the data folder of a stopped server with what was acknowledged."""
    backend = Backend(toy_settings(data))
    try:
        store = backend.find_store(STORE)
        with backend.database.read() as connection:
            documents = connection.execute(sa.select(schema.documents)).all()
            versions = connection.execute(sa.select(schema.versions)).all()
            chunks = connection.execute(sa.select(schema.chunks).order_by(schema.chunks.c.id)).all()
            keys = set(connection.execute(sa.select(schema.vectors.c.embedding_key)).scalars())
            blobs = set(connection.execute(sa.select(schema.files.c.blob)).scalars())
        lost = set(acknowledged) - {document.source for document in documents}
        unknown = {document.source for document in documents} - set(acknowledged)
        assert not lost, f"acknowledged and lost: {sorted(lost)[:5]}"
        assert not unknown, f"deleted and still there: {sorted(unknown)[:5]}"
        unfinished = {d.source: (d.state, d.error_code) for d in documents if d.state != "completed"}
        assert not unfinished, f"not completed: {unfinished}"
        visible = {v.document_id: v for v in versions if v.published_seq is not None and v.retired_seq is None}
        assert len(visible) == len(documents) == sum(not v.purged for v in versions)
        for document in documents:
            version = visible[document.id]
            stored = decode_text(read_blob(backend.blobs, version.text_blob))[1]
            assert stored.strip() == acknowledged[document.source].strip(), f"{document.source} is an older one"
            mine = [chunk for chunk in chunks if chunk.version_id == version.id]
            assert [chunk.ordinal for chunk in mine] == list(range(document.chunks_total)), document.source
            assert all(stored[chunk.start : chunk.end] == chunk.text for chunk in mine), document.source
            blobs.add(version.text_blob)
        assert {chunk.version_id for chunk in chunks} == {version.id for version in visible.values()}
        assert {chunk.embedding_key for chunk in chunks} == keys
        left = {path.name for path in (data / "blobs").glob("??/*")} - blobs
        view = backend.view(backend.live_generation(store))
        ids = [chunk.id for chunk in chunks]
        assert view.vectors.ids().tolist() == ids
        assert len(view.words) == len(ids)
        assert len(np.unique(ids)) == len(ids)
        return {"chunks": len(ids), "vectors": len(keys), "blobs without a record (swept when old)": len(left)}
    finally:
        import asyncio

        asyncio.run(backend.close())


def texts_of(corpus: Path | None, count: int) -> list[str]:
    """Real texts where a folder is given, made ones otherwise."""
    if corpus is None:
        return [f"# File {i}\n\n" + f"Sentence {i} about matter {i % 7}. " * (20 + i % 60) for i in range(count)]
    files = sorted(path for path in corpus.rglob("*.md") if path.is_file())
    return [path.read_text(encoding="utf-8").removeprefix("---\n") for path in files[:count]]


def _finish(server: Server, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        store = httpx.get(f"{server.url}/v1/vector_stores/{STORE}", timeout=30.0, trust_env=False).json()
        if store["file_counts"]["in_progress"] == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"work was left after {seconds} s: {store['file_counts']}")


def _next_ingestion_works(server: Server, work: Workload) -> None:
    work._put("after.md", "One more file, after all that.\n")
    _finish(server)


def free_port() -> int:
    """A port of loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--files", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        record = campaign(chosen.kills, texts_of(chosen.corpus, chosen.files), chosen.seed, Path(folder))
        record["seconds"] = round(time.monotonic() - began)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
