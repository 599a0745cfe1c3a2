"""What the retrievers share: one search of a server, at once or awaited, and the metadata of a hit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from api.client import TIMEOUT, answer_of, authorization, base_of, reachable, search_path
from rag.settings import secret

Json = dict[str, Any]


class Searching(BaseModel):
    """Where to search, and how; what is not named is the server's setting.

    Both methods give hits as `/v1/vector_stores/{id}/search` does, best first. They raise the family of error that the
    answer belongs to, and TryLater (`server_unreachable`) when there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """The server's address, with or without `/v1`."""
    store: str
    """A vector store's id or unique name."""
    key: SecretStr | None = None
    limit: int = Field(default=10, ge=1, le=50)
    """Hits at most."""
    filters: Json | None = None
    """A filter on attributes: `{"type": "eq", "key": "year", "value": 2024}`, or `and` and `or` of filters."""
    mode: Literal["hybrid", "dense", "keyword"] | None = None
    min_relevance: float | None = Field(default=None, ge=0, le=1)

    def search(self, query: str) -> list[Json]:
        """The hits of a query."""
        with reachable(), httpx.Client(**self._client()) as http:
            return hits(http.post(search_path(self.store), json=self._body(query)))

    async def asearch(self, query: str) -> list[Json]:
        """The same, awaited."""
        with reachable():
            async with httpx.AsyncClient(**self._client()) as http:
                return hits(await http.post(search_path(self.store), json=self._body(query)))

    def _client(self) -> Json:
        return {"base_url": base_of(self.url), "headers": authorization(secret(self.key)), "timeout": TIMEOUT}

    def _body(self, query: str) -> Json:
        body: Json = {"query": query, "max_num_results": self.limit}
        if self.filters is not None:
            body["filters"] = self.filters
        if self.mode is not None:
            body["mode"] = self.mode
        if self.min_relevance is not None:
            body["ranking_options"] = {"score_threshold": self.min_relevance}
        return body


def hits(answer: httpx.Response) -> list[Json]:
    """The hits of an answer. Raises what it says went wrong."""
    found: list[Json] = answer_of(answer)["data"]
    return found


def text_of(hit: Mapping[str, Any]) -> str:
    """The text of a hit."""
    return "".join(part["text"] for part in hit["content"])


def metadata_of(hit: Mapping[str, Any], store: str) -> Json:
    """Everything of a hit but its text: the file's attributes, and where it stands and how it scored, which attributes
    of the same name do not hide. `text == document_text[start:end]`."""
    where = {name: value for name, value in hit.items() if name not in ("content", "attributes", "scores", "score")}
    return {**hit["attributes"], **where, "store": store, "relevance": hit["score"], "scores": dict(hit["scores"])}
