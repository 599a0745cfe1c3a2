"""Online experiments: what users get, and what comes of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.experiments import (
    ExperimentList,
    ExperimentResultObject,
    experiment_object,
    result_object,
)
from rag.experiments import result_of

router = new_router(tags=["experiments"])


@router.get("/v1/experiments", dependencies=[requires("admin")])
def list_experiments(backend: OpenBackend) -> ExperimentList:
    """The experiments of the settings."""
    return ExperimentList(data=[experiment_object(one) for one in backend.experiments.values()])


@router.get("/v1/experiments/{name}", dependencies=[requires("admin")])
def get_experiment(
    name: str, backend: OpenBackend, since: Annotated[int, Query(ge=0, le=2**53)] = 0
) -> ExperimentResultObject:
    """What an experiment has come to, out of the traces that are kept, or of those since a second of 1970."""
    return result_object(result_of(backend, name, since))
