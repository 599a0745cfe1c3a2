"""Qdrant for tests: local mode, a fake server over it, and a real one where `QDRANT_URL` names it.

Collections are a test's own, and dropped after it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.qdrant_server import FakeQdrant

KINDS = ("memory", "folder", "engine", "fake", "fake-engine", "server")
"""Local mode in memory and in a folder, the server's engine without a server, the fake server over local mode and over
that engine, and a real one."""


class Qdrant:
    """Makes collections and indexes over one connection."""

    def __init__(self, connection: Any, effort: Any) -> None:
        self.connection = connection
        self.effort = effort
        self.made: list[Any] = []
        self._owner = f"test-{secrets.token_hex(6)}"

    def collection(self, dimension: int = 8, owner: str = "", **settings: Any) -> Any:
        """The collection of one owner, made unless it is there."""
        from indexes.qdrant_collection import QdrantCollection

        settings = {"effort": self.effort, "prefix": "rag-test", **settings}
        made = QdrantCollection(self.connection, f"{self._owner}-{owner}", "space", dimension, **settings)
        made.ensure()
        self.made.append(made)
        return made

    def vectors(self, dimension: int) -> Any:
        """A new, empty vector index."""
        from indexes.qdrant import QdrantVectorIndex
        from indexes.qdrant_collection import Scope

        return QdrantVectorIndex(self.collection(dimension, secrets.token_hex(6)), Scope(7, 3))

    def words(self, folder: Path) -> Any:
        """The keyword index that goes by a folder's name."""
        from indexes.qdrant import QdrantKeywordIndex
        from indexes.qdrant_collection import QdrantLayout, Scope

        layout = QdrantLayout(average_words=6.0)
        return QdrantKeywordIndex(self.collection(2, str(folder), layout=layout), Scope(7, 3))


@contextmanager
def open_qdrant(kind: str, folder: Path) -> Iterator[Qdrant]:
    """One kind of Qdrant. Skips the test, saying why, where it is not to be had."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")
    from indexes.qdrant_collection import QdrantEffort
    from indexes.qdrant_connection import QdrantConnection, QdrantPlace

    if kind.endswith("engine"):
        pytest.importorskip("qdrant_edge", reason="the engine is not installed: pip install qdrant-edge-py")
        from tests.qdrant_edge import EdgeClient, EdgeConnection
    if kind == "engine":
        yield from _opened(EdgeConnection(folder), QdrantEffort(exact=True))
        return
    if kind.startswith("fake"):
        with FakeQdrant(engine=EdgeClient(folder) if kind == "fake-engine" else None) as server:
            yield from _opened(QdrantConnection(QdrantPlace(server.url)), QdrantEffort(exact=True))
        return
    place = QdrantPlace(folder=folder if kind == "folder" else None)
    if kind == "server":
        if not os.environ.get("QDRANT_URL"):
            pytest.skip("no Qdrant server: QDRANT_URL (and QDRANT_API_KEY) is not set")
        place = QdrantPlace(os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY"))
    yield from _opened(QdrantConnection(place), QdrantEffort(exact=True))


def _opened(connection: Any, effort: Any) -> Iterator[Qdrant]:
    qdrant = Qdrant(connection, effort)
    try:
        yield qdrant
    finally:
        for collection in qdrant.made:
            collection.drop()
        connection.close()
