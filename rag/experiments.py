"""What online experiments there are, and what each has come to so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexes.errors import NotThere
from rag.assignment import Experiment
from rag.backend import Backend
from rag.catalog.trace_arms import outcomes_of
from rag.evaluation.arms import ArmResult, Difference, arm_results, differences


@dataclass(frozen=True)
class ExperimentResult:
    """The arms in the order of the settings, those that are no longer there last, and the differences of the others to
    the first. `experiment` is None for one that is not in the settings any more."""

    name: str
    experiment: Experiment | None
    arms: Sequence[ArmResult]
    differences: Sequence[Difference]


def result_of(backend: Backend, name: str, since: int = 0) -> ExperimentResult:
    """What the traces tell of an experiment since a second of 1970. Raises NotThere (`experiment_not_found`)."""
    backend.traces.flush()
    experiment = backend.experiments.get(name)
    with backend.database.read() as connection:
        outcomes = outcomes_of(connection, backend.caller, name, since)
    if experiment is None and not outcomes:
        known = ", ".join(backend.experiments) or "none"
        raise NotThere(f"There is no experiment {name!r}. Known: {known}.", code="experiment_not_found", param="name")
    named = [] if experiment is None else list(experiment.arms)
    arms = [*named, *sorted({outcome.arm for outcome in outcomes} - set(named))]
    results = arm_results(outcomes, arms)
    return ExperimentResult(name, experiment, results, differences(results))
