"""Whether what is asked, found and said has changed: one day against the days before it.

Each signal has a test of "nothing has changed" whose error is known, and all of them together give a false alarm on at
most one day in 30 (`FALSE_ALARMS`), as long as questions come independently of each other. Shares are compared by
Fisher's exact test, which keeps its level whatever the numbers. The questions' vectors are compared by permutation: the
day is drawn anew among all the vectors, and what is rarer than the level by chance alone is an alarm.

- `shift`: how well a classifier tells the day's questions from those before, as the area under its ROC curve (a domain
  classifier). 0.5: not at all. It goes by a question's nearest others, and by no means by the question itself: how many
  of them are the day's. `tests.benchmarks.drift` says what it finds.
- `novelty`: how much farther from their nearest others the day's questions lie, as such an area. A few questions about
  many foreign things are no cluster that a classifier could find, but each of them stands alone.
- `low_score`: questions whose best hit is no more relevant than that of the lowest tenth was before.
- `abstention`, `ungrounded`, `feedback`: answers that say that nothing was found; answers with a sentence that does not
  stand on its passages; judgements that are negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.evaluation.shares import difference

FALSE_ALARMS = 1 / 30
"""Days without any change that give an alarm, at most, over all signals."""
SIGNALS = ("shift", "novelty", "low_score", "abstention", "ungrounded", "feedback")
WATCHES = (*SIGNALS, "canaries")
LEVEL = FALSE_ALARMS / len(SIGNALS)
"""The same for one signal."""
MARGIN = 0.05
"""By so much a share must have grown: with many questions a change can be certain and of no account."""
LEAST_DAY, LEAST_BEFORE = 50, 200
"""Questions that a day, and the days before it, must have for their vectors to be compared."""
MOST_VECTORS = 1_000
"""Vectors of a day, and of those before, that are compared."""
PERMUTATIONS = 999
NEIGHBOURS = 10
BINS = 50
"""Of relevance, in a day's histogram."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Signal:
    """One thing that is watched, on one day."""

    name: str
    value: float | None
    """The day's: a share, or an area in [0, 1] where 0.5 is no difference. None where there is too little to tell."""
    before: float | None
    """The share on the days before."""
    interval: tuple[float, float] | None
    """95 %: of the area; of the difference of the shares."""
    p: float | None
    """How often chance alone brings as much."""
    of: tuple[int, int]
    """How many were compared: of the days before, and of the day."""
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        rounded = {name: _rounded(value) for name, value in asdict(self).items()}
        return {**rounded, "of": list(self.of)}


def vector_signals(before: Vectors, day: Vectors, seed: int = 0) -> list[Signal]:
    """`shift` and `novelty`. Rows are unit vectors; the same seed gives the same."""
    numbers = len(before), len(day)
    if len(day) < LEAST_DAY or len(before) < LEAST_BEFORE:
        return [_too_little(name, numbers) for name in ("shift", "novelty")]
    draw = np.random.default_rng(seed)
    cosines = _cosines(np.concatenate([before, day]).astype(np.float64))
    nearest = np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    truth = np.arange(len(cosines)) >= len(before)
    chance = draw.permuted(np.tile(truth, (PERMUTATIONS, 1)), axis=1)
    labels = np.concatenate([truth[None, :], chance]).T
    near = (cosines >= nearest.min(axis=1, keepdims=True)).astype(np.float32)
    # Where more are equally near, their share counts.
    classified = NEIGHBOURS * (near @ labels.astype(np.float32)) / near.sum(axis=1, keepdims=True)
    _, lonely = np.unique(-nearest.mean(axis=1), return_inverse=True)
    return [
        _area_signal("shift", areas(classified.round().astype(np.int64), labels), numbers),
        _area_signal("novelty", areas(lonely[:, None], labels), numbers),
    ]


def share_signal(name: str, before: tuple[int, int], day: tuple[int, int]) -> Signal:
    """A share (hits, of how many) that should not grow."""
    numbers = before[1], day[1]
    if not all(numbers):
        return _too_little(name, numbers)
    shares = before[0] / before[1], day[0] / day[1]
    p = fisher(before, day)
    interval = difference((before[0], day[0]), numbers)
    return Signal(name, shares[1], shares[0], interval, p, numbers, p <= LEVEL and shares[1] - shares[0] >= MARGIN)


def low_score(before: Sequence[int], day: Sequence[int]) -> Signal:
    """From two histograms of the best hit's relevance, in BINS bins from 0 to 1: those in the lowest bins, as many as
    held a tenth of the questions before. (That they are chosen by those questions makes the test the stricter.)"""
    below, held = 0, 0
    while below < len(before) and held < sum(before) / 10:
        held += before[below]
        below += 1
    return share_signal("low_score", (held, sum(before)), (sum(day[:below]), sum(day)))


def histogram(relevances: Sequence[float]) -> list[int]:
    """How many relevances lie in each of the BINS."""
    counts = [0] * BINS
    for one in relevances:
        counts[min(int(one * BINS), BINS - 1)] += 1
    return counts


def fisher(before: tuple[int, int], day: tuple[int, int]) -> float:
    """Fisher's exact test: the chance of so many hits on the day or more, if all hits fell on all cases alike.

    >>> round(fisher((1, 10), (6, 10)), 5)
    0.02864
    """
    hits, cases = before[0] + day[0], before[1] + day[1]
    whole = _choices(cases, day[1])
    several = range(day[0], min(hits, day[1]) + 1)
    tail = sum(
        math.exp(_choices(hits, k) + _choices(cases - hits, day[1] - k) - whole)
        for k in several
        if day[1] - k <= cases - hits
    )
    return min(tail, 1.0)


def _choices(number: int, chosen: int) -> float:
    """The logarithm of a binomial coefficient."""
    return math.lgamma(number + 1) - math.lgamma(chosen + 1) - math.lgamma(number - chosen + 1)


def areas(scores: NDArray[np.int64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each column, the chance that a row with a label scores above one without, ties counting half; the area under
    the ROC curve. `scores` are small numbers from 0, in as many columns as `labels`, or one for all. 0.5 for a column
    with labels of one kind only."""
    ranks = np.apply_along_axis(_ranks, 0, scores)
    yes = labels.sum(axis=0)
    no = len(labels) - yes
    above = (ranks * labels).sum(axis=0) - yes * (yes + 1) / 2
    return np.where(yes * no > 0, above / np.maximum(yes * no, 1), 0.5)


def _ranks(column: NDArray[np.int64]) -> NDArray[np.float64]:
    """From 1, equal ones sharing the mean of theirs."""
    sizes = np.bincount(column)
    return np.asarray((np.cumsum(sizes) - (sizes - 1) / 2)[column])


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row to the others, rounded so that equal rows are equally near to all; to itself none."""
    cosines = (rows @ rows.T).round(6)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines)


def _area_signal(name: str, found: NDArray[np.float64], numbers: tuple[int, int]) -> Signal:
    """The first area is that of the true labels, the others are of permuted ones."""
    area, chance = float(found[0]), found[1:]
    p = float((1 + (chance >= area).sum()) / len(found))
    return Signal(name, area, None, area_interval(area, numbers), p, numbers, p <= LEVEL)


def area_interval(area: float, numbers: tuple[int, int]) -> tuple[float, float]:
    """95 % about an area under a ROC curve of so many without a label and with it (Hanley and McNeil, "The meaning and
    use of the area under a receiver operating characteristic (ROC) curve", 1982).

    >>> [round(end, 3) for end in area_interval(0.893, (58, 51))]
    [0.829, 0.957]
    """
    no, yes = numbers
    one, other = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (yes - 1) * (one - area * area) + (no - 1) * (other - area * area)
    spread = 1.96 * math.sqrt(max(variance, 0.0) / (yes * no))
    return max(area - spread, 0.0), min(area + spread, 1.0)


def _too_little(name: str, numbers: tuple[int, int]) -> Signal:
    return Signal(name, None, None, None, None, numbers, alarm=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    return [_rounded(one) for one in value] if isinstance(value, tuple) else value


# ---- canaries --------------------------------------------------------------------------------------------------------

LEAST_OVERLAP = 0.8
"""Of the hits when they were frozen, the share that is still found; below it, an alarm."""
MOST_LOST = 0.1
"""Of the questions, the share whose first hit may be gone, or that may have become unanswered."""

Hits = Mapping[int, float]
"""Numbers of documents found for a question, best first, with the relevance of each."""


@dataclass(frozen=True)
class CanaryReport:
    """A frozen set of questions, asked again. Nothing here is left to chance: an index that has not changed finds the
    same, and gives no alarm."""

    questions: int
    overlap: float
    """The mean share of the frozen hits that are still found."""
    lost: int
    """Questions whose first hit is not found any more."""
    unanswered: int
    """Questions whose best hit was relevant enough for an answer, and is no more."""
    score_change: float
    """The mean change of relevance of the hits that are found both times; signed."""
    worst: tuple[str, ...]
    """The questions with the least overlap, where any is missing something; ten at most."""
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**{name: _rounded(value) for name, value in asdict(self).items()}, "worst": list(self.worst)}


def compare_canaries(frozen: Mapping[str, Hits], now: Mapping[str, Hits], threshold: float) -> CanaryReport:
    """Each question's hits as they were and as they are; at least one question. One that found nothing then has
    nothing to lose."""
    kept = {question: [hit for hit in hits if hit in now[question]] for question, hits in frozen.items()}
    overlaps = {question: len(kept[question]) / len(hits) if hits else 1.0 for question, hits in frozen.items()}
    changes = [now[question][hit] - frozen[question][hit] for question, hits in kept.items() for hit in hits]
    lost = sum(bool(hits) and next(iter(hits)) not in now[question] for question, hits in frozen.items())
    unanswered = sum(_best(hits) >= threshold > _best(now[question]) for question, hits in frozen.items())
    overlap = sum(overlaps.values()) / len(overlaps)
    worst = sorted((question for question in overlaps if overlaps[question] < 1), key=lambda one: overlaps[one])
    return CanaryReport(
        questions=len(frozen),
        overlap=overlap,
        lost=lost,
        unanswered=unanswered,
        score_change=sum(changes) / len(changes) if changes else 0.0,
        worst=tuple(worst[:10]),
        alarm=overlap < LEAST_OVERLAP or max(lost, unanswered) > MOST_LOST * len(frozen),
    )


def _best(hits: Hits) -> float:
    return max(hits.values(), default=0.0)
