"""What a process counts and times, in Prometheus' form.

Counters and histograms are of this process alone: whoever scrapes adds up over the processes. Labels have few values
and all of them are ours, never words or ids of a caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rag.models import Usage

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Seconds."""


@dataclass(frozen=True)
class Gauge:
    """Something as it is at the moment: a number for each value of a label, or one under the empty value where there is
    no label."""

    name: str
    meaning: str
    label: str | None
    values: Mapping[str, float]


class Meters:
    """The counters of one open installation. Safe to use from several threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("requests", "Requests by route and status.", "method", "route", "status")
        self._request = self._histogram("request", "Requests, streams to their end.", REQUEST_BUCKETS, "route")
        self._stage = self._histogram("stage", "The stages of questions.", STAGE_BUCKETS, "stage")
        self._first_token = self._histogram(
            "first_token", "From a question to the first word of its answer.", REQUEST_BUCKETS, "model"
        )
        self._tokens = self._counter("tokens", "Tokens of prompts (in) and answers (out).", "model", "direction")
        self._lookups = self._counter("cache_lookups", "Lookups in a cache.", "cache", "found")
        self._lost = self._counter("traces_lost", "Traces that were not written.")
        self._feedback = self._counter("feedback", "Feedback by who gave it and how it judged.", "source", "verdict")
        self._mirrored = self._counter("mirrored_questions", "Questions mirrored to another generation.", "outcome")

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the template of its path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request.labels(route).observe(seconds)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Stages of a question, by name."""
        for stage, spent in seconds.items():
            self._stage.labels(stage).observe(spent)

    def first_token(self, model: str, seconds: float) -> None:
        """A model's answer began so long after the question came."""
        self._first_token.labels(model).observe(seconds)

    def used(self, model: str, usage: Usage) -> None:
        """A model's answer took these tokens."""
        self._tokens.labels(model, "in").inc(usage.prompt_tokens)
        self._tokens.labels(model, "out").inc(usage.completion_tokens)

    def looked_up(self, cache: str, found: bool) -> None:
        """A cache was asked."""
        self._lookups.labels(cache, "yes" if found else "no").inc()

    def lost(self, traces: int) -> None:
        """Traces were dropped."""
        self._lost.inc(traces)

    def judged(self, source: str, thumb: bool | None) -> None:
        """Feedback came; `thumb` is up, down or neither."""
        self._feedback.labels(source, {True: "up", False: "down", None: "other"}[thumb]).inc()

    def mirrored(self, outcome: str) -> None:
        """A question was `compared`, `dropped` because too many waited, or `failed`."""
        self._mirrored.labels(outcome).inc()

    def render(self, gauges: Iterable[Gauge]) -> bytes:
        """All of it, and these gauges, as CONTENT_TYPE."""
        return generate_latest(_Everything(self._registry, gauges))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"rag_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"rag_{name}_seconds", meaning, labels, buckets=buckets, registry=self._registry)


class _Everything(Collector):
    def __init__(self, registry: CollectorRegistry, gauges: Iterable[Gauge]) -> None:
        self._registry = registry
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        for gauge in self._gauges:
            family = GaugeMetricFamily(
                f"rag_{gauge.name}", gauge.meaning, labels=[gauge.label] if gauge.label else None
            )
            for value, number in gauge.values.items():
                family.add_metric([value] if gauge.label else [], number)
            yield family
