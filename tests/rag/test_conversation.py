"""The last question of a conversation, said so that it can be searched for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from rag import conversation
from rag.context import Message
from rag.conversation import by_model, by_words
from rag.models.registry import ModelRegistry
from tests.fakes.openai_server import FakeOpenAI, Hang, Say, Status

FIRST = "How long does the lamp's battery last?"


def talk(*said: str) -> tuple[Message, ...]:
    """A conversation in which user and assistant take turns."""
    return tuple({"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said))


@pytest.mark.parametrize(
    "question", ["Can it be replaced?", "And in winter?", "What about Norway?", "How long?", "Why?", "Do THEY break?"]
)
def test_a_question_that_leans_brings_the_one_before(question: str) -> None:
    messages = talk("Where is the shop?", "In Oslo.", FIRST, "Nine evenings.", question)
    assert by_words(messages) == f"{FIRST}\n{question}"


@pytest.mark.parametrize("question", ["Where does the boat to Norway leave?", "Which colours of kettles are sold?"])
def test_a_question_that_stands_alone_is_searched_alone(question: str) -> None:
    assert by_words(talk(FIRST, "Nine evenings.", question)) == question


def test_without_an_earlier_question_there_is_nothing_to_bring() -> None:
    assert by_words(talk("Can it be replaced?")) == "Can it be replaced?"
    system: Message = {"role": "system", "content": "Be brief."}
    assert by_words((system, *talk("Why?"))) == "Why?"


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


async def rewritten(server: FakeOpenAI, messages: tuple[Message, ...], **changes: Any) -> str | None:
    models = ModelRegistry({"remote": server.table("m", **{"output_limit": 64, **changes})}, default="remote")
    try:
        return (await by_model(messages, models, models.get(), []))[0]
    finally:
        assert models.queue(models.get()).busy == 0
        await models.close()


async def test_the_model_says_it_in_full_within_bounds(server: FakeOpenAI) -> None:
    server.chat(Say("\"Can the lamp's ", 'battery\nbe replaced?"\n'))
    long = "word " * 5_000
    turns = [text for at in range(8) for text in (f"Question {at}? {long}", f"Answer {at}. {long}")]
    assert await rewritten(server, talk(*turns, "Can it?")) == "Can the lamp's battery be replaced?"
    body = server.requests[0].body
    shown = body["messages"][1]["content"]
    assert (body["max_tokens"], body["temperature"]) == (64, 0)
    assert "Last question: Can it?" in shown
    assert "user: Question 7?" in shown
    assert "Question 4?" not in shown
    assert len(shown) < conversation.TURNS * (conversation.TURN_CHARACTERS + 20) + 200


@pytest.mark.parametrize("step", [Status(500), Hang(5), Say(), Say(" \n"), Say("x" * 2_000)], ids=repr)
async def test_what_is_no_question_is_left_to_the_words(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, step: Any
) -> None:
    monkeypatch.setattr("rag.models.brief.SECONDS", 0.3)
    server.chat(step)
    assert await asyncio.wait_for(rewritten(server, talk(FIRST, "Nine.", "Can it?")), 3) is None
