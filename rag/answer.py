"""From a context to a cited answer, as a stream: what leaves here has been checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, cast

from indexes.errors import RagError
from rag.citations import Citation, CitationFilter, RemovedMarker
from rag.context import Context
from rag.fence import visible
from rag.models import Delta, ModelAlias, Sampling, Usage
from rag.models.registry import ModelRegistry, merge_sampling
from rag.tokenizers import open_tokenizer

FinishReason = Literal["stop", "length"]

CHARACTERS_PER_TOKEN = 12
"""More than any tokenizer gets out of a token on average over an answer: a model that says more has run away."""


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer, checked; never empty."""

    text: str


@dataclass(frozen=True)
class Answer:
    """The whole answer, the last event of a stream. `text` is all deltas joined; citations point into it."""

    text: str
    citations: tuple[Citation, ...]
    removed_markers: tuple[RemovedMarker, ...]
    grounded: bool
    finish_reason: FinishReason
    usage: Usage
    """As the provider counted, or counted here with the alias's tokenizer."""
    model: str
    """The alias's name."""


AnswerEvent = TextDelta | Answer


async def answer(
    context: Context, registry: ModelRegistry, alias: ModelAlias, sampling: Sampling, abstention: str
) -> AsyncIterator[AnswerEvent]:
    """Stream `TextDelta`s and, last, the `Answer`. Closing the iterator stops the model.

    Without anything relevant (`context.grounded` is False) no model is called: the answer is `abstention`. A model that
    says nothing stands on nothing either. `sampling` is the request's, over the alias's own. Raises what
    `merge_sampling` and `LLM.stream` raise; when a model breaks off, what it said before has been delivered.
    """
    merged = merge_sampling(alias, sampling)
    if not context.grounded:
        yield TextDelta(abstention)
        yield Answer(abstention, (), (), False, "stop", Usage(0, 0), alias.name)
        return
    tokenizer = open_tokenizer(alias.tokenizer)
    filtered = CitationFilter(context.passages)
    said = _Said((merged.max_tokens or alias.output_limit) * CHARACTERS_PER_TOKEN)
    try:
        async with aclosing(_stream(context, registry, alias, merged)) as deltas:
            async for delta in deltas:
                if text := filtered.feed(said.take(delta), delta.quote):
                    yield said.out(text)
                if said.room == 0:
                    said.finish_reason = "length"
                    break
    except RagError:
        if text := filtered.finish():
            yield said.out(text)
        raise
    if text := filtered.finish():
        yield said.out(text)
    yield Answer(
        text=said.text,
        citations=tuple(filtered.citations),
        removed_markers=tuple(filtered.removed),
        grounded=bool(visible(said.text).strip()),
        finish_reason=said.finish_reason,
        usage=said.usage or Usage(context.ledger.prompt_tokens, tokenizer.count(said.raw)),
        model=alias.name,
    )


class _Said:
    """What the model has said so far, cut where it runs away, and what of it went out."""

    def __init__(self, room: int) -> None:
        self.room = room
        """Characters that may still come."""
        self.finish_reason: FinishReason = "stop"
        self.usage: Usage | None = None
        self._raw: list[str] = []
        self._text: list[str] = []

    def take(self, delta: Delta) -> str:
        """The text of `delta` as far as there is room."""
        text = delta.text[: self.room]
        if delta.finish_reason == "length":
            self.finish_reason = "length"
        self.usage = delta.usage or self.usage
        self.room -= len(text)
        self._raw.append(text)
        return text

    def out(self, text: str) -> TextDelta:
        """Note that `text` goes out."""
        self._text.append(text)
        return TextDelta(text)

    @property
    def raw(self) -> str:
        return "".join(self._raw)

    @property
    def text(self) -> str:
        return "".join(self._text)


def _stream(
    context: Context, registry: ModelRegistry, alias: ModelAlias, sampling: Sampling
) -> AsyncGenerator[Delta, None]:
    """The provider's iterator, as something that can be closed; every asynchronous generator can."""
    return cast("AsyncGenerator[Delta, None]", registry.llm(alias).stream(context.messages, sampling, context))
