"""How good an answer is against what is known of the right one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from rag.answer import Answer
from rag.context import Context
from rag.evaluation.questions import Question
from rag.fence import visible

_MARKER = re.compile(r"\[\d+\]")


def answer_recall(question: Question, _context: Context, answer: Answer) -> dict[str, float]:
    """`answer_recall`: the share of a known answer's words that the answer has too, in [0, 1]; of several the best.

    The recall of SQuAD's comparison of words (Rajpurkar et al., 2016), without its precision: an answer that says more
    than the known one is not worse for it. What it does not see: an answer that says the words and denies them.
    """
    said = Counter(_words(_MARKER.sub(" ", visible(answer.text))))
    shares = [
        sum((Counter(known) & said).values()) / len(known) for text in question.answers if (known := _words(text))
    ]
    return {"answer_recall": max(shares)} if shares else {}


ANSWER_MEASURES: tuple[Callable[[Question, Context, Answer], Mapping[str, float]], ...] = (answer_recall,)
"""What is measured of an answer: each returns its measures by name, or none where the question does not allow them."""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
