"""Online experiments: which prompt and which model a user's questions get while one runs.

    [experiments.tone]
    salt = "november"
    [experiments.tone.arms.plain]
    share = 0.5
    [experiments.tone.arms.warm]
    share = 0.5
    prompt = "warm"

A user is in the same arm each time, by a hash of their id and the experiment's name and salt; the shares that are left
take no part. A request that names a prompt, or a model, is left alone by experiments with prompts, or with models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le, MaxLen, MinLen

from indexes.errors import ChangeRequest
from rag.aliases import read_table
from rag.models.registry import ModelRegistry
from rag.prompt import load_prompt

_Name = Annotated[str, MinLen(1), MaxLen(64)]
_SLACK = 1e-9
"""What shares that make up 1 on paper may miss it by."""


@dataclass(frozen=True)
class Arm:
    """One way of answering; what is None is as everywhere else."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    share: Annotated[float, Gt(0), Le(1)]
    """Of the users."""
    prompt: _Name | None = None
    model: _Name | None = None
    """An alias."""


@dataclass(frozen=True)
class Experiment:
    """Arms that users are spread over, in the order of the settings; the others are compared with the first."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    name: _Name
    arms: Annotated[dict[_Name, Arm], MinLen(2)]
    salt: str = ""
    """Another one spreads the users anew."""

    def varies(self, what: str) -> bool:
        """Whether its arms have a `prompt`, or a `model`, of their own."""
        return any(getattr(arm, what) is not None for arm in self.arms.values())

    def arm_of(self, user: str) -> str | None:
        """The arm of a user; None for those who take no part."""
        digest = hashlib.sha256(f"{self.name}\0{self.salt}\0{user}".encode("utf-8", "surrogatepass")).digest()
        place, end = int.from_bytes(digest[:8]) / 2**64, 0.0
        for name, arm in self.arms.items():
            end += arm.share
            if place < end:
                return name
        return None


@dataclass(frozen=True)
class Choice:
    """The prompt and the model that a question is answered with, None for the usual ones, and the arm of each
    experiment that it is a part of."""

    model: str | None
    prompt: str | None
    arms: Mapping[str, str] = field(default_factory=dict)


def read_experiments(
    tables: Mapping[str, Mapping[str, Any]], models: ModelRegistry, prompts: Path | None
) -> dict[str, Experiment]:
    """The experiments in the settings' `[experiments.NAME]`.

    Raises ChangeRequest (`invalid_settings`) for a table that is not right, for shares above 1 in all, for arms that do
    not differ, and for two experiments over the same thing, which could not be told apart; and what a model or a prompt
    that is not there raises.
    """
    found = {name: read_table("experiments", Experiment, name, table) for name, table in tables.items()}
    for name, experiment in found.items():
        if sum(arm.share for arm in experiment.arms.values()) > 1 + _SLACK:
            raise _invalid(name, "its shares are more than 1 in all")
        if not (experiment.varies("prompt") or experiment.varies("model")):
            raise _invalid(name, "no arm has a prompt or a model of its own")
        if name in {alias.name for alias in models.aliases()}:
            raise _invalid(name, "a model has the same name")
        for arm in experiment.arms.values():
            models.get(arm.model)
            if arm.prompt is not None:
                load_prompt(arm.prompt, [prompts] if prompts else [])
    for what in ("prompt", "model"):
        over = [name for name, experiment in found.items() if experiment.varies(what)]
        if len(over) > 1:
            raise _invalid(over[1], f"{over[0]!r} is over the {what} as well")
    return found


def choose(experiments: Mapping[str, Experiment], model: str | None, prompt: str | None, user: str | None) -> Choice:
    """What a request gets that names this model and this prompt (None for neither) and comes from this user.

    Its model may be an experiment's name, where a client has to name one: that asks for the model of the user's arm.
    Nobody takes part without an id.
    """
    asked = Choice(None if model in experiments else model, prompt)
    choice = asked
    for name, experiment in experiments.items():
        named = any(experiment.varies(what) and getattr(asked, what) is not None for what in ("prompt", "model"))
        arm = None if named or not user else experiment.arm_of(user)
        if arm is not None:
            chosen = experiment.arms[arm]
            choice = replace(
                choice,
                model=chosen.model or choice.model,
                prompt=chosen.prompt or choice.prompt,
                arms={**choice.arms, name: arm},
            )
    return choice


def _invalid(name: str, why: str) -> ChangeRequest:
    return ChangeRequest(
        f"The settings [experiments.{name}] are not valid: {why}. Correct the file.",
        code="invalid_settings",
        param=f"experiments.{name}",
    )
