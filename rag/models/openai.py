"""Any server that speaks OpenAI's chat completions: hosted, or self-hosted by base URL.

Servers differ, so what is not needed is not relied on: usage may be missing, chunks may be empty, the end may be
announced by `[DONE]` alone. What one server refuses (`stream_options`, `max_tokens`) is left out or renamed, and
remembered.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.context import Context, Message
from rag.models import Delta, ModelAlias, Sampling, Usage
from rag.provider_key import key_advice, read_key

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

HOSTED = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
DRAIN_SECONDS = 0.1
LONGEST_EXCERPT = 300
"""Characters of a server's own message that ours repeats."""

log = logging.getLogger(__name__)


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
        self._key = read_key(f"The model {alias.name!r}", alias.api_key_env, alias.base_url)
        self._client = _connect(alias, self._key)
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
        except (OpenAIError, ValueError) as error:  # ValueError: a chunk that is not JSON
            raise self._translated(error) from error

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
            "messages": [dict(message) for message in messages],
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
            raise TryLater(f"The server of the model {self._alias.name!r} ended its stream without an answer.")
        if finish is None and not announced:
            raise TryLater(f"The server of the model {self._alias.name!r} broke off in the middle of its answer.")
        yield Delta(finish_reason="length" if finish == "length" else "stop", usage=usage)

    def _translated(self, error: Exception) -> RagError:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        who = f"The server of the model {self._alias.name!r}"
        if isinstance(error, APIStatusError):
            return self._refused(error, who)
        if isinstance(error, APITimeoutError):
            return TryLater(f"{who} sent nothing for {self._alias.timeout:g} seconds.", code="timeout")
        if isinstance(error, APIConnectionError):
            return TryLater(f"{who} could not be reached, or the connection broke.")
        log.warning("%s sent something that is no answer%s", who, self._excerpt(error))
        return TryLater(f"{who} sent something that is no answer. This server's log says more.")

    def _refused(self, error: APIStatusError, who: str) -> RagError:
        status = error.status_code
        if status in (401, 403):
            advice = key_advice(f"models.{self._alias.name}", self._alias.api_key_env, self._alias.base_url)
            return TryLater(f"{who} refused this installation's credentials (status {status}). {advice}")
        if status in (408, 409, 429) or status >= 500 or status < 400:
            log.warning("%s answered with status %d%s", who, status, self._excerpt(error))
            code = "rate_limit_exceeded" if status == 429 else "unavailable"
            return TryLater(f"{who} answered with status {status}.", code=code, retry_after=_retry_after(error))
        message = f"{who} refused the request (status {status}){self._excerpt(error)}."
        return ChangeRequest(message, code="model_refused")

    def _excerpt(self, error: Exception) -> str:
        """The server's own words, short and without our key."""
        words = " ".join((_own_message(error) or str(error)).split())
        if self._key:
            words = words.replace(self._key, "***")
        return f": {words[:LONGEST_EXCERPT].rstrip('.')}" if words else ""


def _connect(alias: ModelAlias, key: str | None) -> AsyncOpenAI:
    """A client that reaches its base URL and nothing else: no proxy from the environment, no redirects."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    timeout = Timeout(alias.timeout, connect=min(CONNECT_SECONDS, alias.timeout))
    client = AsyncOpenAI(
        base_url=alias.base_url or HOSTED,
        api_key=key or "none",
        timeout=timeout,
        max_retries=alias.retries,
        http_client=DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False, timeout=timeout),
    )
    if alias.base_url is not None:
        client.organization = client.project = None  # the SDK has read them from the environment
    return client


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
    return text if isinstance(text, str) else "", reason if isinstance(reason, str) and reason else None


def _usage(chunk: Any) -> Usage | None:
    usage = _field(chunk, "usage")
    counts = _field(usage, "prompt_tokens"), _field(usage, "completion_tokens")
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds that the server asks to wait: a number or a date (RFC 9110, 10.2.3)."""
    value = error.response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _own_message(error: Exception | APIError) -> str | None:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else None
