"""From a context to a cited answer, as a stream: what leaves here has been checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.citations import Citation, CitationFilter, RemovedMarker
from rag.clock import Clock
from rag.context import Context
from rag.fence import visible
from rag.json_answers import JsonCitationFilter
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
    citations: tuple[Citation, ...] = ()
    """Those whose markers end in it."""


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
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds: `queue` until the model's turn came, `first_token` from then until its first word, `answer` until its
    last. Empty where no model was asked."""


AnswerEvent = TextDelta | Answer


async def answer(
    context: Context, registry: ModelRegistry, alias: ModelAlias, sampling: Sampling, abstention: str
) -> AsyncIterator[AnswerEvent]:
    """Stream `TextDelta`s and, last, the `Answer`. Closing the iterator stops the model.

    Without anything relevant (`context.grounded` is False) no model is called: the answer is `abstention`. A model that
    says nothing stands on nothing either. `sampling` is the request's, over the alias's own. Raises what
    `merge_sampling`, `ModelQueue.place` and `LLM.stream` raise, TryLater (`timeout`) when it takes longer than the
    alias allows, and ChangeRequest (`not_grounded`) where an abstention has no place in the form that was asked for.
    When a model breaks off, what it said before has been delivered.
    """
    merged = merge_sampling(alias, sampling)
    if not context.grounded:
        _require_prose(merged, abstention)
        yield TextDelta(abstention)
        yield Answer(abstention, (), (), False, "stop", Usage(0, 0), alias.name)
        return
    tokenizer = open_tokenizer(alias.tokenizer)
    filtered = (JsonCitationFilter if merged.response_format else CitationFilter)(context.passages)
    said = _Said((merged.max_tokens or alias.output_limit) * CHARACTERS_PER_TOKEN)
    clock = Clock()
    try:
        async with registry.queue(alias).place():
            clock.mark("queue")
            stream = registry.stream(alias, context.messages, merged, context)
            async with aclosing(_timed(stream, alias)) as deltas:
                async for delta in deltas:
                    clock.mark_once("first_token")
                    if text := filtered.feed(said.take(delta), delta.quote):
                        yield said.out(text, filtered.citations)
                    if said.room == 0:
                        said.finish_reason = "length"
                        break
    except RagError:
        if text := filtered.finish():
            yield said.out(text, filtered.citations)
        raise
    clock.mark("answer")
    if text := filtered.finish():
        yield said.out(text, filtered.citations)
    yield Answer(
        text=said.text,
        citations=tuple(filtered.citations),
        removed_markers=tuple(filtered.removed),
        grounded=bool(visible(said.text).strip()),
        finish_reason=said.finish_reason,
        usage=said.usage or Usage(context.ledger.prompt_tokens, tokenizer.count(said.raw)),
        model=alias.name,
        timings=clock.spent,
    )


def _require_prose(sampling: Sampling, abstention: str) -> None:
    if sampling.response_format is not None:
        raise ChangeRequest(
            f"{abstention} (An answer in the form that was asked for needs something to stand on.)",
            code="not_grounded",
            param="messages",
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
        self._cited = 0

    def take(self, delta: Delta) -> str:
        """The text of `delta` as far as there is room."""
        text = delta.text[: self.room]
        if delta.finish_reason == "length":
            self.finish_reason = "length"
        self.usage = delta.usage or self.usage
        self.room -= len(text)
        self._raw.append(text)
        return text

    def out(self, text: str, citations: list[Citation]) -> TextDelta:
        """Note that `text` goes out, with those of all `citations` so far that are new."""
        self._text.append(text)
        new = tuple(citations[self._cited :])
        self._cited = len(citations)
        return TextDelta(text, new)

    @property
    def raw(self) -> str:
        return "".join(self._raw)

    @property
    def text(self) -> str:
        return "".join(self._text)


async def _timed(deltas: AsyncGenerator[Delta, None], alias: ModelAlias) -> AsyncGenerator[Delta, None]:
    """The same, as long as one answer may take. Only waiting for the model is timed, never whoever reads."""
    deadline = asyncio.get_running_loop().time() + alias.answer_seconds
    async with aclosing(deltas):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    delta = await anext(deltas)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise TryLater(
                    f"The model {alias.name!r} did not finish within {alias.answer_seconds:g} seconds.", code="timeout"
                ) from error
            yield delta
