"""Evaluations that wait in the catalog: queued here, and carried out one after the other by who runs the jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import TypeAdapter

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater
from ingest.arms import Arm, EvaluationRequest
from ingest.evaluate import Plan, Result, result_of, run
from rag import question_sets
from rag.access import Caller
from rag.backend import Backend
from rag.catalog import evaluations
from rag.catalog.evaluations import Evaluation
from rag.catalog.question_sets import QuestionSet
from rag.catalog.records import Page, PageRequest, Store
from rag.evaluation.questions import Question
from rag.evaluation.rankings import measure
from rag.prompt import load_prompt

CRASHES = 3
"""Times that an evaluation may be interrupted by a crash before it fails."""
TELL_EVERY = 1.0
"""Seconds between two notes of progress."""
RESULT: TypeAdapter[Result] = TypeAdapter(Result)

log = logging.getLogger(__name__)


def submit(backend: Backend, request: EvaluationRequest) -> Evaluation:
    """Queue an evaluation. Raises NotThere, ChangeRequest or Unsupported for whatever it names that is not there, and
    ChangeRequest (`empty_question_set`) where the split holds no question."""
    store = backend.find_store(request.vector_store_id)
    over = list(_stores_of(backend, request))
    question_set = question_sets.find(backend, request.question_set)
    total = len(_questions(backend, question_set, request))
    measure({}, {}, request.measures)
    folders = [backend.settings.prompts] if backend.settings.prompts else []
    for arm, _ in over:
        load_prompt(arm.prompt or backend.models.get(arm.model).prompt, folders)
    # What the names stand for now, and the generations that are live, whatever comes until it is carried out.
    arms = [_as_it_is_now(backend, arm, one) for arm, one in over]
    named = {"question_set": question_set.public_id, "vector_store_id": store.public_id, "arms": arms}
    fixed = request.model_copy(update=named)
    with backend.database.write() as connection:
        return evaluations.add_evaluation(
            connection, backend.caller.tenant, [one.id for _, one in over], fixed.model_dump(), total
        )


def find(backend: Backend, public_id: str) -> Evaluation:
    """An evaluation as it stands. Raises NotThere."""
    with backend.database.read() as connection:
        return evaluations.get_evaluation(connection, backend.caller.tenant, public_id)


def list_evaluations(backend: Backend, page: PageRequest) -> Page[Evaluation]:
    """All evaluations, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return evaluations.list_evaluations(connection, backend.caller.tenant, page)


def delete(backend: Backend, public_id: str) -> Evaluation:
    """Forget an evaluation; whoever is at it stops. Raises NotThere."""
    with backend.database.write() as connection:
        found = evaluations.get_evaluation(connection, backend.caller.tenant, public_id)
        evaluations.delete_evaluation(connection, found)
        return found


def step(backend: Backend, worker: int, stopping: Callable[[], bool] = lambda: False) -> bool:
    """Carry out the evaluation that has waited longest. False when none waits, or `stopping` says so.

    One that is interrupted is begun anew by whoever comes next: always where `stopping` said so, a few times after a
    crash. (A worker does one at a time, so what it still has was interrupted.) One that was deleted or taken over
    meanwhile is dropped. Every other end is `completed` or `failed`.
    """
    with backend.database.read() as connection:
        if not evaluations.anything_waiting(connection, worker):
            return False
    with backend.database.write() as connection:
        evaluation = evaluations.claim(connection, worker)
    if evaluation is None:
        return False
    end: dict[str, Any]
    try:
        result = _carry_out(backend.for_caller(Caller(evaluation.tenant)), evaluation, stopping)
        end = {"state": "completed", "result": RESULT.dump_python(result, mode="json"), "done": evaluation.total}
    except _Stopped:
        end = {"state": "queued"}
    except _Dropped:
        return True
    except Exception as error:  # noqa: BLE001 - the queue goes on, whatever an evaluation meets
        end = _failure(evaluation, error)
    with backend.database.write() as connection:
        evaluations.advance(connection, evaluation, **end)
    return not stopping()


class _Stopped(Exception):
    """An evaluation goes on later."""


class _Dropped(Exception):
    """An evaluation goes on elsewhere, or never."""


def _carry_out(backend: Backend, evaluation: Evaluation, stopping: Callable[[], bool]) -> Result:
    if evaluation.crashes >= CRASHES:
        raise TryLater("The server stopped several times while it was at this evaluation.", code="server_error")
    request = EvaluationRequest.model_validate(evaluation.request)
    question_set = question_sets.find(backend, request.question_set)
    questions = _questions(backend, question_set, request)
    told = time.monotonic()

    def progress(done: int, _total: int) -> None:
        nonlocal told
        if stopping():
            raise _Stopped
        if time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            with backend.database.write(shared=True) as connection:
                if not evaluations.advance(connection, evaluation, done=done):
                    raise _Dropped

    plan = Plan(request.measures, answers=request.answers)
    outcomes = run(backend, questions, list(_stores_of(backend, request)), plan, progress)
    return result_of(backend, questions, outcomes, gated=_is_the_gates(backend, question_set))


def _is_the_gates(backend: Backend, question_set: QuestionSet) -> bool:
    """Whether the gate goes by these questions: it names none, or this version."""
    name = backend.settings.gate.question_set
    try:
        return name is None or question_sets.find(backend, name) == question_set
    except NotThere:
        return False


def _failure(evaluation: Evaluation, error: Exception) -> dict[str, Any]:
    if isinstance(error, RagError):
        return {"state": "failed", "error_code": error.code[:32], "error_message": error.message[:2000]}
    log.error("the evaluation %s failed", evaluation.public_id, exc_info=error)
    message = "It failed unexpectedly; the server's log says more."
    return {"state": "failed", "error_code": "server_error", "error_message": message}


def _stores_of(backend: Backend, request: EvaluationRequest) -> Iterator[tuple[Arm, Store]]:
    for arm in request.arms:
        yield arm, backend.find_store(arm.vector_store_id or request.vector_store_id)


def _as_it_is_now(backend: Backend, arm: Arm, store: Store) -> Arm:
    """Raises NotThere, and ChangeRequest (`generation_not_searchable`)."""
    ((_, generation, _),) = backend.generations_for([store], arm.generation)
    return arm.model_copy(update={"vector_store_id": store.public_id, "generation": generation.public_id})


def _questions(backend: Backend, question_set: QuestionSet, request: EvaluationRequest) -> list[Question]:
    """Those that anything is known of."""
    found = [one for one in question_sets.read(backend, question_set, request.split) if one.judged]
    if not found:
        raise ChangeRequest(
            f"The question set {question_set.name!r} has no judged question in its split {request.split!r}.",
            code="empty_question_set",
            param="split",
        )
    return found
