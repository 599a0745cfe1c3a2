"""Models that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.models import Delta, Quote, Sampling, Usage
from rag.models.extractive import ExtractiveLLM
from rag.models.openai import OpenAILLM


class Asking(OpenAILLM):
    """Honest, with its deltas in one hand: `said` may be changed by each liar."""

    async def stream(self, messages, sampling, context=None):
        stream = self.said(messages, sampling, context)
        try:
            async for delta in stream:
                yield delta
        finally:
            await stream.aclose()

    async def said(self, messages, sampling, context):
        stream = super().stream(messages, sampling, context)
        try:
            async for delta in stream:
                yield delta
        finally:
            await stream.aclose()


class Quoting(ExtractiveLLM):
    """The same for the one that quotes."""

    async def stream(self, messages, sampling, context=None):
        async for delta in self.said(messages, sampling, context):
            yield delta

    async def said(self, messages, sampling, context):
        async for delta in super().stream(messages, sampling, context):
            yield delta


def changing(change, parent=Asking):
    """A liar that changes each delta."""

    class Liar(parent):
        async def stream(self, messages, sampling, context=None):
            stream = super().stream(messages, sampling, context)
            try:
                async for delta in stream:
                    for changed in change(delta):
                        yield changed
            finally:
                await stream.aclose()

    return Liar


def asking_for(change, parent=Asking):
    """A liar that asks for something else."""

    class Liar(parent):
        async def stream(self, messages, sampling, context=None):
            stream = super().stream(*change(messages, sampling), context)
            try:
                async for delta in stream:
                    yield delta
            finally:
                await stream.aclose()

    return Liar


def failing(raised):
    """A liar that raises something else."""

    class Liar(Asking):
        async def stream(self, messages, sampling, context=None):
            stream = super().stream(messages, sampling, context)
            try:
                async for delta in stream:
                    yield delta
            except RagError as error:
                raise raised(error) from error
            finally:
                await stream.aclose()

    return Liar


def slipped(delta):
    quote = delta.quote
    return [replace(delta, quote=quote and replace(quote, start=quote.start + 1))]


def without_its_passage(delta):
    quote = delta.quote
    return [replace(delta, quote=quote and replace(quote, passage=replace(quote.passage)))]


def unmarked(delta):
    return [] if delta.text.strip().startswith("[") else [delta]


class Buffered(Asking):
    """Says everything at once, at the end."""

    async def said(self, messages, sampling, context):
        kept = [delta async for delta in super().said(messages, sampling, context)]
        yield Delta("".join(delta.text for delta in kept))
        yield kept[-1]


class BufferedInPieces(Asking):
    """Says every piece, but none before the last has come."""

    async def said(self, messages, sampling, context):
        for delta in [delta async for delta in super().said(messages, sampling, context)]:
            yield delta


class FirstPieceLost(Asking):
    async def said(self, messages, sampling, context):
        first = True
        async for delta in super().said(messages, sampling, context):
            if not first:
                yield delta
            first = False


class EndOnTheLastText(Asking):
    """The end is told beside the last words, and then once more."""

    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            yield delta if delta.text else Delta(finish_reason="stop")
            if delta.finish_reason:
                yield delta


class EndOnly(Asking):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            if delta.text:
                yield delta


class MakesUpAnEnd(Asking):
    async def said(self, messages, sampling, context):
        spoke = False
        try:
            async for delta in super().said(messages, sampling, context):
                spoke = True
                yield delta
        except TryLater:
            if not spoke:
                raise
            yield Delta(finish_reason="length")


class SilentWhenItBreaks(Asking):
    async def said(self, messages, sampling, context):
        try:
            async for delta in super().said(messages, sampling, context):
                yield delta
        except TryLater:
            return


class EmptyWhenItFails(Asking):
    async def said(self, messages, sampling, context):
        spoke = False
        try:
            async for delta in super().said(messages, sampling, context):
                spoke = True
                yield delta
        except TryLater:
            if spoke:
                raise
            yield Delta(finish_reason="stop")


class NeverHangsUp(Asking):
    """Reads on behind the back of whoever has left."""

    async def stream(self, messages, sampling, context=None):
        queue = asyncio.Queue()

        async def read():
            try:
                async for delta in super(Asking, self).stream(messages, sampling, context):
                    queue.put_nowait(delta)
            except RagError as error:
                queue.put_nowait(error)

        self.reading = asyncio.create_task(read())
        while True:
            delta = await queue.get()
            if isinstance(delta, RagError):
                raise delta
            yield delta
            if delta.finish_reason:
                return

    async def close(self):
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await super().close()


class OneMouth(Asking):
    """Streams at the same time write into one."""

    waiting: list[Delta]

    async def said(self, messages, sampling, context):
        self.waiting = getattr(self, "waiting", [])
        async for delta in super().said(messages, sampling, context):
            self.waiting.append(delta)
            await asyncio.sleep(0.002)
            yield self.waiting.pop()


class OneAtATime(Asking):
    """Whoever leaves early leaves it locked."""

    async def stream(self, messages, sampling, context=None):
        if getattr(self, "busy", False):
            raise TryLater("One at a time.")
        self.busy = True
        async for delta in super().stream(messages, sampling, context):
            yield delta
        self.busy = False


class SaysItAgain(Asking):
    """What was answered once is the answer to everything."""

    async def said(self, messages, sampling, context):
        if not hasattr(self, "kept"):
            kept = [delta async for delta in super().said(messages, sampling, context)]
            if kept[-1].finish_reason == "stop" and sampling.max_tokens is None:
                self.kept = kept
        for delta in getattr(self, "kept", None) or kept:
            yield delta


class RemembersTheTalk(Asking):
    """Sends along what was asked before."""

    async def said(self, messages, sampling, context):
        self.talk = (*getattr(self, "talk", ()), *messages)
        async for delta in super().said(self.talk, sampling, context):
            yield delta


class NothingBeyondTheBasicPlane(Asking):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            yield replace(delta, text="".join(letter if letter < "\U00010000" else "\ufffd" for letter in delta.text))


class WritesIntoTheMessages(Asking):
    async def said(self, messages, sampling, context):
        for message in messages:
            message["content"] = message["content"].strip() + "\nBe brief."
        async for delta in super().said(messages, sampling, context):
            yield delta


class ClosesOnce(Asking):
    async def close(self):
        await super().close()
        del self._client


class CutsWithoutAWord(Quoting):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            yield replace(delta, finish_reason=delta.finish_reason and "stop")


class QuotesAnotherPassage(Quoting):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            quote = delta.quote
            yield replace(delta, quote=quote and Quote(context.passages[0], 0, len(quote.text)))


class CountsTheQuestionToo(Quoting):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            usage = delta.usage
            yield replace(delta, usage=usage and Usage(usage.prompt_tokens, usage.completion_tokens + 1))


class Paraphrases(Quoting):
    async def said(self, messages, sampling, context):
        async for delta in super().said(messages, sampling, context):
            yield replace(delta, text=delta.text.replace("The ", "the "))


def one_more(sampling):
    return replace(sampling, max_tokens=sampling.max_tokens and sampling.max_tokens + 1)


LIARS = {
    **{
        kind.__name__: kind
        for kind in list(globals().values())
        if isinstance(kind, type) and {Asking, Quoting} & set(kind.__bases__)
    },
    "NoUsage": changing(lambda delta: [replace(delta, usage=None)]),
    "UsageMadeUp": changing(lambda delta: [replace(delta, usage=delta.usage or (delta.finish_reason and Usage(0, 0)))]),
    "UsageOnEveryPiece": changing(lambda delta: [replace(delta, usage=delta.usage or Usage(1, 1))]),
    "EndOnEveryPiece": changing(lambda delta: [replace(delta, finish_reason="stop")]),
    "AlwaysStops": changing(lambda delta: [replace(delta, finish_reason=delta.finish_reason and "stop")]),
    "AlwaysCut": changing(lambda delta: [replace(delta, finish_reason=delta.finish_reason and "length")]),
    "WordsOfItsOwn": changing(lambda delta: [replace(delta, finish_reason=delta.finish_reason and "eos_token")]),
    "TalksOnAfterTheEnd": changing(lambda delta: [delta, Delta("")] if delta.finish_reason else [delta]),
    "EveryPieceTwice": changing(lambda delta: [delta, Delta(delta.text)]),
    "SpacesLost": changing(lambda delta: [replace(delta, text=delta.text.strip())]),
    "QuotesWithoutAPassage": changing(without_its_passage, Quoting),
    "QuotesOffByOne": changing(slipped, Quoting),
    "QuotesNothing": changing(lambda delta: [replace(delta, quote=None)], Quoting),
    "MarksNothing": changing(unmarked, Quoting),
    "NoLimit": asking_for(lambda messages, sampling: (messages, replace(sampling, max_tokens=None))),
    "NoLimitWhenQuoting": asking_for(lambda messages, sampling: (messages, Sampling()), Quoting),
    "OneTokenTooMany": asking_for(lambda messages, sampling: (messages, one_more(sampling)), Quoting),
    "NoStop": asking_for(lambda messages, sampling: (messages, replace(sampling, stop=()))),
    "ZeroIsNothing": asking_for(
        lambda messages, sampling: (messages, replace(sampling, temperature=sampling.temperature or None))
    ),
    "ATemperatureOfItsOwn": asking_for(
        lambda messages, sampling: (messages, replace(sampling, temperature=sampling.temperature or 0.0))
    ),
    "OneMessage": asking_for(lambda messages, sampling: (messages[-1:], sampling)),
    "RawErrors": failing(lambda error: error.__cause__ or error),
    "AlwaysLater": failing(lambda error: TryLater(error.message)),
    "AlwaysTheCallersFault": failing(lambda error: ChangeRequest(error.message)),
}
