"""Two arms compared, question by question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rag.evaluation.statistics import Interval, bca_interval, minimum_detectable, permutation_p

LOWER_IS_BETTER = frozenset({"context_duplicates"})
"""The measures that are better when they are smaller."""
LISTED = 100
"""Questions that got better, and that got worse, that a comparison lists at most."""
_NOTHING = 1e-12
"""Differences up to here come from rounding."""

Values = Mapping[str, Mapping[str, float]]
"""By measure and question."""


@dataclass(frozen=True)
class Difference:
    """One measure under two arms, over the `n` questions that have it under both. `difference` is `b - a`, with its
    95 % interval; `p` is two-sided; `detectable` the true difference that so many questions would show with 80 %
    probability. These three need two questions."""

    n: int
    a: float
    b: float
    difference: float
    p: float | None
    interval: Interval | None
    detectable: float | None
    better: int
    """Questions that b does better."""
    worse: int
    lower_is_better: bool


@dataclass(frozen=True)
class Changed:
    """A question that two arms do not do equally well."""

    id: str
    question: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """Arm `b` against arm `a`. `improved` and `worsened` are by the measure `by`, the largest changes first."""

    a: str
    b: str
    measures: Mapping[str, Difference]
    by: str
    improved: tuple[Changed, ...]
    worsened: tuple[Changed, ...]


def compare(questions: Mapping[str, str], a: tuple[str, Values], b: tuple[str, Values]) -> Comparison:
    """Compare two arms, each with its name; `questions` are the texts by id. The first measure of `a` is what the
    questions are listed by."""
    (name_a, values_a), (name_b, values_b) = a, b
    common = [measure for measure in values_a if measure in values_b]
    measures = {
        measure: difference_of(values_a[measure], values_b[measure], measure in LOWER_IS_BETTER)
        for measure in common
        if values_a[measure].keys() & values_b[measure].keys()
    }
    by = next(iter(measures), "")
    improved, worsened = _changed(questions, values_a.get(by, {}), values_b.get(by, {}), by in LOWER_IS_BETTER)
    return Comparison(name_a, name_b, measures, by, improved, worsened)


def difference_of(a: Mapping[str, float], b: Mapping[str, float], lower_is_better: bool = False) -> Difference:
    """One measure, by question, under two arms that share a question at least."""
    ids = [id_ for id_ in a if id_ in b]
    before, after = (np.array([values[id_] for id_ in ids]) for values in (a, b))
    differences = np.where(np.abs(after - before) <= _NOTHING, 0.0, after - before)
    up, down = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    several = len(ids) > 1
    return Difference(
        n=len(ids),
        a=float(before.mean()),
        b=float(after.mean()),
        difference=float(differences.mean()),
        p=permutation_p(differences.tolist()) if several else None,
        interval=bca_interval(differences.tolist()) if several else None,
        detectable=minimum_detectable(differences.tolist()) if several else None,
        better=down if lower_is_better else up,
        worse=up if lower_is_better else down,
        lower_is_better=lower_is_better,
    )


def _changed(
    questions: Mapping[str, str], a: Mapping[str, float], b: Mapping[str, float], lower_is_better: bool
) -> tuple[tuple[Changed, ...], tuple[Changed, ...]]:
    """The questions that got better and those that got worse."""
    sign = -1 if lower_is_better else 1
    gains = {id_: sign * (b[id_] - a[id_]) for id_ in a if id_ in b}
    ranked = sorted((id_ for id_ in gains if abs(gains[id_]) > _NOTHING), key=lambda id_: -abs(gains[id_]))
    rows = {id_: Changed(id_, questions[id_], a[id_], b[id_]) for id_ in ranked}
    better = tuple(rows[id_] for id_ in ranked if gains[id_] > 0)[:LISTED]
    return better, tuple(rows[id_] for id_ in ranked if gains[id_] < 0)[:LISTED]
