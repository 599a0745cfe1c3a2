"""Qdrant against both contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import keyword_index, vector_index
from tests.qdrant import KINDS, Qdrant, open_qdrant


@pytest.fixture(params=KINDS)
def qdrant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Qdrant]:
    with open_qdrant(request.param, tmp_path / "engine") as opened:
        yield opened


@pytest.mark.parametrize("check", vector_index.CHECKS, ids=lambda check: check.__name__)
def test_vector_contract(check: Callable[[Any], None], qdrant: Qdrant) -> None:
    check(qdrant.vectors)


@pytest.mark.parametrize("check", keyword_index.CHECKS, ids=lambda check: check.__name__)
def test_keyword_contract(check: Callable[[Any, Path], None], qdrant: Qdrant, tmp_path: Path) -> None:
    check(qdrant.words, tmp_path / "index")
