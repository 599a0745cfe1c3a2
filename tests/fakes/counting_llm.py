"""A model that says the question's own words and counts how often it is asked, and one that is never there."""

from __future__ import annotations

from collections.abc import AsyncIterator

from indexes.errors import TryLater
from rag.context import Context, Message
from rag.models import Delta, ModelAlias, Sampling, Usage

ASKED: list[str] = []
ALIAS = {
    "provider": "tests.fakes.counting_llm:CountingLLM",
    "model": "counted",
    "window": 4096,
    "output_limit": 64,
    "tokenizer": "o200k_base",
}
"""The settings of an alias for the one that counts."""


class CountingLLM:
    def __init__(self, alias: ModelAlias) -> None:
        self._alias = alias

    async def stream(
        self, messages: tuple[Message, ...], sampling: Sampling, context: Context | None = None
    ) -> AsyncIterator[Delta]:
        assert context is not None
        ASKED.append(context.question)
        yield Delta(f"It is said [1]: {context.question} Temperature {sampling.temperature}.")
        yield Delta(finish_reason="stop", usage=Usage(100, 7))

    async def close(self) -> None:
        pass


class AwayLLM(CountingLLM):
    async def stream(
        self, messages: tuple[Message, ...], sampling: Sampling, context: Context | None = None
    ) -> AsyncIterator[Delta]:
        raise TryLater(f"The model {self._alias.name!r} is away.")
        yield Delta()
