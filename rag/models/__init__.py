"""Language models behind one door: aliases, limits, sampling, and who answers.

To add a provider: a file in this folder and a line in `PROVIDERS`; or name a class of your own
as `package.module:Class` in the settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rag.context import Context, Message, Passage

PROVIDERS = {
    "extractive": "rag.models.extractive:ExtractiveLLM",
    "openai": "rag.models.openai:OpenAILLM",
}
"""Each is constructed with the `ModelAlias` that it serves."""


ResponseForm = Literal["json_object", "json_schema"]
"""Forms of an answer that a provider can be held to."""


@dataclass(frozen=True)
class Sampling:
    """How to sample; None leaves the provider's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None
    """OpenAI's `response_format` of one of the kinds `ResponseForm`; None for plain text."""


@dataclass(frozen=True)
class ModelAlias:
    """One line of the registry: a model, its limits and its defaults."""

    name: str
    provider: str
    model: str
    window: int
    """Tokens that prompt and answer may take together."""
    output_limit: int
    """The most tokens of an answer; also what a prompt reserves unless the request asks for less."""
    tokenizer: str = "o200k_base"
    chat_template: str | None = None
    """Path of a Jinja chat template, to count exactly; else `message_tokens` is used."""
    message_tokens: int = 4
    """Tokens around each message (role and separators)."""
    reply_tokens: int = 3
    """Tokens that prime the reply."""
    base_url: str | None = None
    api_key_env: str | None = None
    """The environment variable that holds the key; keys never stand in the file."""
    timeout: float = 60.0
    """Seconds without a byte from the provider."""
    retries: int = 2
    prompt: str = "answer"
    """The prompt template used unless the request names one."""
    sampling: Sampling = Sampling()
    response_formats: tuple[ResponseForm, ...] = ()
    """What its server can be held to; a request for anything else is refused."""
    vector_stores: tuple[str, ...] = ()
    """Where a request that names no store looks, by id or unique name; empty: the only store there is."""
    concurrent: int = 64
    """Answers that one process makes at once."""
    waiting: int = 256
    """Requests of one process that wait for their turn, at most."""
    wait_seconds: float = 30.0
    """That a request waits for its turn, at most."""
    answer_seconds: float = 300.0
    """That one answer may take, at most."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Quote:
    """`passage.text[start:end]`, chosen to be said."""

    passage: Passage
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. The last one carries `finish_reason` and, if known, `usage`."""

    text: str = ""
    finish_reason: str | None = None
    """`stop` or `length`."""
    usage: Usage | None = None
    quote: Quote | None = None
    """Set when `text` repeats this stretch: brackets in it are the document's own, never markers, and the passage's
    marker after it stands for this stretch."""


class LLM(Protocol):
    """Answers a prompt, piece by piece."""

    def stream(
        self, messages: tuple[Message, ...], sampling: Sampling, context: Context | None = None
    ) -> AsyncIterator[Delta]:
        """Yield the answer in pieces. Closing the iterator stops the work.

        `context` is what the messages were rendered from, for providers that quote rather than write.
        Raises TryLater when the provider is overloaded, unreachable or too slow, ChangeRequest when it refuses the
        request.
        """
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...
