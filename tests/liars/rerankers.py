"""Rerankers that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import threading

import numpy as np

from tests.contracts.reranker import Subject

BATCH = 4
LIMIT, QUESTION_LIMIT = 60, 30
"""Characters that are read of a passage and of a question."""


def truth(question: str, passage: str) -> float:
    """How often the words of the passage are the question's, by their share, less a little for each word."""
    asked, words = set(question.split()), passage.split()
    return sum(word in asked for word in words) / (len(words) + 1) - 0.01 * len(words) + 0.001 * len(question)


def fitting(question: str, passage: str) -> tuple[str, str]:
    return question[:QUESTION_LIMIT], passage[:LIMIT]


class HonestReranker:
    """Batches of similar length, a limit for the passage and one for the question."""

    def score(self, question, passages):
        scores = np.empty(len(passages), dtype=np.float32)
        order = sorted(range(len(passages)), key=lambda at: len(passages[at]))
        for start in range(0, len(passages), BATCH):
            batch = order[start : start + BATCH]
            scores[batch] = self.batch(question, [passages[at] for at in batch])
        return scores

    def batch(self, question, passages):
        return [truth(*self.read(question, passage)) for passage in passages]

    def read(self, question, passage):
        return fitting(question, passage)


class NotPutBackInOrder(HonestReranker):
    def score(self, question, passages):
        return super().score(question, sorted(passages, key=len))


class SortedByScore(HonestReranker):
    def score(self, question, passages):
        return np.sort(super().score(question, passages))[::-1].copy()


class TheOtherWayRound(HonestReranker):
    """A distance: small is good."""

    def score(self, question, passages):
        return -super().score(question, passages)


class QuestionAndPassageExchanged(HonestReranker):
    def read(self, question, passage):
        question, passage = super().read(question, passage)
        return passage, question


class QuestionForgotten(HonestReranker):
    def read(self, question, passage):
        return super().read("", passage)


class FirstQuestionKept(HonestReranker):
    kept = None

    def read(self, question, passage):
        self.kept = self.kept or question
        return super().read(self.kept, passage)


class ScaledWithinTheCall(HonestReranker):
    def score(self, question, passages):
        scores = super().score(question, passages)
        return (scores - scores.min(initial=0)) / max(np.ptp(scores), 1e-6) if len(scores) else scores


class Softmax(HonestReranker):
    def batch(self, question, passages):
        raised = np.exp(super().batch(question, passages))
        return raised / raised.sum()


class Saturated(HonestReranker):
    def score(self, question, passages):
        return (1 / (1 + np.exp(-300 * super().score(question, passages)))).astype(np.float32)


class PaddedByItsNeighbours(HonestReranker):
    def batch(self, question, passages):
        return np.array(super().batch(question, passages)) + 0.01 * max(map(len, passages)) / LIMIT


class LastBatchLost(HonestReranker):
    def score(self, question, passages):
        scores = super().score(question, passages)
        if len(passages) % BATCH and len(passages) > BATCH:
            scores[-(len(passages) % BATCH) :] = 0
        return scores


class DuplicatesDropped(HonestReranker):
    def score(self, question, passages):
        return super().score(question, list(dict.fromkeys(passages)))


class ListOfScores(HonestReranker):
    def score(self, question, passages):
        return super().score(question, passages).tolist()


class Doubles(HonestReranker):
    def score(self, question, passages):
        return super().score(question, passages).astype(np.float64)


class AColumn(HonestReranker):
    def score(self, question, passages):
        return super().score(question, passages)[:, None]


class RaisesForNone(HonestReranker):
    def score(self, question, passages):
        return super().score(question, passages) + 0 * np.max([len(p) for p in passages])


class NanForNothing(HonestReranker):
    def score(self, question, passages):
        scores = super().score(question, passages)
        scores[[not passage.strip() for passage in passages]] = np.nan
        return scores


class PassageWhole(HonestReranker):
    def read(self, question, passage):
        return question[:QUESTION_LIMIT], passage


class PassageCutShort(HonestReranker):
    def read(self, question, passage):
        return question[:QUESTION_LIMIT], passage[: LIMIT - 8]


class EndOfThePassage(HonestReranker):
    def read(self, question, passage):
        return question[:QUESTION_LIMIT], passage[-LIMIT:]


class QuestionTakesAllTheRoom(HonestReranker):
    def read(self, question, passage):
        return question[:QUESTION_LIMIT], passage[: max(0, LIMIT - len(question))]


class RefusesLong(HonestReranker):
    def read(self, question, passage):
        if len(passage) > LIMIT:
            raise ValueError("too long")
        return super().read(question, passage)


class KeepsItsBuffer(HonestReranker):
    """Gives out the same array again where the same is asked again."""

    def __init__(self):
        self.given = {}

    def score(self, question, passages):
        key = question, tuple(passages)
        if key not in self.given:
            self.given[key] = super().score(question, passages)
        return self.given[key]


class OneBufferForAllThreads(HonestReranker):
    def __init__(self):
        self.turn = threading.Barrier(2)

    def score(self, question, passages):
        self.scores = super().score(question, passages)
        if threading.current_thread() is not threading.main_thread():
            try:
                self.turn.wait(0.05)
            except threading.BrokenBarrierError:
                self.turn.reset()
        return self.scores.copy()


LIARS = tuple(kind for kind in list(globals().values()) if isinstance(kind, type) and HonestReranker in kind.__bases__)


def subject_of(kind: type[HonestReranker]) -> Subject:
    return Subject(kind(), truth, fitting)
