"""Traces, and feedback to what they tell of."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from api.dependencies import OpenBackend, new_router, requires
from api.schemas.traces import FeedbackObject, FeedbackRequest, TraceObject
from rag.catalog.traces import Feedback
from rag.traces import find_trace, give_feedback

router = new_router(tags=["traces"])


@router.get("/v1/traces/{trace_id}", dependencies=[requires("query")])
def get_trace(trace_id: str, backend: OpenBackend) -> TraceObject:
    """How an answer came about, and what was thought of it."""
    trace, feedback = find_trace(backend, trace_id)
    return TraceObject(
        id=trace.public_id,
        created_at=trace.created_at,
        tenant=backend.caller.tenant,
        feedback=[_feedback_object(trace_id, one) for one in feedback],
        **trace.body,
    )


@router.post("/v1/feedback", dependencies=[requires("query")])
def create_feedback(
    body: FeedbackRequest,
    backend: OpenBackend,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=256)] = None,
) -> FeedbackObject:
    """Say what you think of an answer."""
    given = body.model_dump(exclude={"trace_id", "idempotency_key"}, exclude_none=True)
    return _feedback_object(
        body.trace_id, give_feedback(backend, body.trace_id, given, body.idempotency_key or idempotency_key)
    )


def _feedback_object(trace_id: str, feedback: Feedback) -> FeedbackObject:
    return FeedbackObject(
        id=feedback.public_id, created_at=feedback.created_at, trace_id=trace_id, **dict(feedback.body)
    )
