"""What arms have come to, against counts made by hand."""

from __future__ import annotations

import math

import pytest

from rag.evaluation.outcomes import Outcome, Share, arm_results, differences


def outcomes(arm: str, *, n: int, up: int, down: int, abstained: int, failed: int) -> list[Outcome]:
    thumbs = [(True,)] * up + [(True, False)] * down + [()] * (n - up - down)
    answered = [Outcome(arm, False, at < abstained, None if at % 2 else at % 4 == 0, t) for at, t in enumerate(thumbs)]
    return answered + [Outcome(arm, True, True, None)] * failed


def test_shares_are_of_what_they_are_about() -> None:
    a = outcomes("a", n=80, up=30, down=10, abstained=8, failed=2)
    b = outcomes("b", n=60, up=12, down=12, abstained=0, failed=0)
    first, second, none = arm_results(a + b, ["a", "b", "c"])
    assert first.failed == Share(2, 82)
    assert first.judged == Share(40, 80)
    assert first.positive == Share(30, 40)
    assert first.abstained == Share(8, 80)
    assert first.ungrounded == Share(20, 40)
    assert second.positive == Share(12, 24)
    assert none.judged.value is None
    found = {(d.measure, d.arm): d for d in differences([first, second, none])}
    assert {arm for _, arm in found} == {"b"}, "no cases, no difference"
    positive = found["positive", "b"]
    assert positive.difference == pytest.approx(0.5 - 0.75)
    assert positive.interval.low < positive.difference < positive.interval.high < 0
    assert found["failed", "b"].interval.low < 0 < found["failed", "b"].interval.high


def test_the_interval_is_newcombes() -> None:
    """Newcombe 1998, table II, row (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339."""
    a = [Outcome("a", False, False, None, (at < 48,)) for at in range(80)]
    b = [Outcome("b", False, False, None, (at < 56,)) for at in range(70)]
    (found,) = [d for d in differences(arm_results(a + b, ["a", "b"])) if d.measure == "positive"]
    assert (found.interval.low, found.interval.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )
    squared = 150 * (48 * 14 - 32 * 56) ** 2 / (80 * 70 * 104 * 46)  # Pearson's, of the two by two table
    assert found.p == pytest.approx(math.erfc(math.sqrt(squared / 2)))


def test_what_is_always_so_differs_in_nothing() -> None:
    a, b = ([Outcome(arm, False, True, None)] * 3 for arm in "ab")
    assert [d.p for d in differences(arm_results([*a, *b], ["a", "b"]))] == [1.0, 1.0, 1.0]
