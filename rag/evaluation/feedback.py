"""Questions for a set out of what people thought of answers: candidates, to be looked at before they are measured by.

A thumb up makes the quotes that the answer cited into labels; a corrected answer becomes the answer of the question; a
thumb down leaves the question without labels, to be judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rag.evaluation.questions import Label, Question, split_of

UP = frozenset({"up", "thumbs_up", "good", "helpful", "correct", "positive"})
DOWN = frozenset({"down", "thumbs_down", "bad", "unhelpful", "incorrect", "negative"})
"""Labels of feedback that are a thumb; so are the values true and 1, and false, 0 and -1."""


@dataclass(frozen=True)
class Candidates:
    """Questions made from feedback, and how many answers that somebody judged could not be used."""

    questions: tuple[Question, ...]
    without_text: int
    """Their traces hold no words: `traces.capture` was off."""
    without_thumb: int
    """Nothing that was said of them is a thumb or a corrected answer."""


def candidates(
    judged: Iterable[tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]]],
    sources: Mapping[str, str],
    dev_share: float,
) -> Candidates:
    """Candidates from (trace id, trace, feedback to it); `sources` names files that are still there.

    Where the same was asked several times, what is known is put together.
    """
    found: dict[str, Question] = {}
    without_text = without_thumb = 0
    for id_, trace, feedback in judged:
        text = (trace["query"]["text"] or "").replace("\0", " ").strip()
        thumbs = [thumb for said in feedback if (thumb := thumb_of(said)) is not None]
        corrected = tuple(dict.fromkeys(said["corrected_answer"] for said in feedback if said.get("corrected_answer")))
        if not thumbs and not corrected:
            without_thumb += 1
        elif not text:
            without_text += 1
        else:
            praised = bool(thumbs) and all(thumbs) and not corrected
            labels = _cited(trace["citations"], sources) if praised else ()
            question = Question(id_, text, split_of(id_, dev_share), labels, corrected)
            key = " ".join(text.casefold().split())
            found[key] = _joined(found[key], question) if key in found else question
    return Candidates(tuple(found.values()), without_text, without_thumb)


def thumb_of(feedback: Mapping[str, Any]) -> bool | None:
    """Whether feedback is a thumb up or down; None where it is neither."""
    value, label = feedback.get("value"), str(feedback.get("label") or "").casefold()
    if value in (0, 1, -1):
        return bool(value == 1)
    return True if label in UP else False if label in DOWN else None


def _cited(citations: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> tuple[Label, ...]:
    quotes = ((c["file_id"], (c["quote"] or "").strip()) for c in citations)
    return tuple(dict.fromkeys(Label(sources.get(file, file), text=quote) for file, quote in quotes if quote))


def _joined(one: Question, other: Question) -> Question:
    labels = dict.fromkeys((*one.labels, *other.labels))
    answers = dict.fromkeys((*one.answers, *other.answers))
    return replace(one, labels=tuple(labels), answers=tuple(answers))
