"""Question sets as lines: what is read, what is refused, and that writing is the other way round."""

from __future__ import annotations

import json

import pytest

from indexes.errors import ChangeRequest
from rag.evaluation.questions import Label, as_line, read_lines, split_of

LINES = [
    '{"id": "a", "question": "How long?", "labels": [{"document": "x.md", "grade": 2}, {"text": "two years"}]}',
    "",
    '{"id": "b", "question": "Where?", "labels": [{"document": "x.md", "start": 3, "end": 9}], "split": "test"}',
    '{"question": "Who?", "answers": ["Ada"]}',
    '{"id": "d", "question": "Why?", "unanswerable": true}',
    '{"id": "e", "question": "To be judged"}',
]


def test_a_set_is_read_and_written_as_it_was() -> None:
    questions = read_lines(LINES)
    assert [question.id for question in questions][:2] == ["a", "b"]
    assert questions[0].labels == (Label("x.md", 2), Label(text="two years"))
    assert questions[1].split == "test"
    assert [question.judged for question in questions] == [True, True, True, True, False]
    assert read_lines(map(as_line, questions)) == questions
    assert questions[2].id == read_lines([json.dumps({"question": "Who?", "answers": ["Bo"]})])[0].id


def test_splits_stay_whatever_else_is_in_the_set() -> None:
    ids = [f"q{number}" for number in range(2_000)]
    lines = [json.dumps({"id": id_, "question": f"Question {id_}", "answers": ["x"]}) for id_ in ids]
    dev = {question.id for question in read_lines(lines, dev_share=0.3) if question.split == "dev"}
    assert 0.26 < len(dev) / len(ids) < 0.34
    assert {question.id for question in read_lines(lines[::-7], dev_share=0.3) if question.split == "dev"} <= dev
    assert {split_of(id_, 0.0) for id_ in ids} == {"test"}
    assert {split_of(id_, 1.0) for id_ in ids} == {"dev"}


GOOD = '{"id": "a", "question": "How long?", "answers": ["x"]}'


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ([], "empty_question_set", "no question"),
        (["", "  "], "empty_question_set", "no question"),
        ([GOOD, "{"], "broken_line", "Line 2 "),
        ([GOOD, "", "[]"], "broken_line", "Line 3 "),
        (['{"id": "a"}'], "broken_line", "question: Field required"),
        (['{"question": "  "}'], "broken_line", "question"),
        (['{"question": "a\\u0000b"}'], "broken_line", "question"),
        (['{"question": "a", "grade": 1}'], "broken_line", "grade"),
        (['{"question": "a", "labels": [{"document": "x", "grade": 1.5}]}'], "broken_line", "labels.0.grade"),
        (['{"question": "a", "labels": [{"grade": 1}]}'], "broken_line", "'document'"),
        (['{"question": "a", "labels": [{"start": 1, "end": 2}]}'], "broken_line", "'document'"),
        (['{"question": "a", "labels": [{"document": "x", "start": 2, "end": 2}]}'], "broken_line", "behind"),
        (['{"question": "a", "labels": [{"document": "x", "start": 2}]}'], "broken_line", "'end'"),
        (['{"question": "a", "labels": [{"document": "x", "text": "t", "start": 1, "end": 2}]}'], "broken_line", "or"),
        (['{"question": "a", "labels": [{"document": "x"}], "unanswerable": true}'], "broken_line", "unanswerable"),
        (['{"question": "a", "split": "train"}'], "broken_line", "split"),
        ([GOOD, '{"id": "a", "question": "Else?"}'], "duplicate_id", "Line 2 repeats the id 'a' of line 1"),
        (
            [GOOD, '{"id": "b", "question": "HOW  long?"}'],
            "duplicate_question",
            "Line 2 repeats the question of line 1",
        ),
        (['{"question": "a"}', '{"question": "b", "labels": [{"document": "x", "grade": 0}]}'], "no_positives", "2"),
    ],
)
def test_what_is_no_set_is_refused_by_name(lines: list[str], code: str, said: str) -> None:
    with pytest.raises(ChangeRequest) as caught:
        read_lines(lines)
    assert caught.value.code == code
    assert said in caught.value.message
