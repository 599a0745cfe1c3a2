"""The LangChain and LlamaIndex retrievers against a real server, by the frameworks' own ways of calling them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.integrations.searching import Searching
from indexes.errors import ChangeRequest, NotThere, TryLater
from tests.api.running import Corpus, RunningServer
from tests.campaigns.kills import free_port

LAMP = {"type": "eq", "key": "topic", "value": "lamp"}
Found = list[tuple[str, str, dict[str, Any]]]
"""Id, text and metadata of each."""


class LangChain:
    """Calls that framework's retriever."""

    def __init__(self, **options: Any) -> None:
        pytest.importorskip("langchain_core", reason="the extra `langchain` is not installed")
        from api.integrations.langchain import RagRetriever

        self._retriever = RagRetriever(**options)

    def at_once(self, query: str) -> Found:
        return [(document.id, document.page_content, document.metadata) for document in self._retriever.invoke(query)]

    async def awaited(self, query: str) -> Found:
        found = await self._retriever.ainvoke(query)
        return [(document.id, document.page_content, document.metadata) for document in found]


class LlamaIndex:
    """The same for the other one."""

    def __init__(self, **options: Any) -> None:
        pytest.importorskip("llama_index.core", reason="the extra `llama-index` is not installed")
        from api.integrations.llama_index import RagRetriever

        self._retriever = RagRetriever(**options)

    def at_once(self, query: str) -> Found:
        return [self._plain(node) for node in self._retriever.retrieve(query)]

    async def awaited(self, query: str) -> Found:
        return [self._plain(node) for node in await self._retriever.aretrieve(query)]

    def _plain(self, found: Any) -> tuple[str, str, dict[str, Any]]:
        assert found.score == found.node.metadata["relevance"]
        return found.node.node_id, found.node.get_content(), found.node.metadata


@pytest.fixture(params=[LangChain, LlamaIndex])
def retriever(request: pytest.FixtureRequest) -> Callable[..., Any]:
    made: Callable[..., Any] = request.param
    return made


def both(retriever: Any, query: str) -> Found:
    """What both ways of asking find, which is the same."""
    found: Found = retriever.at_once(query)
    assert asyncio.run(retriever.awaited(query)) == found
    return found


def test_hits_and_their_metadata(
    retriever: Callable[..., Any], server: RunningServer, http: httpx.Client, corpus: Corpus
) -> None:
    found = both(retriever(url=server.url, store="help"), "parcels to Norway")
    hits = http.post(f"/v1/vector_stores/{corpus.store}/search", json={"query": "parcels to Norway"})
    assert [(id_, text) for id_, text, _ in found] == [
        (str(hit["chunk_id"]), hit["content"][0]["text"]) for hit in hits.json()["data"]
    ]
    metadata = found[0][2]
    assert (metadata["file_id"], metadata["store"]) == (corpus.files["shipping.md"], "help")
    assert (metadata["topic"], metadata["year"], metadata["title"]) == ("shop", 2024, "Shipping")
    assert metadata["relevance"] == hits.json()["data"][0]["score"]
    assert set(metadata["scores"]) == {"dense", "keyword", "fused", "relevance"}
    content = http.get(f"/v1/vector_stores/{corpus.store}/files/{metadata['file_id']}/content").json()
    assert content["data"][0]["text"][metadata["start"] : metadata["end"]] == found[0][1]
    assert {"document_id", "version_id", "page", "heading_path", "filename"} <= set(metadata)


def test_options(retriever: Callable[..., Any], server: RunningServer, corpus: Corpus) -> None:
    def of(**options: Any) -> Any:
        return retriever(url=f"{server.url}/v1/", store=corpus.store, **options)

    assert len(both(of(limit=2), "kettle lamp boat")) == 2
    assert len(both(of(filters=LAMP), "kettle lamp boat")) == 1
    assert {m["scores"]["dense"] for *_, m in both(of(mode="keyword"), "lamp")} == {None}
    assert both(of(min_relevance=1.0), "xyzzy quux") == []


def test_errors_are_those_of_the_server(
    retriever: Callable[..., Any], server: RunningServer, locked: RunningServer, corpus: Corpus
) -> None:
    for options, family, code in [
        ({"url": server.url, "store": "none"}, NotThere, "vector_store_not_found"),
        ({"url": server.url, "store": "help", "filters": {"type": "like"}}, ChangeRequest, "invalid_filter"),
        ({"url": locked.url, "store": "help"}, ChangeRequest, "missing_api_key"),
        ({"url": locked.url, "store": "help", "key": "sesame"}, NotThere, "vector_store_not_found"),
        ({"url": f"http://127.0.0.1:{free_port()}", "store": "help"}, TryLater, "server_unreachable"),
        ({"url": "127.0.0.1:8000", "store": "help"}, ChangeRequest, "bad_url"),
    ]:
        with pytest.raises(family) as at_once:
            retriever(**options).at_once("lamp")
        with pytest.raises(family) as awaited:
            asyncio.run(retriever(**options).awaited("lamp"))
        assert (at_once.value.code, awaited.value.code) == (code, code)


def test_a_key_is_not_shown() -> None:
    assert "sesame" not in repr(Searching.model_validate({"url": "http://a", "store": "b", "key": "sesame"}))


@pytest.mark.parametrize(("name", "package"), [("langchain", "langchain_core"), ("llama_index", "llama_index")])
def test_without_its_package_it_says_what_to_install(name: str, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import api.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"pip install 'rag[{name.replace('_', '-')}]'" in done.stderr
