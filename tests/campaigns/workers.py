"""Kill one of two workers in the middle of an ingestion; stop one, and let it wake when another has done its work;
restart every process in turn.

    python -m tests.campaigns.workers [--files 250] [--corpus FOLDER]

Two workers and an API replica over a real PostgreSQL. Claims tried: every file completes, none is there twice, what
the dead worker had goes on elsewhere within 30 s, and a worker that was stopped (SIGSTOP) past its time and wakes is
refused whatever it still does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from ingest.runner import DEAD_SECONDS
from rag.backend import Backend
from rag.catalog import schema
from rag.settings import load_settings
from tests.campaigns.kills import texts_of
from tests.installations import Installation, Process, cluster, running
from tests.postgres import running_postgres

STORE = "workers"
ENDS_WITHIN = 300.0
TAKEN_WITHIN = 30.0


class Observer:
    """Looks at the catalog itself, beside the processes."""

    def __init__(self, url: str, folder: Path) -> None:
        flags = {"data": folder, "embedder": "toy-384", "catalog": url}
        self.backend = Backend(load_settings(environment={}, flags=flags))

    def states(self) -> Counter[str]:
        """How many documents stand where."""
        return Counter(row.state for row in self._rows(sa.select(schema.documents.c.state)))

    def batches(self) -> dict[str, int | None]:
        """The worker of each batch that has work left."""
        documents, batches = schema.documents.c, schema.batches.c
        active = sa.select(documents.id).where(
            documents.batch == batches.name, documents.state.in_(schema.ACTIVE_STATES)
        )
        return {
            row.name: row.worker_id
            for row in self._rows(sa.select(batches.name, batches.worker_id).where(active.exists()))
        }

    def workers(self) -> dict[int, str]:
        """The names of the workers that are thought alive."""
        return {row.id: row.name for row in self._rows(sa.select(schema.workers.c.id, schema.workers.c.name))}

    def close(self) -> None:
        asyncio.run(self.backend.close())

    def _rows(self, query: Any) -> list[Any]:
        with self.backend.database.read() as connection:
            return list(connection.execute(query))


def put_all(url: str, texts: list[str], first: int) -> None:
    """Upload every text and put it into the store; the names count on from `first`."""
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as http:
        for number, text in enumerate(texts, first):
            name = f"{number:04d}.md"
            file = http.post("/v1/files", files={"file": (name, text)}, data={"purpose": "assistants"}).json()
            body = {"file_id": file["id"], "source": name, "owned": True}
            http.post(f"/v1/vector_stores/{STORE}/files", json=body).raise_for_status()


def wait(condition: Any, seconds: float, what: str) -> float:
    """Seconds until something holds; fails when it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def busy_worker(installation: Installation, observer: Observer) -> tuple[Process, int, set[str]]:
    """A worker that has a batch, its number, and the batches that it has."""
    found: list[tuple[Process, int, set[str]]] = []

    def look() -> bool:
        held: dict[int, set[str]] = {}
        for name, worker in observer.batches().items():
            if worker is not None:
                held.setdefault(worker, set()).add(name)
        names = observer.workers()
        for process in installation.workers:
            assert process.process is not None
            for worker, batches in held.items():
                if names.get(worker, "").endswith(f" {process.process.pid}"):
                    found.append((process, worker, batches))
                    return True
        return False

    wait(look, 60.0, "no worker is busy")
    return found[0]


def campaign(texts: list[str], folder: Path) -> dict[str, Any]:
    """Run it and return the record. Raises AssertionError where a promise was broken."""
    with running_postgres() as server, server.database() as url:
        settings = {"RAG_EMBEDDER": "toy-384", "RAG_CATALOG": url, "RAG_INGEST_BATCH_DOCUMENTS": "8"}
        settings["RAG_BLOBS"] = (folder / "blobs").as_uri()
        processes = cluster(folder, settings, apis=1, workers=2)
        with running(processes) as installation:
            observer, third = Observer(url, folder / "observer"), len(texts) // 3
            try:
                return {
                    "files": len(texts),
                    "killed": _lose_a_worker(installation, observer, texts[:third], signal.SIGKILL),
                    "stopped": _lose_a_worker(installation, observer, texts[third : 2 * third], signal.SIGSTOP),
                    "restarted": _restart_all(installation, observer, texts[2 * third :]),
                    **check(observer),
                }
            finally:
                observer.close()


def _lose_a_worker(installation: Installation, observer: Observer, texts: list[str], how: int) -> dict[str, Any]:
    door = installation.doors[0]
    before = sum(observer.states().values())
    if not before:
        httpx.post(f"{door}/v1/vector_stores", json={"name": STORE}, timeout=30, trust_env=False).raise_for_status()
    put_all(door, texts, first=before)
    lost, number, had = busy_worker(installation, observer)
    lost.send(how)
    began = time.monotonic()
    taken = wait(lambda: not had & set(observer.batches()), TAKEN_WITHIN, "the lost worker's batches")
    ended = wait(lambda: set(observer.states()) == {"completed"}, ENDS_WITHIN, "every document")
    record = {
        "batches it had": len(had),
        "taken over after s": round(taken, 1),
        "all complete after s": round(time.monotonic() - began, 1),
    }
    if how == signal.SIGSTOP:
        assert number not in observer.workers() or taken < DEAD_SECONDS
        published = _published(observer)
        lost.send(signal.SIGCONT)
        wait(lambda: _has_joined(lost, number, observer), 60.0, "the woken worker to join anew")
        time.sleep(3.0)
        assert _published(observer) == published, "the woken worker published"
        record["refused after waking"] = True
    else:
        lost.stop(signal.SIGKILL)
        lost.start()
        lost.await_ready()
    assert ended >= 0
    return record


def _restart_all(installation: Installation, observer: Observer, texts: list[str]) -> dict[str, Any]:
    """Restart every process in turn, in order, in the middle of an ingestion."""
    before = sum(observer.states().values())
    put_all(installation.doors[0], texts, first=before)
    busy_worker(installation, observer)
    began = time.monotonic()
    for process in installation.processes:
        process.stop()
        process.start()
        process.await_ready()
    seconds = time.monotonic() - began
    wait(lambda: set(observer.states()) == {"completed"}, ENDS_WITHIN, "every document")
    return {"processes": len(installation.processes), "restarted within s": round(seconds, 1)}


def _has_joined(process: Process, before: int, observer: Observer) -> bool:
    assert process.process is not None
    return any(
        number != before and name.endswith(f" {process.process.pid}") for number, name in observer.workers().items()
    )


def _published(observer: Observer) -> list[tuple[int, int, int]]:
    versions = schema.versions.c
    query = sa.select(versions.document_id, versions.id, versions.published_seq).where(versions.retired_seq.is_(None))
    return sorted(tuple(row) for row in observer._rows(query.where(versions.published_seq.is_not(None))))


def check(observer: Observer) -> dict[str, Any]:
    """Nothing twice, nothing half there."""
    rows = observer._rows
    documents = rows(sa.select(schema.documents))
    versions = [v for v in rows(sa.select(schema.versions)) if v.published_seq is not None and v.retired_seq is None]
    chunks = rows(sa.select(schema.chunks.c.version_id, schema.chunks.c.ordinal, schema.chunks.c.embedding_key))
    keys = {row.embedding_key for row in rows(sa.select(schema.vectors.c.embedding_key))}
    assert {d.state for d in documents} == {"completed"}
    assert Counter(v.document_id for v in versions) == Counter(d.id for d in documents), "a document is there twice"
    visible = {v.id: v.document_id for v in versions}
    ordinals: dict[int, list[int]] = {}
    for chunk in chunks:
        if chunk.version_id in visible:
            ordinals.setdefault(visible[chunk.version_id], []).append(chunk.ordinal)
            assert chunk.embedding_key in keys, "a chunk without a vector"
    for document in documents:
        assert sorted(ordinals[document.id]) == list(range(document.chunks_total)), document.source
    return {
        "documents": len(documents),
        "chunks": sum(map(len, ordinals.values())),
        "most attempts": max(d.attempt for d in documents),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=250)
    parser.add_argument("--corpus", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(campaign(texts_of(chosen.corpus, chosen.files), Path(folder)), indent=1))


if __name__ == "__main__":
    main()
