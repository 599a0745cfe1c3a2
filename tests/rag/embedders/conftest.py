"""Compiling in a test: in a cache of the test's own, by the same function, without the seconds that imports take."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.embedders import compiled


def compile_here(order: compiled.Order, path: Path, aside: Path) -> bool:
    """What the process of its own does."""
    from rag.embedders.compiling import compile_model

    compile_model(order, path, aside)
    return True


def compiling_here(patch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Compile in this process, into this cache. Returns the folder of compiled models."""
    patch.setenv("RAG_CACHE", str(cache))
    patch.setattr(compiled, "_compile", compile_here)
    return cache / "encoders"


@pytest.fixture
def encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled models, empty at first."""
    return compiling_here(monkeypatch, tmp_path / "cache")
