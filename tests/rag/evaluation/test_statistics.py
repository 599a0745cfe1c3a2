"""Figures against their definitions, worked out here, and against published ones."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from rag.evaluation.statistics import bca_interval, minimum_detectable, permutation_p, two_proportions, wilson


def every_sign(differences: list[float]) -> float:
    """The definition: the share of all ways of setting the signs whose mean is at least as far from 0."""
    observed = abs(sum(differences)) - 1e-12
    ways = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in ways) / len(
        ways
    )


@pytest.mark.parametrize(
    "differences", [[1.0, 1.0, 1.0], [0.5, -0.25, 0.1, 0.9], [0.1, 0.2, -0.3], [-2.0, 1.0, 1.0, 0.5, 0.0, -0.1]]
)
def test_few_differences_are_counted_exactly(differences: list[float]) -> None:
    assert permutation_p(differences) == pytest.approx(every_sign(differences), abs=1e-12)
    assert permutation_p([-d for d in differences]) == permutation_p(differences)
    assert permutation_p([*differences, 0.0, 0.0]) == permutation_p(differences)


def test_many_differences_are_sampled_near_the_exact_value() -> None:
    values = np.random.default_rng(1).normal(0.35, 1.0, 17)
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    assert permutation_p(values.tolist()) == pytest.approx(exact, abs=0.015)
    assert permutation_p(values.tolist()) == permutation_p(values.tolist())


def test_no_difference_proves_nothing_and_a_clear_one_is_never_impossible() -> None:
    assert permutation_p([0.0] * 50) == permutation_p([]) == 1.0
    assert permutation_p([1.0] * 100) == pytest.approx(1 / 10_001)


def test_the_same_system_twice_differs_in_one_of_twenty() -> None:
    """Of one system's values per question, two random halves are paired as if they were two systems."""
    rng = np.random.default_rng(7)
    # As nDCG@10 lies: a third at 0, many at 1, the rest on the few values that a rank can give.
    ranks = rng.choice([0, 1, 1, 1, 2, 3, 4, 6, 0, 0], 300)
    values = np.where(ranks == 0, 0.0, 1 / np.log2(np.maximum(ranks, 1) + 1))
    found = 0
    for split in range(1_000):
        order = rng.permutation(len(values))
        differences = values[order[:150]] - values[order[150:]]
        found += permutation_p(differences.tolist(), resamples=2_000, seed=split) < 0.05
    assert 30 <= found <= 70


def test_the_interval_is_that_of_another_implementation() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    values = np.random.default_rng(3).lognormal(0, 1, 60)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(5))
    ours = bca_interval(values.tolist())
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)
    assert ours.high - values.mean() > 1.1 * (values.mean() - ours.low), "skewed values have a skewed interval"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    samples = [rng.exponential(1.0, 40) for _ in range(400)]
    held = 0
    for sample in samples:
        interval = bca_interval(sample.tolist(), resamples=800)
        held += interval.low <= 1.0 <= interval.high
    assert 0.90 <= held / len(samples) <= 0.98


def test_values_that_are_all_the_same_have_no_width() -> None:
    interval = bca_interval([0.25] * 30)
    assert (interval.low, interval.high) == (0.25, 0.25)


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five() -> None:
    rng = np.random.default_rng(2)
    sample = rng.normal(0, 1, 100)
    size = minimum_detectable(sample.tolist()) / np.std(sample, ddof=1)
    trials = rng.normal(size, 1, (4_000, 100))
    found = np.abs(trials.mean(axis=1)) / (trials.std(axis=1, ddof=1) / 10) > NormalDist().inv_cdf(0.975)
    assert 0.77 <= found.mean() <= 0.83


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 10), (10, 10), 0.6075, 1.0),
    ],
)
def test_two_proportions_as_published(a: tuple[int, int], b: tuple[int, int], low: float, high: float) -> None:
    """Newcombe 1998, table II, method 10."""
    interval = two_proportions(*a, *b)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_a_proportion_solves_the_equation_that_defines_it() -> None:
    """Wilson: the ends are the shares at which what was seen is just z standard errors away."""
    interval = wilson(15, 148)
    z = NormalDist().inv_cdf(0.975)
    for end in (interval.low, interval.high):
        assert abs(15 / 148 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 148))
    assert wilson(0, 5).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(5, 5).high == pytest.approx(1.0)
