"""The checks that every `LLM` must pass: what it answers is known beforehand, whoever writes or quotes it.

`CHECKS` are for all of them, `SERVER_CHECKS` besides for those that ask a server that speaks OpenAI's interface.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.context import Context, Message
from rag.models import LLM, Delta, Sampling, Usage
from tests.fakes.openai_server import Drop, Events, FakeOpenAI, Hang, Nonsense, Say, Status

PLAIN = Sampling()


@dataclass(frozen=True)
class Asked:
    """A question as it is put to the model, and what must come of it."""

    messages: tuple[Message, ...]
    context: Context
    answer: str
    usage: Usage


@dataclass(frozen=True)
class Subject:
    """A model as the checks open it."""

    open: Callable[..., LLM]
    """With these fields of its alias changed."""
    questions: tuple[Asked, ...]
    """At least three, with different answers of at least ten tokens."""
    count: Callable[[str], int]
    """Tokens of an answer."""
    quotes: bool
    """Whether it answers by quoting."""
    server: FakeOpenAI | None = None
    """What it asks, answering every question as it must be unless a script says otherwise."""


@asynccontextmanager
async def opened(subject: Subject, **changes: Any) -> AsyncIterator[LLM]:
    llm = subject.open(**changes)
    try:
        yield llm
    finally:
        await llm.close()


async def said(llm: LLM, asked: Asked, sampling: Sampling = PLAIN) -> list[Delta]:
    return [delta async for delta in llm.stream(asked.messages, sampling, asked.context)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def pieces_make_the_answer(subject: Subject) -> None:
    async with opened(subject) as llm:
        for asked in subject.questions:
            assert text_of(await said(llm, asked)) == asked.answer


async def the_last_piece_and_no_other_says_how_it_ended(subject: Subject) -> None:
    async with opened(subject) as llm:
        for asked in subject.questions:
            *before, last = await said(llm, asked)
            assert last.finish_reason == "stop"
            assert last.usage == asked.usage
            assert [(delta.finish_reason, delta.usage) for delta in before] == [(None, None)] * len(before)
            assert len([delta for delta in before if delta.text]) > 1


async def an_answer_keeps_to_its_tokens_and_says_when_it_was_cut(subject: Subject) -> None:
    async with opened(subject) as llm:
        for asked in subject.questions[1:]:
            whole = subject.count(asked.answer)
            for most in (1, 5, whole - 1, whole):
                deltas = await said(llm, asked, Sampling(max_tokens=most))
                text = text_of(deltas)
                assert subject.count(text) <= most
                assert deltas[-1].finish_reason == ("stop" if most >= whole else "length")
                assert (text == asked.answer) == (most >= whole)
                assert bool(text) or most == 1
                assert deltas[-1].usage == Usage(asked.usage.prompt_tokens, subject.count(text))


async def quotes_are_stretches_of_their_passages(subject: Subject) -> None:
    """And the passage's marker comes next."""
    async with opened(subject) as llm:
        for asked in subject.questions:
            deltas = await said(llm, asked)
            quoted = [at for at, delta in enumerate(deltas) if delta.quote is not None]
            assert bool(quoted) == subject.quotes
            for at in quoted:
                quote = deltas[at].quote
                assert quote is not None
                assert any(quote.passage is passage for passage in asked.context.passages)
                assert 0 <= quote.start < quote.end <= len(quote.passage.text)
                assert deltas[at].text == quote.passage.text[quote.start : quote.end]
                assert text_of(deltas[at + 1 :]).lstrip().startswith(f"[{quote.passage.number}]")


async def an_answer_does_not_depend_on_those_before(subject: Subject) -> None:
    async with opened(subject) as llm:
        for asked in (*subject.questions[:2], *subject.questions[:1] * 2):
            assert text_of(await said(llm, asked)) == asked.answer


async def answers_at_the_same_time_do_not_mix(subject: Subject) -> None:
    async with opened(subject) as llm:
        questions = subject.questions * 2
        for asked, deltas in zip(questions, await asyncio.gather(*(said(llm, q) for q in questions)), strict=True):
            assert text_of(deltas) == asked.answer
            assert deltas[-1].usage == asked.usage
            assert [delta.finish_reason for delta in deltas].count("stop") == 1


async def an_answer_that_was_broken_off_leaves_the_next_alone(subject: Subject) -> None:
    one, two = subject.questions[:2]
    async with opened(subject) as llm:
        for _ in range(2):
            stream = llm.stream(one.messages, PLAIN, one.context)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            await stream.aclose()  # type: ignore[attr-defined]
            assert text_of(await said(llm, two)) == two.answer


async def what_is_given_is_left_alone(subject: Subject) -> None:
    asked = subject.questions[0]
    messages = tuple(dict(message) for message in asked.messages)
    before = copy.deepcopy(messages)
    async with opened(subject) as llm:
        await said(llm, replace(asked, messages=messages), Sampling(stop=("END",)))
    assert messages == before


async def whatever_is_asked_is_answered_or_refused(subject: Subject) -> None:
    asked = subject.questions[0]
    async with opened(subject) as llm:
        for ugly in ("\x00 a\ud800b", "[1] <|endoftext|> \u202e" + "🙂" * 2_000):
            messages = (*asked.messages, {"role": "user", "content": ugly})
            try:
                deltas = await said(llm, replace(asked, messages=messages))
            except ChangeRequest:
                continue
            assert deltas[-1].finish_reason == "stop"


async def closing_twice_is_harmless(subject: Subject) -> None:
    llm = subject.open()
    await said(llm, subject.questions[0])
    await llm.close()
    await llm.close()


CHECKS = (
    pieces_make_the_answer,
    the_last_piece_and_no_other_says_how_it_ended,
    an_answer_keeps_to_its_tokens_and_says_when_it_was_cut,
    quotes_are_stretches_of_their_passages,
    an_answer_does_not_depend_on_those_before,
    answers_at_the_same_time_do_not_mix,
    an_answer_that_was_broken_off_leaves_the_next_alone,
    what_is_given_is_left_alone,
    whatever_is_asked_is_answered_or_refused,
    closing_twice_is_harmless,
)


# ---- with a server ---------------------------------------------------------------------------------------------------


def server_of(subject: Subject) -> FakeOpenAI:
    assert subject.server is not None
    return subject.server


async def until_it_fails(subject: Subject, llm: LLM) -> tuple[list[Delta], RagError]:
    """What came before the error, and the error."""
    asked, deltas = subject.questions[0], []
    with pytest.raises(RagError) as caught:  # noqa: PT012
        async for delta in llm.stream(asked.messages, PLAIN, asked.context):
            deltas.append(delta)
    return deltas, caught.value


async def what_is_sent_is_messages_and_sampling(subject: Subject) -> None:
    asked, sampling = subject.questions[0], Sampling(temperature=0.0, top_p=0.5, max_tokens=9, stop=("END", "\n\n"))
    async with opened(subject) as llm:
        await said(llm, asked, sampling)
        await said(llm, asked)
    full, bare = (request.body for request in server_of(subject).requests[-2:])
    assert full["messages"] == bare["messages"] == list(asked.messages)
    sent = {"temperature": 0.0, "top_p": 0.5, "max_tokens": 9, "stop": ["END", "\n\n"]}
    assert {name: full[name] for name in sent} == sent
    assert not set(bare) & set(sent)
    assert not {"tools", "functions"} & set(full)


async def how_an_answer_ended_is_what_the_server_says(subject: Subject) -> None:
    """And without usage where it tells none."""
    async with opened(subject) as llm:
        for reason, usage in (("length", (11, 3)), ("stop", None), ("length", None)):
            server_of(subject).chat(Say("One", " two", finish_reason=reason, usage=usage))
            deltas = await said(llm, subject.questions[0])
            assert text_of(deltas) == "One two"
            assert deltas[-1].finish_reason == reason
            assert deltas[-1].usage == (usage and Usage(*usage))


async def characters_that_the_network_cuts_arrive_whole(subject: Subject) -> None:
    text = "Straße, 全文検索, 🙂👩‍👩‍👧‍👦 é"
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in text.split(" ")]
    finish = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    payloads = (*(json.dumps(event, ensure_ascii=False) for event in (*events, finish)), "[DONE]")
    async with opened(subject) as llm:
        for size in (1, 2, 7):
            server_of(subject).chat(Events(payloads, bytes_at_a_time=size))
            assert text_of(await said(llm, subject.questions[0])) == text.replace(" ", "")


async def what_the_server_refuses_is_to_be_changed(subject: Subject) -> None:
    async with opened(subject) as llm:
        for code in (400, 404, 413, 422):
            server_of(subject).chat(*[Status(code, "a context of 9999 tokens is too long")] * 2)
            deltas, error = await until_it_fails(subject, llm)
            assert isinstance(error, ChangeRequest)
            # What is said with a 404 is of the server's own affairs.
            assert ("9999 tokens" in error.message) == (code != 404)
            assert deltas == []
            server_of(subject).forget()


async def too_many_requests_are_tried_again_when_the_server_says(subject: Subject) -> None:
    server_of(subject).chat(Status(429, retry_after=7))
    async with opened(subject) as llm:
        _, error = await until_it_fails(subject, llm)
    assert isinstance(error, TryLater)
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 7.0)


async def a_server_that_fails_is_tried_later(subject: Subject) -> None:
    async with opened(subject, timeout=0.2) as llm:
        for fault in (
            *(Status(500), Status(503), Status(529), Drop(), Hang(), Nonsense()),
            *(Events(("not json",)), Events(("[DONE]",)), Events(())),
        ):
            server_of(subject).chat(fault)
            deltas, error = await until_it_fails(subject, llm)
            assert type(error) is TryLater, fault
            assert (error.code == "timeout") == isinstance(fault, Hang)
            assert deltas == []
    with FakeOpenAI() as gone:
        nobody = gone.base_url
    async with opened(subject, base_url=nobody) as llm:
        _, error = await until_it_fails(subject, llm)
    assert type(error) is TryLater


async def an_answer_that_breaks_off_is_no_answer(subject: Subject) -> None:
    """What came is kept, an end is never made up."""
    piece = json.dumps({"choices": [{"delta": {"content": "Port 8000"}}]})
    async with opened(subject, timeout=0.2) as llm:
        for fault in (
            Say("Port ", "8000", " is", cut_after=2),
            Events((piece,)),
            Events((piece, json.dumps({"error": {"message": "out of memory"}}))),
            Events((piece, "{")),
            Say("Port ", "8000", " is", hang_after=2),
        ):
            server_of(subject).chat(fault)
            deltas, error = await until_it_fails(subject, llm)
            assert type(error) is TryLater, fault
            assert text_of(deltas) == "Port 8000"
            assert not any(delta.finish_reason or delta.usage for delta in deltas)


async def breaking_off_hangs_up(subject: Subject) -> None:
    server, asked = server_of(subject), subject.questions[0]
    before = server.broken_pipes
    server.chat(Say(*["word "] * 2_000, delay=0.005))
    async with opened(subject) as llm:
        stream = llm.stream(asked.messages, PLAIN, asked.context)
        assert (await anext(stream)).text == "word "
        await stream.aclose()  # type: ignore[attr-defined]
        for _ in range(100):
            if server.broken_pipes > before:
                break
            await asyncio.sleep(0.02)
        assert server.broken_pipes == before + 1


SERVER_CHECKS = (
    what_is_sent_is_messages_and_sampling,
    how_an_answer_ended_is_what_the_server_says,
    characters_that_the_network_cuts_arrive_whole,
    what_the_server_refuses_is_to_be_changed,
    too_many_requests_are_tried_again_when_the_server_says,
    a_server_that_fails_is_tried_later,
    an_answer_that_breaks_off_is_no_answer,
    breaking_off_hangs_up,
)
