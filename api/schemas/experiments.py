"""The shapes of online experiments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.common import ResponseModel
from rag.assignment import Experiment
from rag.evaluation.arms import Difference
from rag.experiments import ExperimentResult


class ArmObject(ResponseModel):
    """An arm of the settings: its share of the users, and the prompt and the model that its answers get where they are
    not the usual ones."""

    name: str
    share: float
    prompt: str | None = Field(...)
    model: str | None = Field(...)


class ExperimentObject(ResponseModel):
    """An experiment of the settings."""

    name: str
    object: Literal["experiment"] = "experiment"
    arms: list[ArmObject]


class ExperimentList(ResponseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ExperimentObject]


class ShareObject(ResponseModel):
    """`number` of `of` cases; `value` is null of none."""

    number: int
    of: int
    value: float | None = Field(...)


class ArmResultObject(ResponseModel):
    """Of the requests of an arm, those that `failed`; of its answers, those that were `judged` by a thumb, those that
    `abstained`, and, of those whose sentences were looked at, the `ungrounded` ones; of the judged, the `positive`."""

    arm: str
    failed: ShareObject
    judged: ShareObject
    positive: ShareObject
    abstained: ShareObject
    ungrounded: ShareObject


class DifferenceObject(ResponseModel):
    """The share of `arm` less that of `compared_with`, and its 95 % interval (Newcombe)."""

    measure: str
    arm: str
    compared_with: str
    difference: float
    low: float
    high: float


class ExperimentResultObject(ResponseModel):
    """What an experiment has come to. `unit` says what is counted: each answer, as if independent of the others of its
    user. `running` is false for one that is not in the settings any more."""

    name: str
    object: Literal["experiment.result"] = "experiment.result"
    running: bool
    unit: Literal["answer"] = "answer"
    arms: list[ArmResultObject]
    differences: list[DifferenceObject]


def experiment_object(experiment: Experiment) -> ExperimentObject:
    """An experiment as it is sent."""
    arms = [ArmObject(name=name, **vars(arm)) for name, arm in experiment.arms.items()]
    return ExperimentObject(name=experiment.name, arms=arms)


def result_object(result: ExperimentResult) -> ExperimentResultObject:
    """What it has come to as it is sent."""
    return ExperimentResultObject(
        name=result.name,
        running=result.experiment is not None,
        arms=[ArmResultObject.model_validate(arm) for arm in result.arms],
        differences=[_difference(difference) for difference in result.differences],
    )


def _difference(found: Difference) -> DifferenceObject:
    return DifferenceObject(
        measure=found.measure,
        arm=found.arm,
        compared_with=found.compared_with,
        difference=found.difference,
        low=found.interval.low,
        high=found.interval.high,
    )
