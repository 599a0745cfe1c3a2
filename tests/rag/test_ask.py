"""A question from end to end: what may be chosen for one request."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.errors import ChangeRequest
from ingest import intake
from rag.ask import Ask, prepare
from tests.backends import open_backend, toy_settings


def test_a_window_above_the_models_own_needs_a_tokenizer(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        own = backend.models.get().window

        def window(size: int, tokenizer: str | None = None) -> int:
            question = ({"role": "user", "content": "Which ducks dive?"},)
            return prepare(backend, Ask((store,), question, window=size, tokenizer=tokenizer)).alias.window

        assert window(own) == own
        assert window(own + 1, "o200k_base") == own + 1
        with pytest.raises(ChangeRequest, match=f"{own + 1:,}.*{own:,}") as refused:
            window(own + 1)
        assert (refused.value.code, refused.value.param) == ("invalid_window", "window")
