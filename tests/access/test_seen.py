"""What is hidden moves nothing that a restricted caller is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ingest import intake
from rag.access import Caller
from rag.retrieve import SearchOptions, retrieve
from rag.settings import ServerSettings, Settings
from rag.views import View
from tests.api.running import RunningServer, finished, upload
from tests.backends import add_text, open_backend, toy_settings, wait_until_idle
from tests.campaigns.walls import OPERATOR, bearer

SEARCH = "/v1/vector_stores/{}/search"


def test_nothing_that_is_hidden_moves_a_score(tmp_path: Path) -> None:
    """A restricted caller's answers are the same, to the byte, whatever is beside what they see."""
    settings = Settings(data=tmp_path, embedder="toy-384", server=ServerSettings(api_key=SecretStr(OPERATOR)))
    with (
        RunningServer(settings, jobs=True) as server,
        httpx.Client(base_url=server.url, timeout=60, headers=bearer(OPERATOR)) as http,
    ):
        store = http.post("/v1/vector_stores", json={"name": "s"}).json()["id"]
        reader = bearer(http.post("/v1/keys", json={"name": "reader"}).json()["secret"])

        def put(name: str, text: str, tags: list[str], attributes: dict[str, Any]) -> None:
            file = upload(http, name, text)
            body = {"file_id": file, "permissions": tags, "attributes": attributes}
            assert http.post(f"/v1/vector_stores/{store}/files", json=body).status_code == 200
            assert finished(http, store, file)["status"] == "completed"

        def asked() -> list[Any]:
            told: list[Any] = []
            for mode in ("hybrid", "dense", "keyword"):
                for question in ("kettle whistles", "kettle", "lamp and kettle", "walrus"):
                    body = {"query": question, "mode": mode}
                    told.append(http.post(SEARCH.format(store), headers=reader, json=body).text)
            for key, value in (("secret", 1), ("topic", 1), ("topic", "a"), ("nothing", 1)):
                body = {"query": "kettle", "filters": {"type": "eq", "key": key, "value": value}}
                told.append(http.post(SEARCH.format(store), headers=reader, json=body).text)
            context = http.post(
                f"/v1/vector_stores/{store}/context", headers=reader, json={"question": "kettle?"}
            ).json()
            # What is left out holds a random mark, or counts its tokens.
            told += [context["grounded"], [{**p, "tokens": 0} for p in context["passages"]]]
            chat = {"messages": [{"role": "user", "content": "Does the kettle whistle?"}], "model": "extractive"}
            said = http.post("/v1/chat/completions", headers=reader, json=chat).json()
            told += [said["choices"], said["citations"], said["grounded"]]
            told.append(http.get(f"/v1/vector_stores/{store}/files", headers=reader).json())
            told.append(http.get("/v1/files", headers=reader).json())
            seen_store = http.get(f"/v1/vector_stores/{store}", headers=reader).json()
            seen_store.pop("last_active_at")
            return [*told, seen_store]

        put("a.md", "The kettle whistles when the water boils.", [], {"topic": "a"})
        put("b.md", "The lamp burns, and the kettle is cold. A lamp needs oil. " * 4, [], {"topic": "b"})
        put("c.md", "Nothing but a harbour.", [], {})
        before = asked()
        for number in range(5):
            text = "The walrus keeps a kettle. " * (number + 1) + f"It whistles {number} times."
            put(f"hidden-{number}.md", text, ["hr"], {"secret": number, "topic": number})
        assert asked() == before
        everything = http.post(SEARCH.format(store), json={"query": "walrus", "mode": "keyword"}).json()["data"]
        assert len(everything) == 5


def test_a_view_that_lags_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        for name, tags in (("a.txt", None), ("b.txt", ["hr"])):
            document = add_text(backend, store, name, f"The kettle of {name}.")
            wait_until_idle(backend)
            if tags:
                intake.set_attributes(backend, store, document.file_public_id, permissions=tags)
        reader = backend.for_caller(Caller("default", frozenset({"query"}), permissions=frozenset()))
        found = [c.filename for c in retrieve(reader, [store], "kettle", SearchOptions()).candidates]
        assert found == ["a.txt"]
        monkeypatch.setattr(View, "allowed", lambda self, condition: None)
        monkeypatch.setattr(View, "statistics", lambda self, words, tags: (2, [2] * len(words)))
        found = [c.filename for c in retrieve(reader, [store], "kettle", SearchOptions()).candidates]
        assert found == ["a.txt"]
        assert len(retrieve(backend, [store], "kettle", SearchOptions()).candidates) == 2
