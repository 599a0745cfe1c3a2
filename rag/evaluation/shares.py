"""Shares with their uncertainty: Wilson's interval of one, Newcombe's of the difference of two."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(hits: int, number: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of a share (Wilson, 1927); (0, 1) of nothing.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not number:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / number, z * z / number
    half = z * math.sqrt(share * (1 - share) / number + spread / number / 4)
    return max((share + spread / 2 - half) / (1 + spread), 0.0), min((share + spread / 2 + half) / (1 + spread), 1.0)


def difference(hits: tuple[int, int], numbers: tuple[int, int], confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of the second share minus the first (Newcombe, "Interval Estimation for the Difference
    between Independent Proportions", 1998, method 10).

    >>> [round(end, 4) for end in difference((48, 56), (80, 70))]
    [0.0524, 0.3339]
    """
    if not all(numbers):
        return -1.0, 1.0
    first, second = hits[0] / numbers[0], hits[1] / numbers[1]
    (low1, high1), (low2, high2) = (wilson(h, n, confidence) for h, n in zip(hits, numbers, strict=True))
    down = math.hypot(second - low2, high1 - first)
    up = math.hypot(high2 - second, first - low1)
    return second - first - down, second - first + up
