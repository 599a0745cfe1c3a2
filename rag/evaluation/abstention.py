"""When to say that nothing was found: how well a threshold tells questions that can be answered from others.

A question's score is the relevance of its best hit, which is what the product goes by (`rag.relevance`,
`retrieval.min_relevance`): below the threshold it abstains. A threshold is chosen on one half of the questions and
reported on the other, or it flatters itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag.evaluation.shares import wilson


@dataclass(frozen=True)
class Asked:
    """One question with its outcome."""

    score: float
    """The relevance of its best hit, in [0, 1]; 0 without any."""
    answerable: bool
    right: bool
    """Whether an answer would be right: it can be answered, and what answers it was found."""


@dataclass(frozen=True)
class Gate:
    """What a threshold does. Shares in [0, 1], None of nothing."""

    threshold: float
    recall: float | None
    """Of the questions that cannot be answered, the share that is not."""
    false_abstention: float | None
    """Of those that can be answered, the share that is not."""
    coverage: float | None
    """The share of all questions that is answered."""
    accuracy: float | None
    """Of those answered, the share that is answered rightly."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, four decimals."""
        return {name: None if value is None else round(value, 4) for name, value in asdict(self).items()}


def gate(asked: Sequence[Asked], threshold: float) -> Gate:
    """What this threshold does to these questions: those with a score below it are not answered."""
    answered = [one for one in asked if one.score >= threshold]
    can, cannot = _split(asked)
    return Gate(
        threshold=threshold,
        recall=_share(sum(one.score < threshold for one in cannot), len(cannot)),
        false_abstention=_share(sum(one.score < threshold for one in can), len(can)),
        coverage=_share(len(answered), len(asked)),
        accuracy=_share(sum(one.right for one in answered), len(answered)),
    )


def curve(asked: Sequence[Asked], points: int = 41) -> list[Gate]:
    """The gate at evenly spaced thresholds from 0 to 1: coverage falls, accuracy should rise."""
    return [gate(asked, at / (points - 1)) for at in range(points)]


def choose(asked: Sequence[Asked], most: float = 0.05) -> float:
    """The highest threshold, in hundredths, at which at most this share of the answerable questions is not answered.

    It catches the most of what cannot be answered at that price. 0 where every other costs more.
    """
    return max(at / 100 for at in range(101) if at == 0 or (gate(asked, at / 100).false_abstention or 0.0) <= most)


def area(asked: Sequence[Asked]) -> float | None:
    """The chance that a question that can be answered scores above one that cannot, ties counting half; the area under
    the ROC curve. None where there are none of either."""
    can, cannot = ([one.score for one in some] for some in _split(asked))
    if not can or not cannot:
        return None
    ranked = sorted([(score, True) for score in can] + [(score, False) for score in cannot])
    total, below, at = 0.0, 0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        good = sum(answerable for _, answerable in ranked[at:end])
        total += good * (below + (end - at - good) / 2)
        below += end - at - good
        at = end
    return total / (len(can) * len(cannot))


def report(chosen_on: Sequence[Asked], judged_on: Sequence[Asked], most: float = 0.05) -> dict[str, Any]:
    """A threshold chosen on one set, what it does on the other with 95 % intervals, and the curve there."""
    threshold = choose(chosen_on, most)
    can, cannot = _split(judged_on)
    caught, lost = (sum(one.score < threshold for one in some) for some in (cannot, can))
    roc = area(judged_on)
    return {
        "threshold": threshold,
        "chosen_on": len(chosen_on),
        "answerable": len(can),
        "unanswerable": len(cannot),
        **gate(judged_on, threshold).to_json(),
        "recall_interval": [round(end, 4) for end in wilson(caught, len(cannot))],
        "false_abstention_interval": [round(end, 4) for end in wilson(lost, len(can))],
        "roc_auc": None if roc is None else round(roc, 4),
        "curve": [point.to_json() for point in curve(judged_on)],
    }


def _split(asked: Sequence[Asked]) -> tuple[list[Asked], list[Asked]]:
    return [one for one in asked if one.answerable], [one for one in asked if not one.answerable]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
