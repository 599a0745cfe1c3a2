"""Comparisons and the gate's verdict on them, on values that can be checked by hand."""

from __future__ import annotations

import pytest

from rag.evaluation.comparing import compare, difference_of
from rag.evaluation.gate import verdict
from rag.settings import GateSettings

QUESTIONS = {f"q{number}": f"Question {number}?" for number in range(100)}


def values(*given: float) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(given)}


def test_means_are_over_the_questions_that_both_have() -> None:
    a = {"nDCG@10": values(0.5, 0.5, 1.0, 0.0), "context_duplicates": values(0.2, 0.0)}
    b = {"nDCG@10": {"q0": 1.0, "q1": 0.25, "q2": 1.0, "q9": 1.0}, "context_duplicates": values(0.1, 0.0)}
    compared = compare(QUESTIONS, ("live", a), ("new", b))
    first = compared.measures["nDCG@10"]
    assert (first.n, first.better, first.worse) == (3, 1, 1)
    assert (first.a, first.b, first.difference) == pytest.approx((2 / 3, 2.25 / 3, 0.25 / 3))
    assert first.p == pytest.approx(1.0)
    assert compared.by == "nDCG@10"
    assert [(q.id, q.question, q.a, q.b) for q in compared.improved] == [("q0", "Question 0?", 0.5, 1.0)]
    assert [q.id for q in compared.worsened] == ["q1"]
    duplicates = compared.measures["context_duplicates"]
    assert (duplicates.better, duplicates.worse, duplicates.lower_is_better) == (1, 0, True)


def test_one_question_has_no_statistics_and_rounding_is_no_difference() -> None:
    alone = difference_of(values(0.0), values(1.0))
    assert (alone.n, alone.p, alone.interval, alone.detectable) == (1, None, None, None)
    near = difference_of(values(0.1 + 0.2, 1.0), values(0.3, 1.0))
    assert (near.better, near.worse, near.p) == (0, 0, 1.0)


def measured(*gains: float, lower_is_better: bool = False) -> object:
    return difference_of(values(*[0.5] * len(gains)), values(*[0.5 + gain for gain in gains]), lower_is_better)


@pytest.mark.parametrize(
    ("gains", "margin", "reason"),
    [
        ([0.2, 0.1] * 30, 0.0, "passed"),
        ([0.2, 0.1] * 30, 0.2, "not_better"),
        ([0.0] * 60, 0.0, "passed"),
        ([0.2, -0.2] * 30, 0.0, "not_better"),
        ([0.2, -0.2] * 30, -0.1, "passed"),
        ([-0.2, -0.1] * 30, -0.1, "not_better"),
        ([0.5] * 49, 0.0, "too_few_questions"),
    ],
)
def test_the_gate_goes_by_the_worse_end_of_the_interval(gains: list[float], margin: float, reason: str) -> None:
    said = verdict(GateSettings(metric="nDCG@10", margin=margin), measured(*gains))
    assert (said.reason, said.passed) == (reason, reason == "passed")


def test_the_gate_knows_which_way_is_better_and_when_it_is_off() -> None:
    gate = GateSettings(metric="context_duplicates")
    assert verdict(gate, measured(*[-0.2] * 60, lower_is_better=True)).passed
    assert not verdict(gate, measured(*[0.2] * 60, lower_is_better=True)).passed
    assert verdict(gate, None).reason == "not_measured"
    assert verdict(GateSettings(), measured(*[-0.2] * 60)).reason == "off"
