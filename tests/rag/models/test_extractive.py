"""Quoting: what is quoted stands in the passage, answers the question, and reads as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.errors import ChangeRequest
from rag.context import Context, Passage
from rag.models import Delta, Sampling
from rag.models.extractive import MOST_QUOTES, MOST_ROWS, ExtractiveLLM, quotes
from rag.models.registry import EXTRACTIVE
from rag.segments import MOST_CODE_LINES, segments
from rag.tokenizers import open_tokenizer
from tests.benchmarks import bench_extractive
from tests.data import shared_data
from tests.rag.answers import context, passage

MANUAL = """# Server

The server speaks HTTP. It was written in spring.

## Changing the port

Stop it first. Then do the following:

1. Open `rag.toml`.
2. Set `port` to
   another number.
3. Start it again.

## Backups

Copy the data folder, e.g. with rsync. Dr. Smith recommends 3.5 copies a day.

```sh
rag backup --to /mnt
```

| setting | default |
|---|---|
| port | 8000 |
| host | 127.0.0.1 |
"""


def cut(text: str) -> list[tuple[str, str]]:
    return [(part.kind, text[part.start : part.end]) for part in segments(text)]


async def said(found: Context, max_tokens: int | None = None) -> list[Delta]:
    llm = ExtractiveLLM(EXTRACTIVE)
    deltas = [delta async for delta in llm.stream(found.messages, Sampling(max_tokens=max_tokens), found)]
    await llm.close()
    return deltas


async def spoken(question: str, *passages: Passage) -> str:
    return "".join(delta.text for delta in await said(context(question, *passages)))


def test_a_manual_is_cut_into_what_can_be_quoted_whole() -> None:
    assert cut(MANUAL) == [
        ("heading", "# Server"),
        ("sentence", "The server speaks HTTP."),
        ("sentence", "It was written in spring."),
        ("heading", "## Changing the port"),
        ("sentence", "Stop it first."),
        ("sentence", "Then do the following:"),
        ("item", "1. Open `rag.toml`."),
        ("item", "2. Set `port` to\n   another number."),
        ("item", "3. Start it again."),
        ("heading", "## Backups"),
        ("sentence", "Copy the data folder, e.g. with rsync."),
        ("sentence", "Dr. Smith recommends 3.5 copies a day."),
        ("code", "```sh\nrag backup --to /mnt\n```"),
        ("row", "| setting | default |"),
        ("row", "| port | 8000 |"),
        ("row", "| host | 127.0.0.1 |"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\n ", []),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("यह पहला है। यह दूसरा है।", ["यह पहला है।", "यह दूसरा है।"]),
        ("He said: “Stop.” Then he left.", ["He said: “Stop.”", "Then he left."]),
        (
            "Press and hold\nthe button for 3\nseconds. Then wait.",
            ["Press and hold\nthe button for 3\nseconds.", "Then wait."],
        ),
        ("Is it on? Yes! It is… Good.", ["Is it on?", "Yes!", "It is…", "Good."]),
        ("```\nnever closed\n  indented", ["never closed", "  indented"]),
    ],
)
def test_sentences_of_many_kinds(text: str, expected: list[str]) -> None:
    assert [words for _, words in cut(text)] == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("aB .:!?\n\t-*#|`~1。é\u200b"), max_size=200))
def test_segments_ascend_and_hold_every_word_outside_of_marks(text: str) -> None:
    found = segments(text)
    ends = [0, *(part.end for part in found)]
    for part, before in zip(found, ends, strict=False):
        assert before <= part.start < part.end <= len(text)
        assert text[part.start : part.end].strip()
    if "```" not in text and "~~~" not in text:
        outside = "".join(text[a:b] for a, b in zip(ends, [*(part.start for part in found), len(text)], strict=True))
        assert not any(letter.isalnum() for letter in outside)


async def test_the_heading_above_counts_and_a_list_comes_with_what_announces_it() -> None:
    answer = await spoken("How do I change the port?", passage(1, MANUAL))
    assert "1. Open `rag.toml`.\n2. Set `port` to\n   another number.\n3. Start it again. [1]" in answer
    assert "spring" not in answer


async def test_code_is_quoted_whole_and_its_fence_stays_closed() -> None:
    answer = await spoken("rag backup command", passage(1, MANUAL))
    assert "```sh\nrag backup --to /mnt\n```\n\n[1]" in answer


TABLE = "| code | meaning |\n|---|---|\n" + "".join(
    f"| `code_{n}` | the file failed for reason {n} |\n" for n in range(9)
)


async def test_of_a_table_a_few_rows_are_quoted_with_its_header_only_above_the_first() -> None:
    for text in (TABLE, f"The codes of a failed file are:\n\n{TABLE}"):
        answer = await spoken("Which code has a file that failed for reason 7?", passage(1, text))
        assert "| `code_7` | the file failed for reason 7 |" in answer
        assert answer.count("| `code_") <= MOST_ROWS
        assert "| code | meaning |" not in answer
    answer = await spoken("Which code has reason 0?", passage(1, TABLE))
    assert answer.startswith("| code | meaning |\n|---|---|\n| `code_0` |")
    assert await spoken("code meaning", passage(1, TABLE)) != "| code | meaning | [1]"


async def test_of_a_long_code_block_its_best_line_is_quoted_or_the_sentence_before_without_a_lone_fence() -> None:
    lines = "\n".join(f"step{n} --option-{n}" for n in range(MOST_CODE_LINES + 1))
    text = f"Run the migration of the database like this:\n\n```sh\n{lines}\n```\n\nThen look at the log of it."
    for question in ("How is the migration of the database run?", "step4 option"):
        answer = await spoken(question, passage(1, text))
        assert "```" not in answer
        assert answer.count("--option") <= MOST_QUOTES
    assert "step4 --option-4" in answer


async def test_an_answer_does_not_begin_with_a_clearly_less_relevant_passage() -> None:
    texts = ("The port of the printer is blue.", "The default port of the server is 8000.")
    weak, strong = (passage(i, text) for i, text in enumerate(texts, 1))
    found = quotes(
        "What is the default port of the server?", [replace(weak, relevance=0.2), replace(strong, relevance=0.8)]
    )
    assert next(iter(found)).passage.number == 2


async def test_the_passage_that_answers_is_quoted_not_the_first() -> None:
    others = [passage(i, f"The weather of region {i} is mild. It rains in autumn.") for i in (1, 2, 4)]
    answer = await spoken("What is the default port?", *others[:2], passage(3, "The default port is 8000."), others[2])
    assert answer == "The default port is 8000. [3]"


async def test_the_documents_own_brackets_are_quoted_as_they_stand() -> None:
    text = "The default port is 8000 [2], as 【7】 says [^3]."
    assert await spoken("What is the default port?", passage(1, text)) == f"{text} [1]"


async def test_what_cannot_be_seen_is_not_said() -> None:
    text = "The default port\u202e is\u200b 80\u00ad00.\x00\U000e0041"
    deltas = await said(context("What is the default port?", passage(1, text)))
    assert "".join(delta.text for delta in deltas) == "The default port is 8000. [1]"
    assert [delta.quote.text for delta in deltas if delta.quote] == [text]
    nothing = await said(context("What is the default port?", passage(1, "\u200b")))
    assert "".join(delta.text for delta in nothing) == ""


async def test_nothing_to_quote_is_refused() -> None:
    with pytest.raises(ChangeRequest) as caught:
        await said(context("What?"))
    assert caught.value.code == "no_passages"


@pytest.mark.parametrize("limit", [8, 12, 20, 40, 80])
async def test_a_cut_answer_is_whole_words_with_their_marker(limit: int) -> None:
    deltas = await said(context("How do I change the port of the server?", passage(1, MANUAL)), limit)
    text = "".join(delta.text for delta in deltas)
    assert 0 < open_tokenizer(EXTRACTIVE.tokenizer).count(text) <= limit
    assert text.rstrip().endswith("[1]")
    assert (deltas[-1].finish_reason == "stop") == (limit >= 80)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=4), st.text(max_size=60))
def test_every_quote_is_a_stretch_of_its_passage(texts: list[str], question: str) -> None:
    found = quotes(question, [passage(i + 1, text) for i, text in enumerate(texts)])
    assert len(found) <= MOST_QUOTES
    numbers = [(quote.passage.number, quote.start) for quote in found]
    assert numbers == sorted(numbers)
    for quote in found:
        assert 0 <= quote.start <= quote.end <= len(quote.passage.text)


def test_real_support_questions_are_answered_better_than_by_the_first_sentences() -> None:
    shared_data(bench_extractive.FOLDER)
    corpus = {row["_id"]: row for row in bench_extractive.read("corpus.jsonl")}
    questions = [row for row in bench_extractive.read("qa.jsonl") if row["gold"] in corpus][::10]
    f1 = {}
    for name, say in (("lead", bench_extractive.lead(3)), ("ours", bench_extractive.extractive)):
        answers = [say(row["question"], [bench_extractive.passage(1, corpus[row["gold"]], 0.5)]) for row in questions]
        f1[name] = sum(map(bench_extractive.token_f1, answers, [row["answer"] for row in questions])) / len(questions)
    assert f1["ours"] > f1["lead"] + 0.1


def test_a_run_of_dots_is_looked_at_once() -> None:
    text = "." * 200_000 + "x"  # half a minute, where every dot begins anew
    assert [(part.start, part.end) for part in segments(text)] == [(0, len(text))]
