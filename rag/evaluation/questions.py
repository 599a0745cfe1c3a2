"""Questions with what is known of their answers, and how they stand in a file: one JSON object a line.

    {"id": "q7", "question": "How long is the warranty?", "labels": [{"document": "returns.md", "text": "two years"}],
     "answers": ["Two years."], "split": "dev"}

A label names a document by its file id or its source, and may say more closely what answers: a `text` that stands in
it (alone, wherever it stands), or a span of characters, `start` to `end`, of its parsed text. `grade` is how relevant
that is: 1 unless said otherwise, 0 for what was judged and is not. A question that nothing answers is `unanswerable`;
one with neither labels nor answers is still to be judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from indexes.errors import ChangeRequest

Split = Literal["dev", "test"]
"""`dev` is for choosing settings, `test` for judging what was chosen."""
SPLITS: tuple[Split, ...] = get_args(Split)
DEV_SHARE = 0.5
MOST_QUESTIONS = 100_000
MOST_LABELS = 1_000


@dataclass(frozen=True)
class Label:
    """What answers a question, and how well (`grade`, 0 for not at all)."""

    document: str | None = None
    """File id or source; None with a `text` that is looked for everywhere."""
    grade: int = 1
    text: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Question:
    """One question of a set, with everything that is known of its answer."""

    id: str
    text: str
    split: Split
    labels: tuple[Label, ...] = ()
    answers: tuple[str, ...] = ()
    unanswerable: bool = False

    @property
    def judged(self) -> bool:
        """Whether anything is known that an answer or a ranking can be held to."""
        return self.unanswerable or bool(self.answers) or any(label.grade > 0 for label in self.labels)


def split_of(id_: str, dev_share: float) -> Split:
    """The split of a question by its id alone: the same in every version of a set, and in every set."""
    place = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8]) / 2**64
    return "dev" if place < dev_share else "test"


def read_lines(lines: Iterable[str | bytes], dev_share: float = DEV_SHARE) -> list[Question]:
    """The questions in JSON lines. One without an id is named by a hash of its text; one without a split falls into
    `dev` with the probability `dev_share`, by its id.

    Raises ChangeRequest: `broken_line`, `duplicate_id` or `duplicate_question`, with the number of the line;
    `empty_question_set`; `no_positives` where no question has anything that it could be measured by; and
    `too_many_questions`.
    """
    questions: list[Question] = []
    ids: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        question = _question(number, line, dev_share)
        _refuse_again(ids, question.id, number, "duplicate_id", f"the id {question.id!r}")
        _refuse_again(texts, " ".join(question.text.casefold().split()), number, "duplicate_question", "the question")
        questions.append(question)
        if len(questions) > MOST_QUESTIONS:
            raise ChangeRequest(f"A set holds {MOST_QUESTIONS:,} questions at most.", code="too_many_questions")
    if not questions:
        raise ChangeRequest("There is no question: send one JSON object a line.", code="empty_question_set")
    if not any(question.judged for question in questions):
        raise ChangeRequest(
            f"None of the {len(questions):,} questions has a label of a grade above 0 or an answer, or is marked as "
            "unanswerable: there is nothing to measure by.",
            code="no_positives",
        )
    return questions


def as_line(question: Question) -> str:
    """A question as a line that `read_lines` reads as the same."""
    labels = [{name: value for name, value in vars(label).items() if value is not None} for label in question.labels]
    line: dict[str, Any] = {"id": question.id, "question": question.text, "split": question.split}
    if labels:
        line["labels"] = labels
    if question.answers:
        line["answers"] = list(question.answers)
    if question.unanswerable:
        line["unanswerable"] = True
    return json.dumps(line, ensure_ascii=False)


# ---- one line --------------------------------------------------------------------------------------------------------


_Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=1_024, pattern=r"^[^\x00]+$")]
_Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]
_Place = Annotated[int, Field(ge=0, lt=1 << 40)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _LabelLine(_Strict):
    document: _Name | None = None
    grade: Annotated[int, Field(ge=0, le=1_000)] = 1
    text: _Text | None = None
    start: _Place | None = None
    end: _Place | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> _LabelLine:
        if (self.start is None) != (self.end is None):
            raise ValueError("a span has a 'start' and an 'end'")
        if self.start is not None and self.end is not None and not self.start < self.end:
            raise ValueError("the 'end' of a span is behind its 'start'")
        if self.text is not None and self.start is not None:
            raise ValueError("it names either a 'text' or a span")
        if self.document is None and self.text is None:
            raise ValueError("it names a 'document', a 'text' or both")
        return self


class _QuestionLine(_Strict):
    id: _Id | None = None
    question: _Text
    split: Split | None = None
    labels: Annotated[list[_LabelLine], Field(max_length=MOST_LABELS)] = []
    answers: Annotated[list[_Text], Field(max_length=100)] = []
    unanswerable: bool = False

    @model_validator(mode="after")
    def _no_contradiction(self) -> _QuestionLine:
        if self.unanswerable and any(label.grade > 0 for label in self.labels):
            raise ValueError("it is 'unanswerable' and has a label that answers it")
        return self


def _question(number: int, line: str | bytes, dev_share: float) -> Question:
    try:
        read = _QuestionLine.model_validate_json(line)
    except ValidationError as error:
        raise ChangeRequest(f"Line {number} is not a question: {_what(error)}.", code="broken_line") from error
    id_ = read.id or "q_" + hashlib.sha256(read.question.encode()).hexdigest()[:16]
    labels = tuple(Label(**vars(label)) for label in read.labels)
    split = read.split or split_of(id_, dev_share)
    return Question(id_, read.question, split, labels, tuple(read.answers), read.unanswerable)


def _what(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _refuse_again(seen: dict[str, int], what: str, number: int, code: str, called: str) -> None:
    before = seen.setdefault(what, number)
    if before != number:
        raise ChangeRequest(f"Line {number} repeats {called} of line {before}.", code=code)
