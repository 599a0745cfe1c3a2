"""The installations that the end-to-end tests run over, unchanged."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.qdrant_server import FakeQdrant
from tests.installations import Installation, Process, cluster, one_process, running
from tests.s3 import make_bucket, running_s3

TOY = {"RAG_EMBEDDER": "toy-384"}
QDRANT = {"RAG_VECTOR_INDEX": "qdrant", "RAG_KEYWORD_INDEX": "qdrant"}


@pytest.fixture(scope="module", params=["one process", "cluster", "qdrant local", "qdrant over HTTP", "qdrant server"])
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One process over SQLite, FAISS and a folder; two replicas and two workers over PostgreSQL, FAISS and S3; one
    process over Qdrant's local mode, whose lock allows no second; and the cluster over a stand-in for Qdrant's
    interface and, where there is one, over a Qdrant server.
    """
    folder = tmp_path_factory.mktemp("installation")
    with ExitStack() as stack:
        processes = _processes(request, folder, stack)
        yield stack.enter_context(running(processes))


def _processes(request: pytest.FixtureRequest, folder: Path, stack: ExitStack) -> list[Process]:
    if request.param == "one process":
        return one_process(folder, TOY)
    if request.param == "qdrant local":
        return one_process(folder, {**TOY, **QDRANT})
    catalog = stack.enter_context(request.getfixturevalue("postgres").database())
    bucket = make_bucket(stack.enter_context(running_s3()), "end-to-end")
    shared = {**TOY, "RAG_CATALOG": catalog, "RAG_BLOBS": bucket}
    if request.param == "qdrant over HTTP":
        shared |= {**QDRANT, "RAG_QDRANT_URL": stack.enter_context(FakeQdrant()).url}
    elif request.param == "qdrant server":
        shared |= _qdrant_server()
    return cluster(folder, shared)


def _qdrant_server() -> dict[str, str]:
    if "QDRANT_URL" not in os.environ:
        pytest.skip("no Qdrant server: set QDRANT_URL (and QDRANT_API_KEY)")
    key = os.environ.get("QDRANT_API_KEY")
    server = {"RAG_QDRANT_URL": os.environ["QDRANT_URL"], "RAG_QDRANT_PREFIX": f"test-{secrets.token_hex(4)}"}
    return {**QDRANT, **server, **({"RAG_QDRANT_API_KEY": key} if key else {})}


@pytest.fixture
def doors(installation: Installation) -> Iterator[list[httpx.Client]]:
    """A client for each address that answers requests; the first and the last are the same where there is one."""
    clients = [httpx.Client(base_url=url, timeout=60.0, trust_env=False) for url in installation.doors]
    yield clients if len(clients) > 1 else clients * 2
    for client in clients:
        client.close()
