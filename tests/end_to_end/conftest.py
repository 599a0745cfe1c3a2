"""The installations that the end-to-end tests run over, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.installations import Installation, Process, cluster, one_process, running
from tests.s3 import make_bucket, running_s3

TOY = {"RAG_EMBEDDER": "toy-384"}


@pytest.fixture(scope="module", params=["one process", "cluster"])
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One process over SQLite, FAISS and a folder; two replicas and two workers over PostgreSQL, FAISS and S3."""
    folder = tmp_path_factory.mktemp("installation")
    with ExitStack() as stack:
        processes = _processes(request, folder, stack)
        yield stack.enter_context(running(processes))


def _processes(request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> list[Process]:
    if request.param == "one process":
        return one_process(folder, TOY)
    catalog = stack.enter_context(request.getfixturevalue("postgres").database())
    bucket = make_bucket(stack.enter_context(running_s3()), "end-to-end")
    return cluster(folder, {**TOY, "RAG_CATALOG": catalog, "RAG_BLOBS": bucket})


@pytest.fixture
def doors(installation: Installation) -> Iterator[list[httpx.Client]]:
    """A client for each address that answers requests; the first and the last are the same where there is one."""
    clients = [httpx.Client(base_url=url, timeout=60.0, trust_env=False) for url in installation.doors]
    yield clients if len(clients) > 1 else clients * 2
    for client in clients:
        client.close()
