"""What a difference between two arms is worth.

Differences are paired: one value per question, `b - a`. Everything random is seeded, so that the same values give the
same figures.

permutation_p([1, 1, 1])  ->  0.25, because 2 of the 8 ways of setting the signs are as far from 0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
EXACT_UP_TO = 16
"""Differences that are not 0 up to which every way of setting the signs is counted."""
_CELLS = 2_000_000
"""Numbers that resampling holds at once."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval, in the unit of what it is about."""

    low: float
    high: float


def permutation_p(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The two-sided p of the paired randomisation test on the mean, in (0, 1]: how often a mean at least as far from 0
    comes about when each difference may as well have had the other sign.

    Exact for few differences. Else out of `resamples` random ways, where the observed one counts as one of them, so
    that p is never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010). The test: Fisher, "The
    Design of Experiments", 1935; for retrieval: Smucker, Allan and Carterette, "A Comparison of Statistical
    Significance Tests for Information Retrieval Evaluation", CIKM 2007.
    """
    values = np.array([difference for difference in differences if difference != 0], dtype=np.float64)
    if not len(values):
        return 1.0
    # Sums that are equal on paper differ in their last bits.
    least = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= EXACT_UP_TO:
        ways = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float(np.mean(np.abs((1 - 2 * ways) @ values) >= least))
    rng = np.random.default_rng(seed)
    as_far = 0
    for number in _portions(resamples, len(values)):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(number, len(values)), dtype=np.int8)
        as_far += int(np.sum(np.abs(signs @ values) >= least))
    return (1 + as_far) / (1 + resamples)


def bca_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of the mean of two values or more.

    Efron, "Better Bootstrap Confidence Intervals", 1987; the acceleration by the jackknife as in Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 14. Values that are all the same give an interval without width.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean, deviations = sample.mean(), sample - sample.mean()
    spread = float(np.sum(deviations**2))
    if spread <= 1e-18 * len(sample):
        return Interval(float(mean), float(mean))
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            sample[rng.integers(0, len(sample), size=(number, len(sample)))].mean(axis=1)
            for number in _portions(resamples, len(sample))
        ]
    )
    # Half of the ties, or a sample of few different values would seem biased.
    below = (np.sum(means < mean) + 0.5 * np.sum(means == mean)) / resamples
    bias = _NORMAL.inv_cdf(min(max(float(below), 0.5 / resamples), 1 - 0.5 / resamples))
    acceleration = float(np.sum(deviations**3)) / (6 * spread**1.5)
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(means, [_corrected(tail, bias, acceleration) for tail in tails])
    return Interval(float(low), float(high))


def minimum_detectable(differences: Sequence[float], *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true mean difference that so many questions (two or more), as unlike as these, would show with this
    probability in a two-sided test: (z(1 - alpha / 2) + z(power)) s / sqrt(n).

    Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2; with the normal distribution in
    place of Student's, which below some 30 questions makes it a little too small.
    """
    deviation = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * deviation / math.sqrt(len(differences))


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """The score interval of a proportion of `n` (1 or more) cases.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    share, weight = successes / n, z * z / n
    middle = share + weight / 2
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return Interval(max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight)))


def two_proportions(successes_a: int, n_a: int, successes_b: int, n_b: int, *, confidence: float = 0.95) -> Interval:
    """The interval of the difference `b - a` of two independent proportions, out of their score intervals.

    Newcombe, "Interval Estimation for the Difference Between Independent Proportions: Comparison of Eleven Methods",
    1998, method 10.
    """
    a, b = successes_a / n_a, successes_b / n_b
    of_a, of_b = wilson(successes_a, n_a, confidence=confidence), wilson(successes_b, n_b, confidence=confidence)
    return Interval(b - a - math.hypot(b - of_b.low, of_a.high - a), b - a + math.hypot(of_b.high - b, a - of_a.low))


def two_proportions_p(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    """The two-sided p of the score test that two independent proportions (of 1 case or more each) are the same:
    Pearson's chi-squared of the two by two table, without a correction. With fewer than about 5 cases expected in a
    cell it is only roughly right."""
    share = (successes_a + successes_b) / (n_a + n_b)
    deviation = math.sqrt(share * (1 - share) * (1 / n_a + 1 / n_b))
    if deviation == 0:
        return 1.0
    return math.erfc(abs(successes_b / n_b - successes_a / n_a) / deviation / math.sqrt(2))


def _corrected(tail: float, bias: float, acceleration: float) -> float:
    """Which quantile of the resampled means stands for a tail."""
    z = bias + _NORMAL.inv_cdf(tail)
    return _NORMAL.cdf(bias + z / (1 - acceleration * z))


def _portions(resamples: int, width: int) -> Iterator[int]:
    """`resamples` in portions that fit the memory set apart for them."""
    size = max(1, _CELLS // width)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
