"""The shapes of Dify's external knowledge interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.common import Identifier, RequestModel, ResponseModel
from api.schemas.search import Query
from indexes.errors import ChangeRequest
from rag.context import Candidate

Operator = Literal[
    "contains",
    "not contains",
    "start with",
    "end with",
    "is",
    "is not",
    "in",
    "not in",
    "empty",
    "not empty",
    "=",
    "≠",
    ">",
    "<",
    "≥",
    "≤",
    "before",
    "after",
]
Text = Annotated[str, Field(max_length=512)]
COMPARISONS: Mapping[Operator, str] = {
    "is": "eq",
    "is not": "ne",
    "in": "in",
    "not in": "nin",
    "=": "eq",
    "≠": "ne",
    ">": "gt",
    "<": "lt",
    "≥": "gte",
    "≤": "lte",
    "before": "lt",
    "after": "gt",
}
"""Dify's operators and what filters here call them; the others look into texts, which filters do not."""
NUMERIC = ("=", "≠", ">", "<", "≥", "≤")
"""Operators whose value is a number, which Dify may send as a text."""


class RetrievalSetting(RequestModel):
    """`score_threshold` is a relevance; Dify sends 0 where it is off."""

    top_k: int = Field(ge=1, le=50)
    score_threshold: float | None = Field(default=None, ge=0, le=1)


class Condition(RequestModel):
    """One attribute against a value."""

    name: Identifier | Annotated[list[Identifier], Field(min_length=1, max_length=1)]
    comparison_operator: Operator
    value: Text | float | Annotated[list[Text], Field(max_length=100)] | None = None


class MetadataCondition(RequestModel):
    """All of the conditions, or any."""

    logical_operator: Literal["and", "or"] | None = "and"
    conditions: Annotated[list[Condition], Field(max_length=100)] | None = None


class RetrievalRequest(RequestModel):
    """`knowledge_id` is a store's id or unique name."""

    knowledge_id: Identifier
    query: Query
    retrieval_setting: RetrievalSetting
    metadata_condition: MetadataCondition | None = None


class Record(ResponseModel):
    """A chunk; `score` is its relevance. Attributes stand in the metadata, but never in place of what is ours."""

    content: str
    score: float
    title: str
    metadata: dict[str, Any]


class Records(ResponseModel):
    """What was found, best first."""

    records: list[Record]


def filter_of(condition: MetadataCondition | None) -> dict[str, Any] | None:
    """The filter that a condition stands for, None for no condition.

    Raises ChangeRequest (`invalid_condition`) that names the place.
    """
    if condition is None or not condition.conditions:
        return None
    parts = [_comparison(f"metadata_condition.conditions.{at}", c) for at, c in enumerate(condition.conditions)]
    return {"type": condition.logical_operator or "and", "filters": parts}


def record_of(candidate: Candidate) -> Record:
    """A candidate as Dify takes it."""
    ours = {
        "file_id": candidate.file_id,
        "filename": candidate.filename,
        "document_id": candidate.document_id,
        "version_id": candidate.version_id,
        "start": candidate.start,
        "end": candidate.end,
        "page": candidate.page,
        "heading_path": list(candidate.heading_path),
    }
    return Record(
        content=candidate.text,
        score=candidate.relevance,
        title=candidate.title or candidate.filename,
        metadata=dict(candidate.attributes) | ours,
    )


def _comparison(place: str, condition: Condition) -> dict[str, Any]:
    operator = condition.comparison_operator
    if operator not in COMPARISONS:
        raise ChangeRequest(
            f"{operator!r} cannot be asked here: filters compare whole values. Use one of {', '.join(COMPARISONS)}.",
            code="invalid_condition",
            param=f"{place}.comparison_operator",
        )
    name = condition.name if isinstance(condition.name, str) else condition.name[0]
    return {"type": COMPARISONS[operator], "key": name, "value": _value(place, condition)}


def _value(place: str, condition: Condition) -> Any:
    operator, value = condition.comparison_operator, condition.value
    if operator in NUMERIC and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    fits = isinstance(value, list) if operator in ("in", "not in") else isinstance(value, str | float | int)
    if not fits or (operator in NUMERIC and isinstance(value, str)):
        raise ChangeRequest(
            f"The operator {operator!r} does not take the value {value!r}.",
            code="invalid_condition",
            param=f"{place}.value",
        )
    return value
