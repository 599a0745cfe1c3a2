"""Compiling in a test: in a cache of the test's own, by the same function, without the seconds that imports take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag.embedders import compiled


def compile_here(order: compiled.Order, path: Path, aside: Path) -> bool:
    """What the process of its own does."""
    from rag.embedders.compiling import compile_model

    compile_model(order, path, aside)
    return True


@contextmanager
def compiling_here(cache: Path) -> Iterator[Path]:
    """Compile in this process, into this cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_CACHE", str(cache))
        patch.setattr(compiled, "_compile", compile_here)
        yield cache / "encoders"


@pytest.fixture
def encoders(tmp_path: Path) -> Iterator[Path]:
    """The folder of compiled models, empty at first."""
    with compiling_here(tmp_path / "cache") as folder:
        yield folder
