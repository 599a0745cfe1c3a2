"""The FAISS index where vectors are many: lists made beside the scan, kept up to date, replaced. Small here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from indexes.faiss import FaissIndex
from indexes.faiss_forms import Lists
from indexes.vector import VectorIndex
from tests.contracts.vector_index import CHECKS


class Settled(FaissIndex):
    """Nothing goes on in the background when a change returns; what holds anything is in lists."""

    def add(self, ids, vectors):
        super().add(ids, vectors)
        assert self.settle(60)
        assert isinstance(self._form, Lists) or not len(self)

    def remove(self, ids):
        super().remove(ids)
        assert self.settle(60)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector is many."""
    monkeypatch.setattr("indexes.faiss.LARGE", 1)
    monkeypatch.setattr("indexes.faiss.GATHER_COUNT", 0)
    monkeypatch.setattr("indexes.faiss.SETTLE_SECONDS", 0.0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Callable[[int], VectorIndex]], None]) -> None:
    check(Settled)
