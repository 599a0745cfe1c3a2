"""The shapes of A/B tests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import Identifier, Key, Name, RequestModel, ResponseModel
from rag.ab_tests import Report
from rag.catalog.ab_tests import ABTest, Arm
from rag.evaluation.outcomes import Difference


class ArmRequest(RequestModel):
    """One way of answering for a `share` of the users. A `prompt` or a `model` (an alias) that is left out is as
    without the test."""

    name: Key
    share: float = Field(gt=0, le=1)
    prompt: Identifier | None = None
    model: Identifier | None = None


class CreateABTest(RequestModel):
    """An A/B test. Its first arm is how it is now: the others are compared with it. The shares are 1 in all."""

    name: Name
    arms: Annotated[list[ArmRequest], Field(min_length=2, max_length=16)]


class ArmObject(ResponseModel):
    """An arm, as in the request."""

    name: str
    share: float
    prompt: str | None = Field(...)
    model: str | None = Field(...)


class ABTestObject(ResponseModel):
    """An A/B test. It runs until it is ended."""

    id: str
    object: Literal["ab_test"] = "ab_test"
    name: str
    status: Literal["running", "ended"]
    arms: list[ArmObject]
    created_at: int
    ended_at: int | None


class DeletedABTest(ResponseModel):
    """An A/B test that is gone, with what it had come to."""

    id: str
    object: Literal["ab_test.deleted"] = "ab_test.deleted"
    deleted: Literal[True] = True


class ShareObject(ResponseModel):
    """`number` of `of` cases; `value` is null of none."""

    number: int
    of: int
    value: float | None = Field(...)


class ArmResultObject(ResponseModel):
    """Of the questions of an arm, those that `failed`; of its answers, those that people `judged` by a thumb, those
    that `abstained`, and, of those whose sentences were looked at, those with an `ungrounded` one; of the judged, the
    `positive`."""

    name: str
    failed: ShareObject
    judged: ShareObject
    positive: ShareObject
    abstained: ShareObject
    ungrounded: ShareObject


class DifferenceObject(ResponseModel):
    """The share of `arm` less that of `compared_with`, its 95 % interval from `low` to `high` (Newcombe), and `p`, the
    probability of a difference at least as large by chance (chi-squared)."""

    measure: str
    arm: str
    compared_with: str
    difference: float
    low: float
    high: float
    p: float


class ABTestReport(ResponseModel):
    """What an A/B test has come to since a second of 1970. `unit` says what is counted: each answer, as if independent
    of the others of its user, so that where few users ask much, the intervals are too narrow."""

    object: Literal["ab_test.report"] = "ab_test.report"
    test: ABTestObject
    since: int
    unit: Literal["answer"] = "answer"
    arms: list[ArmResultObject]
    differences: list[DifferenceObject]


def arms_of(body: CreateABTest) -> list[Arm]:
    """The arms of a request."""
    return [Arm(**arm.model_dump()) for arm in body.arms]


def ab_test_object(test: ABTest) -> ABTestObject:
    """A test as it is sent."""
    return ABTestObject(
        id=test.public_id,
        name=test.name,
        status="running" if test.ended_at is None else "ended",
        arms=[ArmObject.model_validate(arm) for arm in test.arms],
        created_at=test.created_at,
        ended_at=test.ended_at,
    )


def report_object(report: Report) -> ABTestReport:
    """A report as it is sent."""
    return ABTestReport(
        test=ab_test_object(report.test),
        since=report.since,
        arms=[ArmResultObject.model_validate(arm) for arm in report.arms],
        differences=[_difference(found) for found in report.differences],
    )


def _difference(found: Difference) -> DifferenceObject:
    told = {name: getattr(found, name) for name in ("measure", "arm", "compared_with", "difference", "p")}
    return DifferenceObject(low=found.interval.low, high=found.interval.high, **told)
