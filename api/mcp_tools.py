"""What the MCP server's tools do: `search`, `fetch` and `context`, each over what the caller may see.

`search` and `fetch` are those that ChatGPT's deep research asks for: a query gives `{results: [{id, title, url}]}`, the
id of one gives `{id, title, text, url, metadata}`. An id is a citation: `STORE:FILE:VERSION:START-END`, so many
characters of one version of a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, JsonValue

from api.routes.context import named_stores, to_ask
from api.schemas.chat import ContextRequest, StoreIds
from api.schemas.common import Identifier, Question, RequestModel, ResponseModel
from api.schemas.search import Query
from indexes.errors import ChangeRequest, NotThere
from indexes.filters import parse_filter
from rag import listing, live
from rag.ask import prepare
from rag.backend import Backend
from rag.catalog.records import PageRequest, Store
from rag.context import Candidate, Passage
from rag.models import Sampling
from rag.retrieve import SearchOptions

MOST_STORES = 16
"""Stores that are searched when a call names none: those of the caller, the newest first."""
MOST_TEXT = 100_000
"""Characters of a document that `fetch` gives at most."""
_ID = re.compile(r"(?P<store>[^:]+):(?P<file>[^:]+):(?P<version>\d{1,18}):(?P<start>\d{1,18})-(?P<end>\d{1,18})")


class Search(RequestModel):
    """Find the passages that have most to do with a question. Returns results with an id for `fetch`, a title, a URL
    and the passage's text, best first."""

    query: Query = Field(description="What to look for, in words.")
    vector_stores: StoreIds | None = Field(default=None, description="Names or ids of stores; all if left out.")
    filters: dict[str, JsonValue] | None = Field(
        default=None,
        description='As {"type": "eq", "key": "year", "value": 2024}, or {"type": "and", "filters": [...]}.',
    )
    limit: int = Field(default=10, ge=1, le=50, description="Results at most.")


class Fetch(RequestModel):
    """Read the document that a result of `search` or a passage of `context` stands in, by its id; of a long one, what
    is around it. The metadata say where the text begins in the document and where the passage is, in characters."""

    id: Identifier = Field(description="The id of a result.")


class Context(RequestModel):
    """Get the passages to answer a question from, chosen and merged to fit a window of tokens, with their sources, and
    whether they have enough to do with it (`grounded`)."""

    question: Question = Field(description="The question, in words.")
    vector_stores: StoreIds | None = Field(default=None, description="Names or ids of stores; all if left out.")
    filters: dict[str, JsonValue] | None = Field(default=None, description="As for `search`.")
    window: int | None = Field(default=None, ge=1, description="Tokens that prompt and answer may take together.")
    model: Identifier | None = Field(default=None, description="The model alias whose window and tokenizer to use.")


class Result(ResponseModel):
    """A passage that was found."""

    id: str
    title: str
    url: str
    text: str


class Results(ResponseModel):
    """What was found, best first."""

    results: list[Result]


class Fetched(ResponseModel):
    """A document's text, and where the passage is: `text[start - text_start : end - text_start]`."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, str | int]


class Packed(ResponseModel):
    """What to answer from; `[n]` cites the passage of that number, counted from 1."""

    passages: list[Result]
    grounded: bool
    prompt_tokens: int


@dataclass(frozen=True)
class Tool:
    """A tool: its arguments and results as models, and what does it. The arguments' docstring describes it."""

    name: str
    title: str
    arguments: type[RequestModel]
    results: type[ResponseModel]
    run: Callable[[Backend, str, Any], ResponseModel]
    """Given the caller's backend, this server's address with a closing slash, and the arguments."""


def search(backend: Backend, base_url: str, asked: Search) -> Results:
    """The best chunks of the stores."""
    condition = None if asked.filters is None else parse_filter(asked.filters)
    options = SearchOptions(limit=asked.limit, condition=condition)
    found = live.search(backend, _stores(backend, asked.vector_stores), asked.query, options)
    return Results(results=[_result(base_url, candidate) for candidate in found.candidates])


def fetch(backend: Backend, base_url: str, asked: Fetch) -> Fetched:
    """The document that an id cites. Raises ChangeRequest for what is no id, NotThere for a version that is gone."""
    cited = _ID.fullmatch(asked.id)
    if cited is None:
        raise ChangeRequest(f"{asked.id!r} is not the id of a result. Search first.", code="invalid_id", param="id")
    store = backend.find_store(cited["store"])
    document = listing.get_document(backend, store, cited["file"])
    answering = listing.published_version(backend, document)
    start, end = int(cited["start"]), int(cited["end"])
    if answering is None or answering.id != int(cited["version"]):
        raise NotThere(
            f"The document {document.filename!r} has changed since {asked.id!r} was found. Search again.",
            code="citation_outdated",
            param="id",
        )
    first = max(0, (start + end - MOST_TEXT) // 2)
    return Fetched(
        id=asked.id,
        title=answering.title or document.filename,
        text=backend.texts.read(answering.text_blob)[first : first + MOST_TEXT],
        url=_url(base_url, document.file_public_id),
        metadata={
            "vector_store": store.name or store.public_id,
            "file_id": document.file_public_id,
            "filename": document.filename,
            "document_id": document.id,
            "version_id": answering.id,
            "text_start": first,
            "start": start,
            "end": end,
        },
    )


def context(backend: Backend, base_url: str, asked: Context) -> Packed:
    """The packed passages for a question."""
    body = ContextRequest(question=asked.question, filters=asked.filters, window=asked.window, model=asked.model)
    stores = _stores(backend, asked.vector_stores)
    prepared = prepare(backend, to_ask(body, stores, ({"role": "user", "content": asked.question},), Sampling()))
    return Packed(
        passages=[_result(base_url, passage) for passage in prepared.context.passages],
        grounded=prepared.context.grounded,
        prompt_tokens=prepared.context.ledger.prompt_tokens,
    )


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("search", "Search", Search, Results, search),
        Tool("fetch", "Read a document", Fetch, Fetched, fetch),
        Tool("context", "Passages for a question", Context, Packed, context),
    )
}


def _stores(backend: Backend, names: Sequence[str] | None) -> list[Store]:
    if names is not None:
        return named_stores(backend, names)
    page = listing.list_stores(backend, PageRequest(limit=MOST_STORES))
    if not page.rows:
        raise NotThere("There is no vector store. Create one first.", code="vector_store_not_found")
    return [row.store for row in page.rows]


def _result(base_url: str, cited: Candidate | Passage) -> Result:
    where = f"{cited.store_id}:{cited.file_id}:{cited.version_id}:{cited.start}-{cited.end}"
    return Result(id=where, title=cited.title or cited.filename, url=_url(base_url, cited.file_id), text=cited.text)


def _url(base_url: str, file_id: str) -> str:
    return f"{base_url}v1/files/{file_id}/content"
