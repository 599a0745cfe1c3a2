"""The gate in front of an answer, worked out by hand."""

from __future__ import annotations

import doctest
import random

import pytest

from rag.evaluation import shares
from rag.evaluation.abstention import Asked, area, choose, curve, gate, report

ASKED = [
    Asked(0.9, True, True),
    Asked(0.7, True, False),
    Asked(0.4, True, True),
    Asked(0.7, False, False),
    Asked(0.2, False, False),
]


def test_the_examples() -> None:
    assert doctest.testmod(shares).failed == 0


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, (0.0, 0.0, 1.0, 2 / 5)),
        (0.4, (1 / 2, 0.0, 4 / 5, 2 / 4)),
        (0.5, (1 / 2, 1 / 3, 3 / 5, 1 / 3)),
        (0.8, (1.0, 2 / 3, 1 / 5, 1.0)),
        (0.95, (1.0, 1.0, 0.0, None)),
    ],
)
def test_what_a_threshold_does(threshold: float, expected: tuple[float | None, ...]) -> None:
    found = gate(ASKED, threshold)
    assert (found.recall, found.false_abstention, found.coverage, found.accuracy) == expected


def test_nothing_has_no_share() -> None:
    found = gate([], 0.5)
    assert (found.recall, found.false_abstention, found.coverage, found.accuracy) == (None, None, None, None)
    assert choose([]) == 1.0
    assert area([]) is None


def test_the_threshold_costs_no_more_than_was_said() -> None:
    assert choose(ASKED, 0.0) == 0.4
    assert choose(ASKED, 0.34) == 0.7
    draw = random.Random(1)
    asked = [Asked(min(1, max(0, draw.gauss(0.6, 0.2))), True, True) for _ in range(500)]
    for most in (0.01, 0.05, 0.2):
        at = choose(asked, most)
        assert sum(one.score < at for one in asked) <= most * 500 < sum(one.score < at + 0.01 for one in asked)


def test_the_area_is_that_of_all_pairs() -> None:
    draw = random.Random(2)
    asked = [Asked(round(draw.random(), 1), draw.random() < 0.5, False) for _ in range(200)]
    pairs = [(a.score, b.score) for a in asked if a.answerable for b in asked if not b.answerable]
    assert area(asked) == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


def test_a_report_is_about_the_other_half() -> None:
    other = [Asked(0.3, True, True), Asked(0.6, True, True), Asked(0.1, False, False)]
    found = report(ASKED, other, 0.0)
    assert (found["threshold"], found["recall"], found["false_abstention"]) == (0.4, 1.0, 0.5)
    assert (found["answerable"], found["unanswerable"], found["roc_auc"]) == (2, 1, 1.0)
    assert found["recall_interval"][0] < 1.0
    coverages = [point["coverage"] for point in found["curve"]]
    assert coverages == sorted(coverages, reverse=True)
    assert curve(other)[0].coverage == 1.0
