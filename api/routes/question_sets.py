"""Question sets, for administrators: what their questions repeat of documents, these see anyway."""

from __future__ import annotations

import json
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Query, Request
from starlette.responses import Response

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.common import ListOf, Name, list_of, paging
from api.schemas.evaluations import DeletedQuestionSet, FeedbackQuestions, QuestionSetObject, question_set_object
from rag import question_sets
from rag.catalog.records import PageRequest
from rag.evaluation.questions import DEV_SHARE, as_line

router = new_router(tags=["evaluations"])

MEDIA_TYPE = "application/jsonl"
DevShare = Annotated[float, Query(ge=0, le=1)]
_STRING = {"type": "string"}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": _STRING}}}}
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "One question a line.", "content": {MEDIA_TYPE: {"schema": _STRING}}}
}


@router.post("/v1/question_sets", openapi_extra=_BODY, dependencies=[requires("admin")])
async def create_question_set(
    request: Request, backend: OpenBackend, name: Annotated[Name, Query()], dev_share: DevShare = DEV_SHARE
) -> QuestionSetObject:
    """Keep questions, one JSON object a line, as a set; as its next version where there is one of this name."""
    body = await request.body()
    made = await anyio.to_thread.run_sync(question_sets.create, backend, name, body.split(b"\n"), dev_share)
    return question_set_object(made)


@router.get("/v1/question_sets", dependencies=[requires("admin")])
def list_question_sets(
    backend: OpenBackend, page: Annotated[PageRequest, Depends(paging)]
) -> ListOf[QuestionSetObject]:
    """Question sets in all their versions, newest first."""
    found = question_sets.list_sets(backend, page)
    return list_of(found, [one.public_id for one in found.rows], [question_set_object(one) for one in found.rows])


@router.get("/v1/question_sets/{question_set_id}", dependencies=[requires("admin")])
def get_question_set(question_set_id: str, backend: OpenBackend) -> QuestionSetObject:
    """One version, by its id or as name@version, or the newest one of a name."""
    return question_set_object(question_sets.find(backend, question_set_id))


@router.get(
    "/v1/question_sets/{question_set_id}/export",
    response_class=Response,
    responses=_LINES,
    dependencies=[requires("admin")],
)
def export_question_set(question_set_id: str, backend: OpenBackend) -> Response:
    """The questions of a version as JSON lines."""
    lines = question_sets.export(backend, question_sets.find(backend, question_set_id))
    return Response("".join(lines), media_type=MEDIA_TYPE)


@router.delete("/v1/question_sets/{question_set_id}", dependencies=[requires("admin")])
def delete_question_set(question_set_id: str, backend: OpenBackend) -> DeletedQuestionSet:
    """Forget a version with its questions. Its number is not given again."""
    return DeletedQuestionSet(id=question_sets.delete(backend, question_set_id).public_id)


@router.get("/v1/vector_stores/{vector_store_id}/feedback_questions", dependencies=[requires("admin")])
def list_feedback_questions(store: NamedStore, backend: OpenBackend) -> FeedbackQuestions:
    """Candidates for a question set out of what people thought of answers from this store."""
    found = question_sets.from_feedback(backend, store)
    return FeedbackQuestions(
        data=[json.loads(as_line(question)) for question in found.questions],
        without_text=found.without_text,
        without_thumb=found.without_thumb,
    )
