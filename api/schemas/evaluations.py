"""The shapes of question sets and evaluations."""

from __future__ import annotations

from typing import Any, Literal

from api.schemas.common import ResponseModel
from ingest.arms import EvaluationRequest
from ingest.evaluate import Result
from rag.catalog.evaluations import Evaluation, State
from rag.catalog.question_sets import QuestionSet


class QuestionSetObject(ResponseModel):
    """One version of a question set; it never changes. `size` is its number of questions, `dev_share` the share of
    those without a split of their own that fell into `dev`."""

    id: str
    object: Literal["question_set"] = "question_set"
    name: str
    version: int
    size: int
    dev_share: float
    created_at: int


class DeletedQuestionSet(ResponseModel):
    """A version that is gone, with its questions."""

    id: str
    object: Literal["question_set.deleted"] = "question_set.deleted"
    deleted: Literal[True] = True


class FeedbackQuestions(ResponseModel):
    """Candidates for a question set out of what people thought of answers, as lines of one. Of the judged answers,
    `without_text` have traces that hold no words (`traces.capture`), and of `without_thumb` nothing was said that is a
    thumb or a corrected answer."""

    object: Literal["question_set.candidates"] = "question_set.candidates"
    data: list[dict[str, Any]]
    without_text: int
    without_thumb: int


class EvaluationError(ResponseModel):
    """Why an evaluation failed."""

    code: str
    message: str


class EvaluationObject(ResponseModel):
    """A comparison of arms, and how far it is."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    status: State
    request: EvaluationRequest
    questions: int
    questions_done: int
    result: Result | None
    error: EvaluationError | None
    created_at: int
    ended_at: int | None


class DeletedEvaluation(ResponseModel):
    """An evaluation that is gone; if it was running, it stops."""

    id: str
    object: Literal["evaluation.deleted"] = "evaluation.deleted"
    deleted: Literal[True] = True


def question_set_object(found: QuestionSet) -> QuestionSetObject:
    """A version as it is sent."""
    told = ("name", "version", "size", "dev_share", "created_at")
    return QuestionSetObject(id=found.public_id, **{name: getattr(found, name) for name in told})


def evaluation_object(found: Evaluation) -> EvaluationObject:
    """An evaluation as it is sent."""
    error = {"code": found.error_code, "message": found.error_message} if found.error_code else None
    return EvaluationObject.model_validate(
        {
            "id": found.public_id,
            "status": found.state,
            "request": found.request,
            "questions": found.total,
            "questions_done": found.done,
            "result": found.result,
            "error": error,
            "created_at": found.created_at,
            "ended_at": found.ended_at,
        }
    )
