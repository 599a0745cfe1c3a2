"""Where the public test data lies, when it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


def data_root() -> Path:
    """The folder of the public data sets: `RAG_TEST_DATA`, or `../shared/data` from the project's root."""
    configured = os.environ.get("RAG_TEST_DATA")
    return Path(configured) if configured else Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The folder of one data set. Skips the calling test, saying why, where it is absent."""
    folder = data_root() / name
    if not folder.is_dir():
        pytest.skip(f"public data set {name!r} is not at {data_root()} (set RAG_TEST_DATA)")
    return folder


def pinned_specification() -> dict[str, Any]:
    """OpenAI's specification, the part that is served here. Skips the calling test, saying why, where it is absent."""
    file = data_root().parent / "openapi" / "openai-subset.json"
    if not file.is_file():
        pytest.skip(f"the pinned specification is not at {file} (set RAG_TEST_DATA to the folder beside its own)")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
