"""Signals of change: what they are worth by hand, how often they are wrong, and that they see what is planted."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from rag.evaluation import drift
from rag.evaluation.drift import (
    LEVEL,
    Hits,
    areas,
    compare_canaries,
    fisher,
    histogram,
    low_score,
    share_signal,
    vector_signals,
)


def unit(draw: np.random.Generator, number: int, middle: int | None = None) -> np.ndarray:
    """Unit vectors about a few topics, or about one of their own."""
    topics = np.eye(32)[np.full(number, middle) if middle is not None else draw.integers(0, 5, number)]
    rows = topics + draw.normal(0, 0.12, (number, 32))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_the_examples() -> None:
    assert doctest.testmod(drift).failed == 0


@pytest.mark.parametrize(
    ("before", "day"), [((20, 1000), (12, 200)), ((0, 10), (0, 10)), ((5, 5), (0, 3)), ((3, 9), (7, 8))]
)
def test_fisher_is_scipys(before: tuple[int, int], day: tuple[int, int]) -> None:
    from scipy.stats import fisher_exact  # type: ignore[import-untyped]

    table = [[day[0], day[1] - day[0]], [before[0], before[1] - before[0]]]
    assert fisher(before, day) == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_areas_are_those_of_all_pairs() -> None:
    draw = np.random.default_rng(1)
    scores, labels = draw.integers(0, 9, (40, 3)), draw.random((40, 3)) < 0.4
    for column, area in enumerate(areas(scores, labels)):
        yes, no = scores[labels[:, column], column], scores[~labels[:, column], column]
        assert area == pytest.approx(((yes[:, None] > no) + (yes[:, None] == no) / 2).mean())


def test_a_planted_fifth_is_seen_and_nothing_is_not() -> None:
    draw = np.random.default_rng(2)
    before = unit(draw, 600)
    planted = vector_signals(before, np.concatenate([unit(draw, 120), unit(draw, 30, middle=20)]))
    assert any(signal.alarm for signal in planted)
    shift = planted[0]
    assert shift.value is not None
    assert shift.interval is not None
    assert shift.interval[0] < shift.value < shift.interval[1]
    assert not any(signal.alarm for signal in vector_signals(before, unit(draw, 150)))
    assert vector_signals(before, planted_day := unit(draw, 60), 3) == vector_signals(before, planted_day, 3)


def test_false_alarms_keep_their_level() -> None:
    draw = np.random.default_rng(3)
    alarms = 0
    for _ in range(2_000):
        before, day = draw.binomial(1_000, 0.1), draw.binomial(200, 0.1)
        alarms += share_signal("s", (int(before), 1_000), (int(day), 200)).alarm
    assert alarms <= 2_000 * LEVEL


def test_too_little_gives_no_alarm() -> None:
    draw = np.random.default_rng(4)
    for signals in (vector_signals(unit(draw, 10), unit(draw, 200)), vector_signals(unit(draw, 300), unit(draw, 10))):
        assert [(signal.value, signal.alarm) for signal in signals] == [(None, False)] * 2
    assert not share_signal("s", (0, 0), (5, 5)).alarm
    assert not low_score([], histogram([0.1] * 60)).alarm


def test_low_scores_are_low_against_the_days_before() -> None:
    before = histogram([at / 500 for at in range(500)])
    assert not low_score(before, histogram([at / 100 for at in range(100)])).alarm
    worse = low_score(before, histogram([0.01] * 30 + [0.5] * 70))
    assert worse.alarm
    assert worse.value == pytest.approx(0.3)


def test_questions_that_many_ask_are_no_drift() -> None:
    """Equal vectors on both sides are told apart by nothing, also not by the order in which they stand."""
    same = np.repeat(unit(np.random.default_rng(5), 4), 100, axis=0)
    alarms = [any(one.alarm for one in vector_signals(same, same[::2], seed)) for seed in range(4)]
    assert not any(alarms)


def test_canaries_are_compared_by_hand() -> None:
    frozen: dict[str, Hits] = {"q": {1: 0.9, 2: 0.8}, "r": {3: 0.7}, "none": {}}
    same = compare_canaries(frozen, frozen, 0.5)
    assert (same.overlap, same.lost, same.unanswered, same.score_change, same.alarm) == (1.0, 0, 0, 0.0, False)
    now: dict[str, Hits] = {"q": {2: 0.6, 9: 0.5}, "r": {3: 0.4}, "none": {4: 0.1}}
    moved = compare_canaries(frozen, now, 0.5)
    assert moved.overlap == pytest.approx((0.5 + 1 + 1) / 3)
    assert (moved.lost, moved.unanswered, moved.worst, moved.alarm) == (1, 1, ("q",), True)
    assert moved.score_change == pytest.approx(-0.25)
