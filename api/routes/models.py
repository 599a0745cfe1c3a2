"""The language models and the embedders that may be named in a request."""

from __future__ import annotations

from typing import Literal

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import IfAny, ResponseModel
from indexes.errors import ChangeRequest, NotThere, Unsupported
from rag.backend import Backend
from rag.embedders import EmbedderSpec
from rag.models import ModelAlias

router = new_router(tags=["models"])


class ModelObject(ResponseModel):
    """OpenAI's model object; what kind of model it is, and a language model's limits in tokens."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    shutdown_date: str | None = None
    kind: Literal["language_model", "embedder"]
    context_window: IfAny[int] = None
    max_output_tokens: IfAny[int] = None


class ModelList(ResponseModel):
    """All of them, language models first."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class DeletedModel(ResponseModel):
    """What OpenAI answers for a model that was deleted; models of the settings are not."""

    id: str
    object: str = "model"
    deleted: bool


@router.get("/v1/models", dependencies=[requires("query", "ingest")])
def list_models(backend: OpenBackend) -> ModelList:
    """The aliases of language models and of embedders. A name that both have is the language model's."""
    aliases = backend.models.aliases()
    taken = {alias.name for alias in aliases}
    embedders = [backend.embedders.spec(name) for name in backend.embedders.names() if name not in taken]
    return ModelList(data=[*map(_language_model, aliases), *map(_embedder, embedders)])


@router.get("/v1/models/{model}", dependencies=[requires("query", "ingest")])
def get_model(model: str, backend: OpenBackend) -> ModelObject:
    """One of them."""
    return _find(backend, model)


@router.delete("/v1/models/{model}", dependencies=[requires("admin")])
def delete_model(model: str, backend: OpenBackend) -> DeletedModel:
    """Refused: the models stand in the settings."""
    found = _find(backend, model)
    raise ChangeRequest(
        f"The model {found.id!r} stands in the server's settings: it is taken out there.",
        code="model_not_deletable",
        param="model",
    )


def _find(backend: Backend, name: str) -> ModelObject:
    try:
        return _language_model(backend.models.get(name))
    except NotThere as error:
        try:
            return _embedder(backend.embedders.spec(name))
        except Unsupported:
            raise error from None


def _language_model(alias: ModelAlias) -> ModelObject:
    return ModelObject(
        id=alias.name,
        owned_by=alias.provider,
        kind="language_model",
        context_window=alias.window,
        max_output_tokens=alias.output_limit,
    )


def _embedder(spec: EmbedderSpec) -> ModelObject:
    return ModelObject(id=spec.name, owned_by=spec.provider, kind="embedder")
