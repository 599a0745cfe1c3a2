"""How alike two rankings of the same question are.

overlap([1, 2, 3], [3, 4, 1])  ->  0.666…, two of three
kendall([1, 2, 3], [3, 4, 1])  ->  -1.0, because the two that both have stand in opposite order
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of the longer ranking that is in the other one as well, in [0, 1]; two empty ones are alike."""
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def kendall(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Kendall's tau of what both rankings have, in [-1, 1]: the share of pairs in the same order less that of those in
    the opposite one. None for fewer than two. Kendall, "A New Measure of Rank Correlation", 1938."""
    places = {item: place for place, item in enumerate(other)}
    common = [places[item] for item in one if item in places]
    pairs = [1 if a < b else -1 for a, b in combinations(common, 2)]
    return sum(pairs) / len(pairs) if pairs else None
