"""What the arms of an A/B test have come to, and what their differences are worth.

Every answer counts as one case, independent of the others. Where a few users ask much, the intervals are too narrow
and p is too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag.evaluation.statistics import Interval, two_proportions, two_proportions_p


@dataclass(frozen=True)
class Outcome:
    """How one answer went."""

    arm: str
    failed: bool
    """There was none."""
    abstained: bool
    """It said that it stands on nothing."""
    ungrounded: bool | None
    """Whether a sentence of it does not stand on what it cites; None where nobody looked."""
    thumbs: tuple[bool, ...] = ()
    """Up or down, each time that a person said so."""


@dataclass(frozen=True)
class Share:
    """So many of so many cases."""

    number: int
    of: int

    @property
    def value(self) -> float | None:
        """In [0, 1]; None of no cases."""
        return self.number / self.of if self.of else None


@dataclass(frozen=True)
class ArmResult:
    """One arm. `positive` are the judged answers that nobody put a thumb down for."""

    name: str
    failed: Share
    judged: Share
    positive: Share
    abstained: Share
    ungrounded: Share


MEASURES = ("failed", "judged", "positive", "abstained", "ungrounded")


@dataclass(frozen=True)
class Difference:
    """An arm's share less that of the arm it is compared with, the 95 % interval of that, and the probability of one
    at least as large by chance."""

    measure: str
    arm: str
    compared_with: str
    difference: float
    interval: Interval
    p: float


def arm_results(outcomes: Iterable[Outcome], arms: Sequence[str]) -> list[ArmResult]:
    """The result of each of these arms, in order."""
    found: dict[str, list[Outcome]] = {arm: [] for arm in arms}
    for outcome in outcomes:
        found[outcome.arm].append(outcome)
    return [_result(arm, some) for arm, some in found.items()]


def differences(results: Sequence[ArmResult]) -> list[Difference]:
    """Each arm compared with the first, by each measure for which both have cases."""
    first, *others = results
    return [
        _difference(measure, other, first)
        for other in others
        for measure in MEASURES
        if getattr(first, measure).of and getattr(other, measure).of
    ]


def _result(arm: str, outcomes: Sequence[Outcome]) -> ArmResult:
    answers = [outcome for outcome in outcomes if not outcome.failed]
    judged = [outcome for outcome in answers if outcome.thumbs]
    checked = [outcome for outcome in answers if outcome.ungrounded is not None]
    return ArmResult(
        arm,
        failed=Share(len(outcomes) - len(answers), len(outcomes)),
        judged=Share(len(judged), len(answers)),
        positive=Share(sum(all(outcome.thumbs) for outcome in judged), len(judged)),
        abstained=Share(sum(outcome.abstained for outcome in answers), len(answers)),
        ungrounded=Share(sum(bool(outcome.ungrounded) for outcome in checked), len(checked)),
    )


def _difference(measure: str, arm: ArmResult, other: ArmResult) -> Difference:
    a, b = getattr(other, measure), getattr(arm, measure)
    counts = a.number, a.of, b.number, b.of
    return Difference(
        measure, arm.name, other.name, b.value - a.value, two_proportions(*counts), two_proportions_p(*counts)
    )
