"""Spans as they were recorded, for tests: OpenTelemetry's own SDK, exporting into memory."""

from __future__ import annotations

import json
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rag.telemetry import Telemetry


class Spans:
    """What one tracer provider has recorded since it was cleared."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def telemetry(self, *, capture: bool = False) -> Telemetry:
        """Ours, recording here."""
        return Telemetry(capture=capture, provider=self.provider)

    def clear(self) -> None:
        """Forget all."""
        self._exporter.clear()

    def all(self) -> Sequence[ReadableSpan]:
        """Those that have ended."""
        return self._exporter.get_finished_spans()

    def one(self, begins: str) -> ReadableSpan:
        """The only one whose name begins so."""
        (found,) = [span for span in self.all() if span.name.startswith(begins)]
        return found

    def words(self) -> str:
        """Everything that they say, as one text."""
        told = [(span.name, dict(span.attributes or {}), [e.name for e in span.events]) for span in self.all()]
        return json.dumps([told, [span.status.description for span in self.all()]])


def parent_of(span: ReadableSpan) -> int | None:
    """The id of the span above."""
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    """The id of a span."""
    assert span.context is not None
    return span.context.span_id
