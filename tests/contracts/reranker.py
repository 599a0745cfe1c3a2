"""The checks that every `Reranker` must pass; truth is each pair's score, worked out alone and by definition."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from rag.rerankers import Reranker
from tests.contracts.embedder import UGLY, mixed
from tests.contracts.threads import at_once

QUESTION = "which lamp has a red battery"


@dataclass(frozen=True)
class Subject:
    """A reranker as the checks use it, and what its scores are."""

    reranker: Reranker
    truth: Callable[[str, str], float]
    """The score of one question and one passage, which fit."""
    fitting: Callable[[str, str], tuple[str, str]]
    """What of a question and a passage of any length is read."""
    tolerance: float = 1e-4


def agree(subject: Subject, question: str, passages: list[str]) -> np.ndarray:
    scores = subject.reranker.score(question, passages)
    truth = [subject.truth(*subject.fitting(question, passage)) for passage in passages]
    assert scores.shape == (len(passages),)
    np.testing.assert_allclose(scores, truth, atol=subject.tolerance, rtol=0)
    return scores


def one_finite_number_for_each_passage(subject: Subject) -> None:
    for passages in (["one"], tuple(mixed(7))):
        scores = subject.reranker.score(QUESTION, passages)
        assert type(scores) is np.ndarray
        assert (scores.shape, scores.dtype) == ((len(passages),), np.float32)
        assert np.isfinite(scores).all()


def no_passages_are_no_scores(subject: Subject) -> None:
    scores = subject.reranker.score(QUESTION, [])
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


def each_score_is_that_of_its_passage(subject: Subject) -> None:
    """Of many passages, long beside short, over several batches, in whatever order they come."""
    passages = mixed(30)
    scores = agree(subject, QUESTION, random.Random(1).sample(passages, len(passages)))
    assert len(set(scores.round(6))) > 3, "scores that are all the same order nothing"


def a_score_does_not_depend_on_what_else_is_scored(subject: Subject) -> None:
    passages = mixed(10, seed=1)
    together = subject.reranker.score(QUESTION, passages)
    alone = [float(subject.reranker.score(QUESTION, [passage])[0]) for passage in passages]
    np.testing.assert_allclose(together, alone, atol=subject.tolerance, rtol=0)


def the_same_pair_has_the_same_score(subject: Subject) -> None:
    """Within a call, and from call to call, whatever was scored between and done to the scores."""
    passages = [*mixed(5), *mixed(5), "other", mixed(5)[0]]
    first = agree(subject, QUESTION, passages).copy()
    subject.reranker.score("another question", mixed(4, seed=2))
    again = subject.reranker.score(QUESTION, passages)
    np.testing.assert_allclose(again, first, atol=subject.tolerance, rtol=0)
    again[:] = 0
    np.testing.assert_allclose(subject.reranker.score(QUESTION, passages), first, atol=subject.tolerance, rtol=0)


def the_question_matters_and_is_not_the_passage(subject: Subject) -> None:
    texts = mixed(6, seed=3)
    grid = np.array([agree(subject, question, texts) for question in texts])
    assert np.abs(grid - grid[0]).max() > 10 * subject.tolerance
    assert np.abs(grid - grid.T).max() > 10 * subject.tolerance


def what_does_not_fit_is_not_looked_at(subject: Subject) -> None:
    """A passage over the limit is its beginning; the whole of that counts, beside the whole question."""
    long = "lamp port " * 400
    _, fits = subject.fitting(QUESTION, long)
    agree(subject, QUESTION, ["red lamp", long, fits, long + "battery", "battery " + long, fits[:-4] + "red "])


def a_long_question_leaves_room_for_the_passage(subject: Subject) -> None:
    question = "where is the switch of the lamp " * 60
    scores = agree(subject, question, ["the switch is red", "a port", *mixed(6, seed=4), "router " * 300])
    assert scores.max() - scores.min() > 10 * subject.tolerance


def threads_get_their_own_scores(subject: Subject) -> None:
    passages, questions = mixed(24, seed=5), mixed(3, seed=6)
    truth = {question: subject.reranker.score(question, passages) for question in questions}

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(4):
            some, question = rng.sample(range(24), rng.randint(1, 9)), rng.choice(questions)
            scores = subject.reranker.score(question, [passages[at] for at in some])
            np.testing.assert_allclose(scores, truth[question][some], atol=subject.tolerance, rtol=0)

    at_once(work)


def any_text_has_a_score(subject: Subject) -> None:
    scores = subject.reranker.score(QUESTION, UGLY)
    assert np.isfinite(scores).all()
    for question in UGLY:
        assert np.isfinite(subject.reranker.score(question, ["a lamp", *UGLY[:3]])).all()


CHECKS = (
    one_finite_number_for_each_passage,
    no_passages_are_no_scores,
    each_score_is_that_of_its_passage,
    a_score_does_not_depend_on_what_else_is_scored,
    the_same_pair_has_the_same_score,
    the_question_matters_and_is_not_the_passage,
    what_does_not_fit_is_not_looked_at,
    a_long_question_leaves_room_for_the_passage,
    threads_get_their_own_scores,
    any_text_has_a_score,
)


def fails(check: Callable[[Subject], None], subject: Subject) -> bool:
    """Whether a check catches something."""
    try:
        check(subject)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
        return True
    return False
