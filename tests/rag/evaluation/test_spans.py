"""Overlaps against sets of characters."""

from __future__ import annotations

import random

import pytest

from rag.evaluation.spans import merged, overlap, within

Spans = dict[str, list[tuple[int, int]]]


def characters(spans: Spans) -> set[tuple[str, int]]:
    return {(document, at) for document, each in spans.items() for start, end in each for at in range(start, end)}


def test_overlaps_are_those_of_sets_of_characters() -> None:
    rng = random.Random(1)

    def some() -> Spans:
        starts = [(rng.choice("ab"), rng.randrange(40)) for _ in range(rng.randint(1, 4))]
        spans: Spans = {}
        for document, start in starts:
            spans.setdefault(document, []).append((start, start + rng.randint(1, 15)))
        return spans

    for _ in range(300):
        wanted, found = some(), some()
        a, b = characters(wanted), characters(found)
        assert overlap(wanted, found) == {
            "span_recall": pytest.approx(len(a & b) / len(a)),
            "span_precision": pytest.approx(len(a & b) / len(b)),
            "span_iou": pytest.approx(len(a & b) / len(a | b)),
        }
        for document, each in found.items():
            assert characters({document: merged(each)}) == characters({document: each})


def test_nothing_found_is_zero() -> None:
    assert overlap({"a": [(0, 5)]}, {}) == {"span_recall": 0.0, "span_precision": 0.0, "span_iou": 0.0}


def test_the_budget_is_spent_to_the_character() -> None:
    taken = within([("a", 0, 30), ("b", 10, 40), ("a", 50, 60)], 45)
    assert taken == {"a": [(0, 30)], "b": [(10, 25)]}
    assert within([("a", 0, 10)], 45) == {"a": [(0, 10)]}
