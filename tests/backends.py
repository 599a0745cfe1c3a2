"""A whole installation in a temporary folder, for tests: the toy embedder, everything else real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest import intake
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import documents
from rag.catalog.records import Document, PageRequest, Store
from rag.context import Scalar
from rag.settings import Settings, load_settings


def toy_settings(folder: Path, **flags: Any) -> Settings:
    """Settings over `folder` with a toy embedder; keyword `server__port` stands for `server.port`."""
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(environment={}, flags={"data": folder, "embedder": "toy-384", **dotted})


@contextmanager
def open_backend(settings: Settings, *, jobs: bool = True) -> Iterator[Backend]:
    """A backend, with the jobs running, closed at the end."""
    backend = Backend(settings)
    runner = Runner(backend) if jobs else None
    try:
        # A process runs the jobs of one folder at a time: a server left open by another test would keep the place.
        _require_place(runner)
        yield backend
    finally:
        if runner is not None:
            runner.close()
        asyncio.run(backend.close())


def _require_place(runner: Runner | None, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while runner is not None and runner.fault is None and not runner.ready.wait(0.05):
        assert time.monotonic() < deadline, "the jobs do not run here"


def add_text(
    backend: Backend, store: Store, source: str, text: str | bytes, attributes: Mapping[str, Scalar] | None = None
) -> Document:
    """Put a text into a store under a source name; its file is named after the source."""
    data = text.encode() if isinstance(text, str) else text
    file = intake.upload(backend, source, "assistants", [data])
    return intake.attach(backend, store, [intake.NewDocument(file, source, attributes, owned=True)])[0]


def wait_until_idle(backend: Backend, seconds: float = 60.0) -> None:
    """Wait until no document wants work. Fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with backend.database.read() as connection:
            if documents.count_waiting(connection) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"documents still want work after {seconds} s")


def all_documents(backend: Backend, store: Store) -> dict[str, Document]:
    """Every document of a store by its source."""
    with backend.database.read() as connection:
        rows = documents.list_documents(connection, backend.caller, store, PageRequest(limit=100_000)).rows
    return {row.source: row for row in rows}
