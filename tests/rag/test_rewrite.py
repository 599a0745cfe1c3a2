"""A query worded anew by a model, against a real server that misbehaves to order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag.models import Usage
from rag.models.registry import ModelRegistry
from rag.rewrite import LONGEST, rewrite
from rag.tokenizers import open_tokenizer
from tests.fakes.openai_server import Drop, FakeOpenAI, Hang, Nonsense, Say, Status

QUERY = "hi, whats the ret policy for kettles"


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def _registry(fake: FakeOpenAI) -> ModelRegistry:
    return ModelRegistry({"scripted": fake.table("small-1")}, default="scripted")


async def test_the_model_words_the_query_anew(fake: FakeOpenAI) -> None:
    fake.chat(Say("return policy ", "for\n kettles ", usage=(7, 5)))
    registry = _registry(fake)
    assert await rewrite(registry, QUERY) == ("return policy for kettles", Usage(7, 5))
    body = fake.requests[-1].body
    assert body["messages"][-1] == {"role": "user", "content": QUERY}
    assert QUERY not in body["messages"][0]["content"]
    await registry.close()


async def test_a_provider_that_does_not_count_is_counted_for(fake: FakeOpenAI) -> None:
    fake.chat(Say("return policy for kettles", usage=None))
    registry = _registry(fake)
    _, usage = await rewrite(registry, QUERY)
    tokens = [open_tokenizer("o200k_base").count(message["content"]) for message in fake.requests[-1].body["messages"]]
    assert usage is not None
    assert sum(tokens) < usage.prompt_tokens < sum(tokens) + 20
    assert usage.completion_tokens == open_tokenizer("o200k_base").count("return policy for kettles")
    await registry.close()


@pytest.mark.parametrize("fault", [Status(500), Status(429), Drop(), Nonsense(), Say(""), Say("x" * (LONGEST + 1))])
async def test_a_model_that_fails_or_rambles_leaves_the_query_as_it_is(fake: FakeOpenAI, fault: object) -> None:
    fake.chat(fault)
    registry = _registry(fake)
    assert (await rewrite(registry, QUERY))[0] == QUERY
    assert len(fake.requests) == 1
    await registry.close()


async def test_a_model_that_hangs_is_not_waited_for(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.models.brief.SECONDS", 0.2)
    fake.chat(Hang())
    registry = _registry(fake)
    assert (await rewrite(registry, QUERY))[0] == QUERY
    await registry.close()


async def test_without_a_language_model_nothing_is_done() -> None:
    registry = ModelRegistry({})
    assert await rewrite(registry, QUERY) == (QUERY, None)
