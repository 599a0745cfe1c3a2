"""One question from end to end: retrieve, pack, and (where asked) answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from indexes.errors import ChangeRequest
from rag.answer import Answer, TextDelta
from rag.answer import answer as answer_from
from rag.backend import Backend
from rag.catalog import chunks
from rag.catalog.chunks import StoredChunk
from rag.catalog.records import Store
from rag.context import Context, Message
from rag.models import ModelAlias, Sampling
from rag.models.registry import merge_sampling
from rag.pack import pack
from rag.pack_settings import Order, PackSettings
from rag.prompt import load_prompt
from rag.retrieve import Retrieval, SearchOptions, retrieve


@dataclass(frozen=True)
class Ask:
    """A question with everything that may be chosen for one request; None takes the installation's setting."""

    stores: tuple[Store, ...]
    messages: tuple[Message, ...]
    """The conversation, oldest first; the last one is the user's question."""
    model: str | None = None
    """An alias of the registry."""
    prompt: str | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    """`limit` is how many candidates to propose, `min_relevance` what grounds an answer."""
    sampling: Sampling = field(default_factory=Sampling)
    window: int | None = None
    """Tokens of prompt and answer together, instead of the alias's own window, and within it unless a `tokenizer` is
    named."""
    tokenizer: str | None = None
    """Count with another tokenizer than the alias's (for a model that is not in the registry)."""
    order: Order | None = None
    max_passages: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A question that is ready to be answered."""

    context: Context
    retrieval: Retrieval
    alias: ModelAlias
    sampling: Sampling
    abstain: str
    """What is said when there is nothing to stand on."""


def prepare(backend: Backend, ask: Ask) -> Prepared:
    """Retrieve and pack; no model is called.

    Raises ChangeRequest when there is no question, or it does not fit the window, or the window is larger than
    the model's own (`invalid_window`), and NotThere for an unknown model or prompt.
    """
    question, history = _question(ask.messages)
    alias = _within(_alias(backend.models.get(ask.model), ask), backend.caller.limits.tokens_per_request)
    sampling = merge_sampling(alias, ask.sampling)
    prompt = load_prompt(ask.prompt or alias.prompt, _folders(backend))
    settings = pack_settings(backend, ask)
    search = replace(ask.search, limit=ask.search.limit or backend.settings.context.candidates, min_relevance=None)
    retrieval = retrieve(backend, ask.stores, question, search)
    sources = _Sources(backend, retrieval)
    context = pack(
        question,
        retrieval.candidates,
        alias,
        prompt,
        settings,
        history=history,
        sampling=sampling,
        neighbours=sources.neighbours,
        slice_text=sources.slice_text,
    )
    return Prepared(context, retrieval, alias, sampling, prompt.sections["abstain"])


def answer(backend: Backend, prepared: Prepared) -> AsyncIterator[TextDelta | Answer]:
    """The answer piece by piece, the whole of it last. Closing the iterator stops the model."""
    return answer_from(prepared.context, backend.models, prepared.alias, prepared.sampling, prepared.abstain)


def pack_settings(backend: Backend, ask: Ask) -> PackSettings:
    """How to fill the window for one request."""
    configured = backend.settings.context
    least = ask.search.min_relevance
    return PackSettings(
        order=ask.order or configured.order,
        max_passages=ask.max_passages or configured.max_passages,
        widen=configured.widen,
        min_relevance=backend.settings.retrieval.min_relevance if least is None else least,
        context_tokens=configured.tokens,
    )


class _Sources:
    """Where packing finds what lies between and beside the candidates."""

    def __init__(self, backend: Backend, retrieval: Retrieval) -> None:
        self._backend = backend
        self._sets = retrieval.chunk_sets
        self._keys: dict[int, str] = {}

    def neighbours(self, version_id: int, first: int, last: int) -> Sequence[StoredChunk]:
        with self._backend.database.read() as connection:
            return chunks.neighbours(connection, version_id, self._sets[version_id], first, last)

    def slice_text(self, version_id: int, start: int, end: int) -> str:
        if version_id not in self._keys:
            with self._backend.database.read() as connection:
                self._keys[version_id] = chunks.text_key(connection, version_id)
        return self._backend.texts.read(self._keys[version_id])[start:end]


def _question(messages: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ChangeRequest(
            "The conversation must end with a question: a last message of the role user with some text.",
            code="empty_query",
            param="messages",
        )
    return messages[-1]["content"], tuple(messages[:-1])


def _alias(alias: ModelAlias, ask: Ask) -> ModelAlias:
    changes: dict[str, object] = {}
    if ask.window is not None:
        if ask.tokenizer is None and ask.window > alias.window:
            raise ChangeRequest(
                f"A window of {ask.window:,} tokens was asked for, and that of the model {alias.name!r} is "
                f"{alias.window:,}. Ask for that or less; for a model that is not in the registry, name its "
                "`tokenizer` too.",
                code="invalid_window",
                param="window",
            )
        changes["window"] = ask.window
        changes["output_limit"] = min(alias.output_limit, max(1, ask.window // 4))
    if ask.tokenizer is not None:
        changes.update(tokenizer=ask.tokenizer, chat_template=None)
    return replace(alias, **changes) if changes else alias  # type: ignore[arg-type]


def _within(alias: ModelAlias, tokens: int | None) -> ModelAlias:
    """The alias within what one request of the caller's key may take, prompt and answer together."""
    if tokens is None or tokens >= alias.window:
        return alias
    return replace(alias, window=tokens, output_limit=min(alias.output_limit, max(1, tokens // 4)))


def _folders(backend: Backend) -> Sequence[Path]:
    return [backend.settings.prompts] if backend.settings.prompts is not None else []
