"""The gate before a promotion: whether a comparison on one's own questions says that the candidate may go live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rag.evaluation.comparing import Difference
from rag.settings import GateSettings

Reason = Literal["off", "passed", "not_measured", "too_few_questions", "not_better"]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, and why."""

    passed: bool
    reason: Reason
    message: str


def verdict(gate: GateSettings, measured: Difference | None) -> Verdict:
    """What the gate says; `measured` is the candidate's difference to what is live, in the gate's metric.

    It passes where the whole interval of the difference is at `margin` or beyond, in the direction that is better: 0
    asks for no loss that the questions could show, a margin above 0 for so much of a gain, one below 0 allows so much
    of a loss.
    """
    if gate.metric is None:
        return Verdict(True, "off", "The gate is off: gate.metric is not set.")
    if measured is None or measured.interval is None:
        return Verdict(False, "not_measured", f"There is no comparison in {gate.metric}.")
    if measured.n < gate.minimum_n:
        message = f"{gate.metric} was compared on {measured.n} questions; gate.minimum_n is {gate.minimum_n}."
        return Verdict(False, "too_few_questions", message)
    worst = -measured.interval.high if measured.lower_is_better else measured.interval.low
    shown = (
        f"{gate.metric} changes by {measured.difference:+.4f} ({measured.interval.low:+.4f} to "
        f"{measured.interval.high:+.4f}, n = {measured.n}); gate.margin is {gate.margin:+g}."
    )
    return Verdict(True, "passed", shown) if worst >= gate.margin else Verdict(False, "not_better", shown)
