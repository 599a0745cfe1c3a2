"""What all bodies of requests have in common: fields that are not served say why, null is a field left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from api.schemas.chat import ChatRequest, NamedSchema, StreamOptions, UserMessage
from api.schemas.embeddings import EmbeddingRequest
from api.schemas.not_served import CHAT, RESPONSES, NotServed
from api.schemas.responses import FileSearchRanking, FileSearchTool, ResponseRequest, TextOptions
from api.schemas.search import RankingOptions, SearchRequest
from api.schemas.vector_stores import CreateFileBatch, CreateStoreFile, CreateVectorStore, UpdateVectorStore
from tests.api.running import refused

LEAST: Mapping[type[BaseModel], dict[str, Any]] = {
    ChatRequest: {"model": "m", "messages": [{"role": "user", "content": "q"}]},
    UserMessage: {"role": "user", "content": "q"},
    StreamOptions: {},
    NamedSchema: {"name": "n"},
    ResponseRequest: {"input": "q"},
    FileSearchTool: {"type": "file_search", "vector_store_ids": ["s"]},
    FileSearchRanking: {},
    TextOptions: {},
    EmbeddingRequest: {"input": "q", "model": "m"},
    SearchRequest: {"query": "q"},
    RankingOptions: {},
    CreateVectorStore: {},
    UpdateVectorStore: {},
    CreateStoreFile: {"file_id": "f"},
    CreateFileBatch: {"file_ids": ["f"]},
}
"""The smallest body of each shape that OpenAI has as well."""
OURS = {"only_if_absent", "owned"}
PATHS = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES}


def optional() -> Iterator[Any]:
    for model, least in LEAST.items():
        unserved = {ChatRequest: CHAT, ResponseRequest: RESPONSES}.get(model, {})
        names = [field.alias or name for name, field in model.model_fields.items() if not field.is_required()]
        for name in sorted({*names, *unserved} - OURS):
            yield pytest.param(model, least, name, id=f"{model.__name__}.{name}")


@pytest.mark.parametrize(("model", "least", "name"), [*optional()])
def test_null_says_that_a_field_is_left_out(model: type[BaseModel], least: dict[str, Any], name: str) -> None:
    if name in least:
        with pytest.raises(ValidationError):
            model.model_validate({**least, name: None})
        return
    without, with_null = model.model_validate(least), model.model_validate({**least, name: None})
    assert with_null.model_dump() == without.model_dump()


@pytest.mark.parametrize(("model", "least"), [(model, least) for model, least in LEAST.items() if least])
def test_null_is_nothing_where_something_must_be(model: type[BaseModel], least: dict[str, Any]) -> None:
    for name in least:
        with pytest.raises(ValidationError):
            model.model_validate({**least, name: None})


@pytest.mark.parametrize(("path", "fields"), [*PATHS.items()])
def test_what_is_not_served_says_why(http: httpx.Client, path: str, fields: Mapping[str, NotServed]) -> None:
    least = LEAST[ChatRequest if path.endswith("completions") else ResponseRequest]
    described = http.get("/openapi.json").json()["paths"][path]["post"]["description"]
    for name, field in fields.items():
        message = refused(http.post(path, json={**least, name: "much"}), 400, "unsupported_parameter", name)
        assert field.reason in message
        assert f"`{name}`: {field.reason}" in described
        for taken in field.taken:  # these get as far as the model, or the stores, that are not there
            code = http.post(path, json={**least, "model": "none", name: taken}).json()["error"]["code"]
            assert code in ("model_not_found", "vector_store_required"), (name, taken)
