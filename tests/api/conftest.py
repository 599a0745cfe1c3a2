"""Servers on a loopback port, shared by all tests here: one open, one with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from rag.settings import IngestSettings, ServerSettings, Settings
from tests.api.running import Corpus, RunningServer, fill
from tests.fakes.openai_server import FakeOpenAI
from tests.spans import Spans


@pytest.fixture(scope="package")
def provider() -> Iterator[FakeOpenAI]:
    """The server of the model alias `scripted`."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="package")
def recorder() -> Spans:
    """Where the open server's spans go."""
    return Spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, provider: FakeOpenAI, recorder: Spans) -> Iterator[RunningServer]:
    """A server without a key that runs jobs. Its models: `extractive`, `scripted`, `small` with a smaller window,
    `helper` with a store of its own, `narrow` with two places, one to wait in and a second of patience, and `hasty`,
    which has a second for a whole answer."""
    scripted = {
        "provider": "openai",
        "model": "gpt-4o",
        "window": 8192,
        "output_limit": 512,
        "tokenizer": "o200k_base",
        "base_url": provider.base_url,
        "retries": 0,
        "timeout": 10.0,
        "response_formats": ["json_object", "json_schema"],
    }
    small = {**scripted, "window": 4096}
    helper = {**scripted, "vector_stores": ["help"]}
    narrow = {**helper, "timeout": 1.0, "concurrent": 2, "waiting": 1}
    hasty = {**helper, "answer_seconds": 1.0}
    settings = Settings(
        data=tmp_path_factory.mktemp("open"),
        embedder="toy-384",
        embedders={"short": {"provider": "toy", "model": "toy-256", "shortens": True}},
        models={"scripted": scripted, "small": small, "helper": helper, "narrow": narrow, "hasty": hasty},
        rerankers={"words": {"provider": "toy", "model": "overlap"}},
        ingest=IngestSettings(max_file_mb=1),
    )
    with RunningServer(settings, jobs=True, telemetry=recorder.telemetry()) as running:
        yield running


@pytest.fixture(scope="package")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the key `sesame` that runs no jobs and takes bodies of 1 MiB."""
    settings = Settings(
        data=tmp_path_factory.mktemp("locked"),
        embedder="toy-384",
        server=ServerSettings(
            api_key=SecretStr("sesame"),
            max_body_mb=1,
            allowed_hosts=("rag.example",),
            allowed_origins=("https://app.example",),
            open_metrics=True,
        ),
    )
    with RunningServer(settings, jobs=False) as running:
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the open server."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def keyed(locked: RunningServer) -> Iterator[httpx.Client]:
    """A client of the server with a key that carries it."""
    with httpx.Client(base_url=locked.url, timeout=30, headers={"Authorization": "Bearer sesame"}) as client:
        yield client


@pytest.fixture(scope="package")
def corpus(server: RunningServer) -> Corpus:
    """The store `help` of the open server: three documents, ingested."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        return fill(client, "help")


@pytest.fixture
def bad_file(tmp_path: Path) -> Path:
    """A file that no loader takes."""
    path = tmp_path / "noise.bin"
    path.write_bytes(bytes(range(256)) * 8)
    return path
