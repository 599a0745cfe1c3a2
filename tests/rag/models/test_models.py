"""Every provider of answers against the contract."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from rag.context import Context
from rag.models import PROVIDERS, ModelAlias, Usage
from rag.models.extractive import ExtractiveLLM
from rag.models.openai import OpenAILLM
from rag.models.registry import EXTRACTIVE
from rag.tokenizers import open_tokenizer
from tests.contracts.llm import CHECKS, SERVER_CHECKS, Asked, Subject
from tests.fakes.openai_server import FakeOpenAI, Obey, Say
from tests.rag.answers import context, passage

Check = Callable[[Subject], Awaitable[None]]


def extractive(kind: Callable[[ModelAlias], Any] = ExtractiveLLM) -> Subject:
    """Quotes, with the marker of each."""
    count = open_tokenizer(EXTRACTIVE.tokenizer).count
    rain = [passage(number, f"The weather of region {number} is mild. It rains in autumn.") for number in (1, 2)]
    port = passage(3, "# Winter\n\nThe default port of the server is 8000, not 80.")
    hours = passage(1, "Die Lampe lädt drei Stunden lang — “three hours”, 三時間 🙂, so says the label.")
    router, lamp = passage(1, "The router is blue on the front and grey behind."), passage(2, "The lamp is bright red.")
    questions = (
        (context("What is the default port?", *rain, port), f"{port.text.rpartition(chr(10))[2]} [3]"),
        (context("How many hours says the label of the lamp?", hours), f"{hours.text} [1]"),
        (context("Is the router blue, is the lamp red?", router, lamp), f"{router.text} [1] {lamp.text} [2]"),
    )

    def asked(found: Context, answer: str) -> Asked:
        return Asked(found.messages, found, answer, Usage(found.ledger.prompt_tokens, count(answer)))

    return Subject(
        lambda **changes: kind(replace(EXTRACTIVE, **changes)), tuple(asked(*pair) for pair in questions), count, True
    )


WORD = re.compile(r"\S+\s*")
"""A token, to the server of the tests."""


def written(body: dict[str, Any]) -> Say:
    """The answer of a server that writes: the question in many words, as many as it may."""
    question = body["messages"][-1]["content"]
    pieces = WORD.findall(f"You ask: {question} — and I say “Straße”, 全文検索, 🙂 to that, dear reader. [1]")
    kept = pieces[: body.get("max_tokens")]
    usage = sum(len(WORD.findall(message["content"])) for message in body["messages"]), len(kept)
    return Say(*kept, finish_reason="stop" if kept == pieces else "length", usage=usage)


def openai(server: FakeOpenAI, kind: Callable[[ModelAlias], Any] = OpenAILLM) -> Subject:
    """Whatever the server writes."""
    server.otherwise = Obey(written)
    alias = ModelAlias("remote", "openai", "small-1", 4096, 256, base_url=server.base_url, timeout=5.0, retries=0)

    def asked(question: str) -> Asked:
        found = context(question, passage(1, "Nothing to the point."))
        say = written({"messages": found.messages})
        assert say.usage is not None
        return Asked(found.messages, found, "".join(say.pieces), Usage(*say.usage))

    return Subject(
        lambda **changes: kind(replace(alias, **changes)),
        tuple(map(asked, ("Which port?", "Welche Straße?", "何時間？ 🙂"))),
        lambda text: len(WORD.findall(text)),
        False,
        server,
    )


@pytest.fixture
def subjects() -> Iterator[dict[str, Subject]]:
    with FakeOpenAI() as server:
        yield {"extractive": extractive(), "openai": openai(server)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_contract(name: str, check: Check, subjects: dict[str, Subject]) -> None:
    await check(subjects[name])


@pytest.mark.parametrize("check", SERVER_CHECKS, ids=lambda check: check.__name__)
async def test_contract_with_a_server(check: Check, subjects: dict[str, Subject]) -> None:
    await check(subjects["openai"])
