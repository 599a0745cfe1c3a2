"""Spans of OpenTelemetry. No other file knows it.

Names are those of its conventions for generative AI as of 2026 (github.com/open-telemetry/semantic-conventions-genai,
`docs/gen-ai`), which still change. Words of questions, passages and answers are left out unless `telemetry.capture` is
set. Without an SDK nothing is recorded. The span of a request, its parent by `traceparent` and the export by the
standard `OTEL_*` variables are FastAPI's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from indexes.errors import RagError

if TYPE_CHECKING:
    from rag.catalog.records import Store
    from rag.context import Candidate, Message
    from rag.embedders import Embedder
    from rag.models import Delta, ModelAlias, Sampling

OPERATION = "gen_ai.operation.name"


class Telemetry:
    """Where the time of a request goes, as spans below that of the request."""

    def __init__(self, *, capture: bool = False, provider: TracerProvider | None = None) -> None:
        """`provider` takes the spans; None is the process's own, which does nothing unless somebody sets it up."""
        self.provider = provider
        self._capture = capture
        self._tracer = trace.get_tracer("rag", tracer_provider=provider)

    def mark(self, trace_id: str) -> str | None:
        """Note on the span at hand which of our traces tells of it. The id of the span's own trace, in 32 hexadecimal
        digits; None where nothing is recorded."""
        span = trace.get_current_span()
        if not span.is_recording():
            return None
        span.set_attribute("rag.trace.id", trace_id)
        return trace.format_trace_id(span.get_span_context().trace_id)

    @contextmanager
    def retrieval(self, stores: Sequence[Store], question: str, limit: int | None) -> Iterator[Retrieving]:
        """A search of these stores."""
        attributes: dict[str, Any] = {OPERATION: "retrieval"}
        name = "retrieval"
        if len(stores) == 1:
            attributes["gen_ai.data_source.id"] = stores[0].public_id
            name = f"retrieval {stores[0].public_id}"
        if limit is not None:
            attributes["gen_ai.retrieval.top_k"] = limit
        if self._capture:
            attributes["gen_ai.retrieval.query.text"] = question
        with self._current(name, attributes) as span:
            yield Retrieving(span, self._capture)

    @contextmanager
    def embeddings(self, embedder: Embedder) -> Iterator[None]:
        """Texts becoming vectors."""
        space = embedder.space
        attributes = {
            OPERATION: "embeddings",
            "gen_ai.provider.name": space.provider,
            "gen_ai.request.model": space.model,
            "gen_ai.embeddings.dimension.count": space.dimension,
        }
        with self._current(f"embeddings {space.model}", attributes):
            yield

    async def chat(
        self, alias: ModelAlias, messages: Sequence[Message], sampling: Sampling, deltas: AsyncIterator[Delta]
    ) -> AsyncGenerator[Delta, None]:
        """The pieces of a model's answer, as they come."""
        span = self._tracer.start_span(f"chat {alias.model}", kind=SpanKind.CLIENT, attributes=_asked(alias, sampling))
        recording, began, said = span.is_recording(), time.perf_counter(), list[str]()
        try:
            async with aclosing(cast("AsyncGenerator[Delta, None]", deltas)) as pieces:
                async for delta in pieces:
                    if recording:
                        _note_delta(span, delta, None if said else time.perf_counter() - began)
                        said.append(delta.text)
                    yield delta
        except GeneratorExit:  # whoever reads has enough
            raise
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            if recording and self._capture:
                span.set_attribute("gen_ai.input.messages", _as_json([(m["role"], m["content"]) for m in messages]))
                span.set_attribute("gen_ai.output.messages", _as_json([("assistant", "".join(said))]))
            span.end()

    @contextmanager
    def _current(self, name: str, attributes: dict[str, Any]) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                _fail(span, error)
                raise


class Retrieving:
    """The span of a search under way."""

    def __init__(self, span: Span, capture: bool) -> None:
        self._span = span
        self._capture = capture

    def found(self, candidates: Sequence[Candidate], generations: Sequence[str]) -> None:
        """Note what it found, and in which generations."""
        if not self._span.is_recording():
            return
        self._span.set_attribute("rag.generation.ids", list(generations))
        self._span.set_attribute("rag.candidates", len(candidates))
        if self._capture:
            told = [{"id": c.file_id, "score": c.relevance, "content": c.text} for c in candidates]
            self._span.set_attribute("gen_ai.retrieval.documents", json.dumps(told))


def _asked(alias: ModelAlias, sampling: Sampling) -> dict[str, Any]:
    place = urlsplit(alias.base_url or "")
    attributes = {
        OPERATION: "chat",
        "gen_ai.provider.name": alias.provider,
        "gen_ai.request.model": alias.model,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.output.type": "json" if sampling.response_format else "text",
        "server.address": place.hostname,
        "server.port": place.port or {"http": 80, "https": 443}.get(place.scheme),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _note_delta(span: Span, delta: Delta, first_seconds: float | None) -> None:
    if first_seconds is not None:
        span.set_attribute("gen_ai.response.time_to_first_chunk", first_seconds)
    if delta.finish_reason is not None:
        span.set_attribute("gen_ai.response.finish_reasons", [delta.finish_reason])
    if delta.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", delta.usage.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", delta.usage.completion_tokens)


def _as_json(said: Sequence[tuple[str, str]]) -> str:
    """Messages as the conventions have them."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said])


def _fail(span: Span, error: BaseException) -> None:
    """An error by its code or its class: its message may repeat what somebody said."""
    span.set_attribute("error.type", error.code if isinstance(error, RagError) else type(error).__name__)
    span.set_status(StatusCode.ERROR)
