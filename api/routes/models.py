"""The language models that may be named in a request."""

from __future__ import annotations

from typing import Literal

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import ResponseModel
from rag.models import ModelAlias

router = new_router(tags=["models"])


class ModelObject(ResponseModel):
    """OpenAI's model object, and the alias's limits in tokens."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    context_window: int
    max_output_tokens: int


class ModelList(ResponseModel):
    """All aliases."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


@router.get("/v1/models", dependencies=[requires("query", "ingest")])
def list_models(backend: OpenBackend) -> ModelList:
    """The aliases of the registry."""
    return ModelList(data=[_model_object(alias) for alias in backend.models.aliases()])


@router.get("/v1/models/{model}", dependencies=[requires("query", "ingest")])
def get_model(model: str, backend: OpenBackend) -> ModelObject:
    """One alias."""
    return _model_object(backend.models.get(model))


def _model_object(alias: ModelAlias) -> ModelObject:
    return ModelObject(
        id=alias.name,
        owned_by=alias.provider,
        context_window=alias.window,
        max_output_tokens=alias.output_limit,
    )
