"""Opening an installation: what the settings name is there, or the setting is named at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from indexes.errors import ChangeRequest
from ingest import intake
from rag.backend import NAMING_SETTINGS, SEARCHING, Backend, require_named
from rag.settings import load_settings, unknown_variables
from tests.backends import toy_settings


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("embedder", "nobody", "unknown_name"),
        ("model", "nobody", "model_not_found"),
        ("vector_index", "nosuch", "unknown_name"),
        ("keyword_index", "nosuch", "unknown_name"),
        ("prompts", Path("/no/such/folder"), "no_such_folder"),
        ("prompts", Path(__file__), "no_such_folder"),
    ],
)
def test_a_setting_that_names_what_is_not_there_is_refused_before_anything_is_made(
    setting: str, value: Any, code: str, tmp_path: Path
) -> None:
    with pytest.raises(ChangeRequest, match=f"The setting {setting} \\(flag\\): .*") as refused:
        Backend(toy_settings(tmp_path / "data", **{setting: value}))
    assert (refused.value.code, refused.value.param) == (code, setting)
    assert not (tmp_path / "data").exists()


def test_what_the_settings_name_by_default_is_there(tmp_path: Path) -> None:
    settings = load_settings(environment={}, flags={"data": tmp_path, "prompts": tmp_path})
    for setting in NAMING_SETTINGS:
        require_named(settings, setting)


def test_variables_that_stand_for_no_setting_are_told() -> None:
    environment = {
        "RAG_SERVER_PORT": "1",
        "RAG_API_KEY": "k",
        "RAG_CONFIG": "",
        "RAG_PORT": "1",
        "PATH": "",
        "RAG_": "",
    }
    assert unknown_variables(environment) == ["RAG_", "RAG_PORT"]


def test_a_folder_in_place_of_the_settings_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ChangeRequest, match=r"is a folder\. Name the settings file") as refused:
        load_settings(tmp_path, environment={})
    assert refused.value.code == "no_settings"


def test_what_is_searched_here_takes_turns_and_what_waits_for_others_does_not(tmp_path: Path) -> None:
    hosted = {"provider": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "dimension": 8}
    backend = Backend(toy_settings(tmp_path / "data", embedders={"hosted": hosted}))
    try:
        here = backend.live_generation(intake.create_store(backend, "s"))
        begun, over = Event(), Event()

        def one_more() -> bool:
            with backend.turn([here]):
                begun.set()
                return over.is_set()

        with ThreadPoolExecutor(1) as thread:
            with ExitStack() as stack:
                for _ in range(SEARCHING):
                    stack.enter_context(backend.turn([here]))
                waiting = thread.submit(one_more)
                for elsewhere in (
                    replace(here, embedder="hosted"),
                    replace(here, embedder="gone"),
                    replace(here, vector_index="qdrant", keyword_index="qdrant"),
                ):
                    with backend.turn([here, elsewhere]):
                        pass
                assert not begun.wait(0.1)
                over.set()
            assert waiting.result(10)
    finally:
        asyncio.run(backend.close())
