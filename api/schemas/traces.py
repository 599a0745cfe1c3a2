"""The shapes of traces and feedback."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from api.schemas.chat import GroundednessObject
from api.schemas.common import Identifier, LongText, Name, NoNul, RequestModel, ResponseModel

Source = Literal["human", "llm_judge", "code"]


class FeedbackRequest(RequestModel):
    """What somebody, or something, thinks of an answer: a `value` or a `label` under a name, or the answer that it
    should have been."""

    trace_id: Identifier
    name: Name
    value: Annotated[float, Field(allow_inf_nan=False)] | bool | None = None
    label: Annotated[str, StringConstraints(min_length=1, max_length=256), NoNul] | None = None
    comment: LongText | None = None
    corrected_answer: Annotated[LongText, StringConstraints(min_length=1)] | None = None
    source: Source = "human"
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=256), NoNul] | None = None
    """The same key makes the same feedback once, however often it is sent; also as the header `Idempotency-Key`."""

    @model_validator(mode="after")
    def _one_of_them(self) -> FeedbackRequest:
        judged = (self.value is not None) + (self.label is not None)
        if judged > 1 or (not judged and self.corrected_answer is None):
            raise ValueError("send either 'value' or 'label', or a 'corrected_answer'")
        return self


class FeedbackObject(ResponseModel):
    """Feedback as it is kept."""

    id: str
    object: Literal["feedback"] = "feedback"
    created_at: int
    trace_id: str
    name: str
    value: bool | float | None = None
    label: str | None = None
    comment: str | None = None
    corrected_answer: str | None = None
    source: Source


class WordsObject(ResponseModel):
    """A text by its SHA-256; itself only where `traces.capture` is set."""

    sha256: str
    characters: int
    text: str | None


class TraceObject(ResponseModel):
    """How an answer came about. Scores are as in a search, times in milliseconds; `retrieved` has every candidate with
    its rank, its scores, and what became of it and why."""

    id: str
    object: Literal["trace"] = "trace"
    created_at: int
    tenant: str
    kind: Literal["context", "chat.completion", "response"]
    otel_trace_id: str | None = None
    """Of OpenTelemetry's trace that it is a part of."""
    model: str
    ab_tests: dict[str, str] | None = None
    """The arm of each A/B test that it was a part of, by the test's id."""
    prompt: dict[str, str]
    generations: list[dict[str, Any]]
    query: WordsObject
    retrieved: list[dict[str, Any]]
    grounded: bool
    tokens: dict[str, int | None]
    answer: WordsObject | None
    finish_reason: str | None
    citations: list[dict[str, Any]]
    removed_markers: int
    groundedness: GroundednessObject | None = None
    """Of an answer that claims something in words."""
    error: str | None
    timings_ms: dict[str, float]
    feedback: list[FeedbackObject]
