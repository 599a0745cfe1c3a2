"""Any server that speaks OpenAI's chat completions: hosted, or self-hosted by base URL.

Servers differ, so what is not needed is not relied on: usage may be missing, chunks may be empty, the end may be
announced by `[DONE]` alone. What one server refuses (`stream_options`, `max_tokens`) is left out or renamed, and
remembered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from indexes.errors import TryLater
from rag.context import Context, Message
from rag.models import Delta, ModelAlias, Sampling, Usage
from rag.provider import Provider
from rag.tokenizers import plain

if TYPE_CHECKING:
    from openai import APIStatusError

DRAIN_SECONDS = 0.1


@dataclass(frozen=True)
class _Dialect:
    """What this server understands; starts hopeful and loses what is refused."""

    usage: bool = True
    limit: str = "max_tokens"


class OpenAILLM:
    """Streams from one alias's server. Only messages and sampling are sent, never tools."""

    def __init__(self, alias: ModelAlias) -> None:
        """Raises TryLater (`unavailable`) when the alias names a key that the environment lacks."""
        self._alias = alias
        who = f"The server of the model {alias.name!r}"
        self._provider = Provider(alias, f"models.{alias.name}", f"The model {alias.name!r}", who)
        self._client = self._provider.async_client()
        self._dialect = _Dialect()

    async def stream(
        self,
        messages: tuple[Message, ...],
        sampling: Sampling,
        context: Context | None = None,  # noqa: ARG002
    ) -> AsyncIterator[Delta]:
        """See `LLM`. When the stream breaks, what arrived has been yielded before TryLater is raised."""
        from openai import OpenAIError

        try:
            chunks = await self._open(messages, sampling)
            try:
                async with aclosing(self._deltas(chunks)) as deltas:
                    async for delta in deltas:
                        yield delta
            finally:
                await chunks.close()
        except (OpenAIError, ValueError, RecursionError) as error:  # the latter two: a chunk that is no JSON to be read
            raise self._provider.translated(error, refused="model_refused") from error

    async def close(self) -> None:
        """Release connections. Idempotent."""
        await self._client.close()

    async def _open(self, messages: tuple[Message, ...], sampling: Sampling) -> Any:
        """Send the request, in another dialect if the server refuses the first."""
        from openai import BadRequestError, UnprocessableEntityError

        dialect: _Dialect | None = self._dialect
        first: APIStatusError | None = None
        while dialect is not None:
            try:
                chunks = await self._client.chat.completions.create(**self._request(messages, sampling, dialect))
            except (BadRequestError, UnprocessableEntityError) as error:
                first = first or error
                dialect = _simpler(dialect, str(error))
            else:
                self._dialect = dialect
                return chunks
        assert first is not None
        raise first

    def _request(self, messages: tuple[Message, ...], sampling: Sampling, dialect: _Dialect) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._alias.model,
            "messages": [{name: plain(text) for name, text in message.items()} for message in messages],
            "stream": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            dialect.limit: sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "response_format": sampling.response_format,
            "stream_options": {"include_usage": True} if dialect.usage else None,
        }
        return {name: value for name, value in request.items() if value is not None}

    async def _deltas(self, chunks: Any) -> AsyncGenerator[Delta, None]:
        """Pieces of text, then one last delta with the finish and the usage, whatever the server left out.

        The SDK would make an object of each chunk, which takes longer than all the rest: its events are read instead.
        """
        finish: str | None = None
        usage: Usage | None = None
        spoke = announced = False
        async with aclosing(chunks._iter_events()) as events:
            async for event in events:
                if event.data.startswith("[DONE]"):
                    announced = True
                    await _drain(events)
                    break
                if not event.data:
                    continue
                chunk = json.loads(event.data)
                _require_no_error(chunk, chunks.response.request)
                usage = _usage(chunk) or usage
                text, reason = _piece(chunk)
                finish = finish or reason
                if text:
                    spoke = True
                    yield Delta(text)
        if not spoke and finish is None:
            raise TryLater(f"{self._provider.who} ended its stream without an answer.")
        if finish is None and not announced:
            raise TryLater(f"{self._provider.who} broke off in the middle of its answer.")
        yield Delta(finish_reason="length" if finish == "length" else "stop", usage=usage)


def _simpler(dialect: _Dialect, message: str) -> _Dialect | None:
    """What to try after a refusal; None when there is nothing left to leave out."""
    if dialect.limit == "max_tokens" and "max_completion_tokens" in message:
        return replace(dialect, limit="max_completion_tokens")
    if dialect.usage:
        return replace(dialect, usage=False)
    return None


async def _drain(events: AsyncGenerator[Any, None]) -> None:
    """Read the end of a body, so that its connection can be used again; not for long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await anext(events, None)


def _require_no_error(chunk: Any, request: Any) -> None:
    """Raise what a server tells of in the midst of its stream."""
    from openai import APIError

    error = chunk.get("error") if isinstance(chunk, dict) else None
    if error:
        message = error.get("message") if isinstance(error, dict) else error
        raise APIError(str(message), request=request, body=error)


def _piece(chunk: Any) -> tuple[str, str | None]:
    """Text and finish reason of a chunk, from whatever it holds."""
    choices = _field(chunk, "choices")
    if not isinstance(choices, list) or not choices:
        return "", None
    text, reason = _field(_field(choices[0], "delta"), "content"), _field(choices[0], "finish_reason")
    return plain(text) if isinstance(text, str) else "", reason if isinstance(reason, str) and reason else None


def _usage(chunk: Any) -> Usage | None:
    usage = _field(chunk, "usage")
    counts = _field(usage, "prompt_tokens"), _field(usage, "completion_tokens")
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
