"""A server in a process of its own, for clients that were not written here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.installations import one_process, running

KEY = "sesame"
SETTINGS = {"RAG_EMBEDDER": "toy-384", "RAG_API_KEY": KEY}


@dataclass(frozen=True)
class Served:
    """Where a server is, and the paths that it has."""

    base_url: str
    paths: frozenset[str]

    def needs(self, path: str) -> None:
        """Skip where the server has no such route yet; where it has, what is tested of it must hold."""
        if path not in self.paths:
            pytest.skip(f"the server has no route {path}")


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the key `sesame`."""
    with running(one_process(tmp_path_factory.mktemp("sdk"), SETTINGS)) as installation:
        url = installation.doors[0]
        headers = {"Authorization": f"Bearer {KEY}"}
        schema = httpx.get(f"{url}/openapi.json", headers=headers, timeout=60, trust_env=False).json()
        yield Served(f"{url}/v1", frozenset(schema["paths"]))
