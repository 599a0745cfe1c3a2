"""One server for the tests of access that come last: two tenants with keys of every kind, all doors open.

A process runs the jobs of one server at a time, so tests with servers of their own that run jobs come before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.campaigns.walls import World, running_world


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walls")


@pytest.fixture(scope="package")
def world(folder: Path) -> Iterator[World]:
    with running_world(folder) as running:
        yield running


@pytest.fixture
def http(world: World) -> httpx.Client:
    return world.http
