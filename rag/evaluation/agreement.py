"""How far verdicts agree with what people said."""

from __future__ import annotations

from collections.abc import Sequence


def macro_f1(labels: Sequence[bool], verdicts: Sequence[bool]) -> float:
    """The mean of both classes' F1, in [0, 1]; a class that neither side names counts 0.

    >>> macro_f1([True, True, False, False], [True, False, False, False])
    0.7333333333333334
    """
    scores = []
    for wanted in (True, False):
        both = sum(label == verdict == wanted for label, verdict in zip(labels, verdicts, strict=True))
        scores.append(2 * both / max(list(labels).count(wanted) + list(verdicts).count(wanted), 1))
    return sum(scores) / 2


def kappa(labels: Sequence[bool], verdicts: Sequence[bool]) -> float | None:
    """Cohen's kappa: 1 for full agreement, 0 for as much as chance would bring; None where chance alone agrees fully.

    Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.

    >>> kappa([True, True, False, False], [True, False, False, False])
    0.5
    """
    number = len(labels)
    if not number:
        return None
    agreed = sum(label == verdict for label, verdict in zip(labels, verdicts, strict=True)) / number
    yes, said = sum(labels) / number, sum(verdicts) / number
    by_chance = yes * said + (1 - yes) * (1 - said)
    return None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
