"""Evaluations, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.common import ListOf, list_of, paging
from api.schemas.evaluations import DeletedEvaluation, EvaluationObject, evaluation_object
from ingest import evaluations
from ingest.arms import EvaluationRequest
from rag.catalog.records import PageRequest

router = new_router(tags=["evaluations"])


@router.post("/v1/evaluations", dependencies=[requires("admin")])
def create_evaluation(body: EvaluationRequest, backend: OpenBackend) -> EvaluationObject:
    """Queue a comparison of arms over a question set. Ask for it until its `status` is `completed` or `failed`."""
    return evaluation_object(evaluations.submit(backend, body))


@router.get("/v1/evaluations", dependencies=[requires("admin")])
def list_evaluations(backend: OpenBackend, page: Annotated[PageRequest, Depends(paging)]) -> ListOf[EvaluationObject]:
    """Evaluations, newest first."""
    found = evaluations.list_evaluations(backend, page)
    return list_of(found, [one.public_id for one in found.rows], [evaluation_object(one) for one in found.rows])


@router.get("/v1/evaluations/{evaluation_id}", dependencies=[requires("admin")])
def get_evaluation(evaluation_id: str, backend: OpenBackend) -> EvaluationObject:
    """One evaluation, with its result once there is one."""
    return evaluation_object(evaluations.find(backend, evaluation_id))


@router.delete("/v1/evaluations/{evaluation_id}", dependencies=[requires("admin")])
def delete_evaluation(evaluation_id: str, backend: OpenBackend) -> DeletedEvaluation:
    """Forget an evaluation; one that is running stops."""
    return DeletedEvaluation(id=evaluations.delete(backend, evaluation_id).public_id)
