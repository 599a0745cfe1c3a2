"""Fusion against its definitions, worked out here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rag.fusion import Scored, best_first, fuse_rrf, fuse_scaled, merge_by_rank

NAN = float("nan")


def scored(dense: list[float], keyword: list[float]) -> Scored:
    """Candidates 1, 2, …; a leg proposed those that it has a score for."""
    return Scored(
        np.arange(1, len(dense) + 1),
        np.array(dense, dtype=np.float32),
        np.array(keyword, dtype=np.float32),
        ~np.isnan(np.array(dense)),
        ~np.isnan(np.array(keyword)),
    )


def test_each_leg_is_scaled_by_its_best() -> None:
    fused = fuse_scaled(scored([0.8, 0.4, 0.2], [0.0, 10.0, 5.0]), 0.5)
    assert fused == pytest.approx([0.5, 0.25 + 0.5, 0.125 + 0.25])
    assert fuse_scaled(scored([0.8, 0.4], [1.0, 4.0]), 0.25) == pytest.approx([0.25 + 0.75 / 4, 0.125 + 0.75])


@pytest.mark.parametrize(
    ("dense", "keyword", "order"),
    [
        ([0.9, 0.5, 0.1], [NAN, NAN, NAN], [1, 2, 3]),
        ([NAN, NAN, NAN], [1.0, 3.0, 2.0], [2, 3, 1]),
        ([-0.2, -0.1, 0.0], [0.0, 0.0, 0.0], [1, 2, 3]),
        ([0.5, 0.5, 0.5], [2.0, 2.0, 2.0], [1, 2, 3]),
        ([], [], []),
    ],
)
def test_an_empty_or_level_leg_leaves_the_order_to_the_other(
    dense: list[float], keyword: list[float], order: list[int]
) -> None:
    both = scored(dense, keyword)
    fused = fuse_scaled(both, 0.5)
    assert not np.isnan(fused).any()
    assert both.ids[best_first(both.ids, fused)].tolist() == order


def test_more_candidates_do_not_change_the_scores_of_the_others() -> None:
    few = fuse_scaled(scored([0.8, 0.4], [3.0, 6.0]), 0.5)
    many = fuse_scaled(scored([0.8, 0.4, 0.01, 0.02], [3.0, 6.0, 0.1, NAN]), 0.5)
    assert many[:2] == pytest.approx(few)


def test_reciprocal_ranks() -> None:
    fused = fuse_rrf(scored([0.9, 0.8, NAN], [NAN, 5.0, 7.0]), 0.5, k=60)
    assert fused == pytest.approx([1 / 61, 1 / 62 + 1 / 62, 1 / 61])


def test_rankings_that_cannot_be_compared_are_merged_by_rank() -> None:
    merged = merge_by_rank([[7, 8], [9, 7]], k=60)
    assert merged == pytest.approx({7: 1 / 61 + 1 / 62, 8: 1 / 62, 9: 1 / 61})


def test_ties_come_in_order_of_id() -> None:
    assert best_first(np.array([5, 3, 4]), np.array([1.0, 1.0, 2.0])).tolist() == [2, 1, 0]
    assert math.isclose(merge_by_rank([[1]])[1], 1 / 61)
