"""A few words of a model for our own use: a question worded for the search."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

from indexes.errors import RagError
from rag.context import Message
from rag.models import ModelAlias, Sampling, Usage
from rag.models.registry import ModelRegistry
from rag.tokenizers import PromptCounter

SECONDS = 8.0
"""That the model may take, at most."""
OUTPUT_TOKENS = 96
LONGEST = 1_000
"""Characters that are of use; a model that goes on is stopped."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Brief:
    """What a model said, and what that took."""

    text: str
    """In one line. Empty where the model failed, was late, or said more than LONGEST characters."""
    usage: Usage
    """As the provider counted; where it did not, of what was said, counted here."""


async def brief_answer(registry: ModelRegistry, alias: ModelAlias, asked: tuple[Message, ...], purpose: str) -> Brief:
    """What the model says within SECONDS; it waits its turn in the queue. A failure is told by the log alone, as one to
    do what `purpose` says."""
    sampling = Sampling(temperature=0.0, max_tokens=min(OUTPUT_TOKENS, alias.output_limit))
    said, usage, failed = "", None, False
    try:
        async with asyncio.timeout(SECONDS), registry.queue(alias).place():
            async with aclosing(registry.stream(alias, asked, sampling)) as deltas:
                async for delta in deltas:
                    said += delta.text
                    usage = delta.usage or usage
                    if len(said) > LONGEST:
                        break
    except (RagError, TimeoutError) as error:
        log.warning("the model %r did not %s: %s", alias.name, purpose, error)
        failed = True
    text = " ".join(said.split())
    return Brief("" if failed or len(text) > LONGEST else text, usage or _counted(alias, asked, said))


def _counted(alias: ModelAlias, asked: tuple[Message, ...], said: str) -> Usage:
    if not said:
        return Usage(0, 0)
    counter = PromptCounter(alias)
    return Usage(counter.count(asked), counter.tokenizer.count(said))
