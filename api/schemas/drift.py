"""The shapes of what is watched from day to day."""

from __future__ import annotations

from typing import Literal

from api.schemas.common import Name, RequestModel, ResponseModel


class SignalObject(ResponseModel):
    """One thing that is watched. `value` is the day's: a share, or an area in [0, 1] where 0.5 is no difference.
    `before` is the share on the days before, `interval` (95 %) that of the area or of the difference of the shares, `p`
    how often chance alone brings as much, `of` how many were compared, before and on the day. Null: too little to tell.
    """

    name: str
    value: float | None
    before: float | None
    interval: list[float] | None
    p: float | None
    of: list[int]
    alarm: bool


class CanaryReportObject(ResponseModel):
    """The canaries asked again: the share of their hits that is still found, questions whose first hit is gone, or that
    are not answered any more, the mean change of relevance, and the questions that lost most."""

    question_set: str
    questions: int
    overlap: float
    lost: int
    unanswered: int
    score_change: float
    worst: list[str]
    alarm: bool


class DriftDay(ResponseModel):
    """What a day (UTC) came to, against the days before it."""

    day: str
    counts: dict[str, int | list[int]]
    signals: list[SignalObject]
    canaries: CanaryReportObject | None
    alarms: list[str]


class CanariesObject(ResponseModel):
    """The questions that are asked again each day: a version of a question set."""

    question_set: str
    questions: int
    frozen_at: int


class DriftObject(ResponseModel):
    """Days, the newest first. `alarms` are those of the newest; `false_alarms` is the share of days without any change
    that give one, at most."""

    object: Literal["vector_store.drift"] = "vector_store.drift"
    vector_store_id: str
    canaries: CanariesObject | None
    false_alarms: float
    alarms: list[str]
    days: list[DriftDay]


class SetCanaries(RequestModel):
    """The question set, by id, by name or as name@version; null for none."""

    question_set: Name | None
