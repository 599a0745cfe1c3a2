"""One question from end to end: retrieve, pack, and (where asked) answer."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import anyio.to_thread

from indexes.errors import ChangeRequest, Unsupported
from rag import live
from rag.answer import Answer, TextDelta
from rag.answer import answer as answer_from
from rag.backend import Backend
from rag.catalog import chunks
from rag.catalog.chunks import StoredChunk
from rag.catalog.drift import Sampled
from rag.catalog.records import Store
from rag.context import Context, Message
from rag.conversation import by_model, by_words
from rag.models import ModelAlias, Sampling, Usage
from rag.models.registry import EXTRACTIVE, ModelRegistry, merge_sampling
from rag.pack import pack
from rag.pack_settings import Order, PackSettings
from rag.prompt import load_prompt
from rag.retrieve import QUERY_LIMIT, Retrieval, SearchOptions
from rag.tokenizers import BUILT_IN
from rag.traces import groundedness_of, row_of, trace_of

Kind = Literal["context", "chat.completion", "response"]
Truncation = Literal["auto", "disabled"]


@dataclass(frozen=True)
class Ask:
    """A question with everything that may be chosen for one request; None takes the installation's setting."""

    stores: tuple[Store, ...]
    messages: tuple[Message, ...]
    """The conversation, oldest first; the last one is the user's question."""
    kind: Kind = "context"
    """What the trace calls it."""
    query: str | None = None
    """What to search for; None makes it of the conversation, by words."""
    truncation: Truncation = "auto"
    """When the conversation does not fit: leave out its oldest turns, or refuse it. `disabled` lets it take the room of
    the passages too."""
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
    """Count with another tokenizer than the alias's (for a model that is not in the registry): a built-in one, or that
    of an alias by its name. Never a path: whether a file is there is not for a request to find out."""
    order: Order | None = None
    max_passages: int | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    """The arm of each A/B test that this is a part of, by the test's public id."""


@dataclass(frozen=True)
class Prepared:
    """A question that is ready to be answered."""

    context: Context
    retrieval: Retrieval
    alias: ModelAlias
    sampling: Sampling
    abstain: str
    """What is said when there is nothing to stand on."""
    query: str
    """What was searched for."""
    kind: Kind
    store_ids: tuple[int, ...]
    trace_id: str
    started: float
    """By `time.perf_counter`."""
    timings: Mapping[str, float]
    """Seconds of each stage."""
    wording: Usage | None = None
    """What a model took to say the question standalone; None where none was asked."""
    arms: Mapping[str, str] = field(default_factory=dict)
    """As in `Ask`."""
    otel_trace_id: str | None = None
    """Of the trace of OpenTelemetry that this is a part of, if there is one."""


async def prepare_with_model(backend: Backend, ask: Ask) -> Prepared:
    """As `prepare`, off the event loop; a later question of a conversation is made standalone by the model if there is
    one, as the settings say."""
    started = time.perf_counter()
    # Here, because opening one may import for seconds, which would hold up every stream of this process.
    await anyio.to_thread.run_sync(backend.models.llm, backend.models.get(ask.model))
    query, wording = await _standalone(backend, ask)
    full = replace(ask, query=query)
    prepared = await anyio.to_thread.run_sync(prepare, backend, full, limiter=backend.preparing)
    rewriting = prepared.started - started
    backend.meters.stages({"rewrite": rewriting})
    return replace(prepared, started=started, timings={"rewrite": rewriting, **prepared.timings}, wording=wording)


def prepare(backend: Backend, ask: Ask, retrieval: Retrieval | None = None) -> Prepared:
    """Retrieve and pack; no model is called. With a `retrieval` that was made for the same search, pack alone.

    Raises ChangeRequest when there is no question, or it does not fit the window, or the window is larger than
    the model's own (`invalid_window`), and NotThere for an unknown model or prompt.
    """
    started = time.perf_counter()
    question, history = _question(ask.messages)
    alias = _within(_alias(backend.models, ask), backend.caller.limits.tokens_per_request)
    sampling = merge_sampling(alias, ask.sampling)
    prompt = load_prompt(ask.prompt or alias.prompt, _folders(backend))
    query = ask.query or (question if backend.settings.conversation.rewrite == "off" else by_words(ask.messages))
    search = replace(ask.search, limit=ask.search.limit or backend.settings.context.candidates, min_relevance=None)
    retrieval = retrieval or live.search(backend, ask.stores, query, search)
    retrieved = time.perf_counter()
    sources = _Sources(backend, retrieval)
    context = pack(
        question,
        retrieval.candidates,
        alias,
        prompt,
        pack_settings(backend, ask),
        history=history,
        sampling=sampling,
        neighbours=sources.neighbours,
        slice_text=sources.slice_text,
    )
    if ask.truncation == "disabled" and context.ledger.turns_dropped:
        raise _too_long(context, alias)
    trace_id, packing = f"trace_{secrets.token_hex(12)}", time.perf_counter() - retrieved
    backend.meters.stages({"pack": packing})
    prepared = Prepared(
        context=context,
        retrieval=retrieval,
        alias=alias,
        sampling=sampling,
        abstain=prompt.sections["abstain"],
        query=query,
        kind=ask.kind,
        store_ids=tuple(store.id for store in ask.stores),
        trace_id=trace_id,
        started=started,
        timings={**retrieval.timings, "pack": packing},
        arms=ask.arms,
        otel_trace_id=backend.telemetry.mark(trace_id),
    )
    if ask.kind == "context":
        _trace(backend, prepared, None, None)
    return prepared


async def answer(backend: Backend, prepared: Prepared) -> AsyncGenerator[TextDelta | Answer, None]:
    """The answer piece by piece, the whole of it last. Closing the iterator stops the model. A trace is left behind
    however it ends."""
    said: Answer | None = None
    fault: BaseException | None = None
    first: float | None = None
    pieces = answer_from(prepared.context, backend.models, prepared.alias, prepared.sampling, prepared.abstain)
    try:
        async with aclosing(cast("AsyncGenerator[TextDelta | Answer, None]", pieces)) as events:
            async for piece in events:
                first = first or time.perf_counter() - prepared.started
                said = piece if isinstance(piece, Answer) else None
                yield piece
    except BaseException as error:
        fault = error
        raise
    finally:
        if said is not None and said.timings:
            _count(backend, said, first or 0.0)
        _trace(backend, prepared, said, fault)


def _count(backend: Backend, said: Answer, first: float) -> None:
    backend.meters.stages(said.timings)
    backend.meters.first_token(said.model, first)
    backend.meters.used(said.model, said.usage)


def _trace(backend: Backend, prepared: Prepared, said: Answer | None, fault: BaseException | None) -> None:
    words = backend.settings.traces.capture
    row = row_of(backend.caller, prepared, trace_of(backend, prepared, said, fault), capture=words)
    later = lambda: {"groundedness": groundedness_of(prepared, said, words=words)}  # noqa: E731
    backend.traces.submit(row, later, _vectors(backend, prepared))


def _vectors(backend: Backend, prepared: Prepared) -> list[Sampled]:
    """The question's vectors in the spaces that were searched, for the sample of its day."""
    if not backend.settings.drift.queries or not backend.settings.traces.days:
        return []
    found = []
    for generation in prepared.retrieval.generations:
        fingerprint = backend.space(generation).fingerprint
        vector = backend.question_vectors.peek(fingerprint, prepared.query[:QUERY_LIMIT])
        if vector is not None:
            found.append(Sampled(generation.store_id, generation.space_id, vector, random.random()))  # noqa: S311
    return found


async def _standalone(backend: Backend, ask: Ask) -> tuple[str | None, Usage | None]:
    """What the model makes of the last question of a conversation, None where the words must do; and what it took."""
    settings = backend.settings.conversation
    alias = backend.models.get(settings.model or ask.model)
    if ask.query is not None or settings.rewrite != "model" or alias.provider == EXTRACTIVE.provider:
        return ask.query, None
    _question(ask.messages)
    if not any(turn["role"] == "user" for turn in ask.messages[:-1]):
        return None, None
    return await by_model(ask.messages, backend.models, alias, _folders(backend))


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
        history_share=1.0 if ask.truncation == "disabled" else PackSettings.history_share,
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


def _too_long(context: Context, alias: ModelAlias) -> ChangeRequest:
    ledger = context.ledger
    return ChangeRequest(
        f"The conversation does not fit: {ledger.turns_dropped} of its oldest messages would have to be left out of "
        f"the {ledger.window} tokens of the model {alias.name!r}, of which {ledger.reserved_tokens} are reserved for "
        "the answer. Shorten it, or ask with `truncation` `auto`.",
        code="context_length_exceeded",
        param="messages",
    )


def _alias(models: ModelRegistry, ask: Ask) -> ModelAlias:
    alias = models.get(ask.model)
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
        changes.update(tokenizer=_tokenizer(models, ask.tokenizer), chat_template=None)
    return replace(alias, **changes) if changes else alias  # type: ignore[arg-type]


def _tokenizer(models: ModelRegistry, name: str) -> str:
    """The tokenizer that a request names."""
    named = {alias.name: alias.tokenizer for alias in models.aliases()} | {known: known for known in BUILT_IN}
    if name not in named:
        raise Unsupported(
            f"No tokenizer is called {name!r}. Known are {', '.join(BUILT_IN)}, and those of the model aliases by the "
            "alias's name.",
            code="unknown_tokenizer",
            param="tokenizer",
        )
    return named[name]


def _within(alias: ModelAlias, tokens: int | None) -> ModelAlias:
    """The alias within what one request of the caller's key may take, prompt and answer together."""
    if tokens is None or tokens >= alias.window:
        return alias
    return replace(alias, window=tokens, output_limit=min(alias.output_limit, max(1, tokens // 4)))


def _folders(backend: Backend) -> Sequence[Path]:
    return [backend.settings.prompts] if backend.settings.prompts is not None else []
