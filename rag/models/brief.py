"""A few words of a model for our own use: a question worded for the search."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from rag.context import Message
from rag.models import ModelAlias, Sampling
from rag.models.registry import ModelRegistry

SECONDS = 8.0
"""That the model may take, at most."""
OUTPUT_TOKENS = 96
LONGEST = 1_000
"""Characters that are of use; a model that goes on is stopped."""


async def brief_answer(registry: ModelRegistry, alias: ModelAlias, asked: tuple[Message, ...]) -> str:
    """What the model says, with a little more than LONGEST characters where it rambles; it waits its turn in the queue.

    Raises TimeoutError after SECONDS, and what `LLM.stream` and the queue raise.
    """
    sampling = Sampling(temperature=0.0, max_tokens=min(OUTPUT_TOKENS, alias.output_limit))
    said = ""
    async with asyncio.timeout(SECONDS), registry.queue(alias).place():
        async with aclosing(registry.stream(alias, asked, sampling)) as deltas:
            async for delta in deltas:
                said += delta.text
                if len(said) > LONGEST:
                    break
    return said
