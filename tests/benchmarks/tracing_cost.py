"""What traces and OpenTelemetry's spans cost of a question's time: in process, hybrid, over 20,000 chunks.

    python -m tests.benchmarks.tracing_cost [--chunk-tokens 150] [--pairs 40] [--block 25]

Questions are asked one after the other in blocks, with and without in turn, and the first of each pair changes, so that
a machine that becomes slower or faster hits both alike. Compared are the medians over all blocks; the interval (95 %)
is that of the pairs drawn anew, 2,000 times. Each question is asked twice in a row of blocks, once with and once
without; what a trace leaves to its writer's thread (groundedness, the row) is done while later questions of its block
are asked, and what is left then before the next block.

    search    hybrid search of the best ten; spans only, no trace is kept of it
    context   search and packing; its trace has no groundedness
    answer    search, packing and the extractive model's answer, whose groundedness is worked out
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ingest import intake
from ingest.beir import ingest_corpus, read_beir
from ingest.runner import Runner
from rag import ask, live
from rag.ask import Ask
from rag.backend import Backend
from rag.catalog.records import Store
from rag.retrieve import SearchOptions
from rag.settings import load_settings
from tests.benchmarks.catalog_size import articles
from tests.data import data_root

Question = Callable[[str], Awaitable[None]]
Switch = Callable[[], AbstractContextManager[object]]
WARM = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-tokens", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--block", type=int, default=25, help="questions of a block")
    chosen = parser.parse_args()
    with filled(chosen.chunk_tokens) as (backend, store, questions):
        print(json.dumps({"chunks": len(backend.view(backend.live_generation(store))), "questions": len(questions)}))
        asked, spans = kinds(backend, store), without_spans(backend)
        for name, switch, what in (
            ("traces", without_traces, ("context", "answer")),
            ("OpenTelemetry", spans, ("search", "context", "answer")),
        ):
            for kind in what:
                measured = asyncio.run(compared(backend, asked[kind], switch, questions, chosen.pairs, chosen.block))
                print(json.dumps({"cost of": name, "on": kind, **measured}), flush=True)


@contextmanager
def filled(chunk_tokens: int) -> Iterator[tuple[Backend, Store, list[str]]]:
    """A store with the articles of `squad2_open`, the toy embedder's vectors, and the questions."""
    dataset = read_beir(data_root() / "squad2_open")
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data": Path(folder), "embedder": "toy-384", "ingest.chunk_tokens": chunk_tokens}
        backend = Backend(load_settings(environment={}, flags=flags))
        store = intake.create_store(backend, "speed")
        with closing(Runner(backend)):
            ingest_corpus(backend, store, articles(dataset.corpus), lambda *_: None)
        yield backend, store, list(dataset.queries.values())
        asyncio.run(backend.close())


def kinds(backend: Backend, store: Store) -> dict[str, Question]:
    """What is asked of the store, by its name."""

    async def search(question: str) -> None:
        live.search(backend, [store], question, SearchOptions())

    async def context(question: str) -> None:
        ask.prepare(backend, asking(question, "context"))

    async def answer(question: str) -> None:
        prepared = ask.prepare(backend, asking(question, "chat.completion"))
        async with aclosing(ask.answer(backend, prepared)) as pieces:
            async for _ in pieces:
                pass

    def asking(question: str, kind: ask.Kind) -> Ask:
        return Ask(stores=(store,), messages=({"role": "user", "content": question},), kind=kind)

    return {"search": search, "context": context, "answer": answer}


def without_traces() -> AbstractContextManager[object]:
    return patch.object(ask, "_trace", lambda *_: None)


def without_spans(backend: Backend) -> Switch:
    """Has spans go to an exporter in memory from now on, but for where this is used."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    telemetry = backend.telemetry
    nothing, telemetry._tracer = telemetry._tracer, provider.get_tracer("rag")
    return lambda: patch.object(telemetry, "_tracer", nothing)


async def compared(
    backend: Backend, question: Question, switch: Switch, questions: Sequence[str], pairs: int, block: int
) -> dict[str, object]:
    """The medians with and without, in ms, and their ratio."""
    for text in questions[:WARM]:
        await question(f"warm {text}")
    with_, without = [], []
    for pair in range(pairs):
        texts = [questions[(pair * block + place) % len(questions)] for place in range(block)]
        for off in (pair % 2 == 0, pair % 2 == 1):
            if off:
                with switch():
                    without.append(await timed(question, texts))
            else:
                with_.append(await timed(question, texts))
            backend.traces.flush()
    return ratio(np.array(with_) * 1000, np.array(without) * 1000)


async def timed(question: Question, texts: Sequence[str]) -> list[float]:
    seconds = []
    for text in texts:
        began = time.perf_counter()
        await question(text)
        seconds.append(time.perf_counter() - began)
    return seconds


def ratio(with_: np.ndarray, without: np.ndarray) -> dict[str, object]:
    """Medians of questions in rows of pairs."""
    chance = np.random.default_rng(0)
    drawn = [chance.integers(0, len(with_), len(with_)) for _ in range(2_000)]
    ratios = [np.median(with_[rows]) / np.median(without[rows]) for rows in drawn]
    return {
        "p50 with, ms": round(float(np.median(with_)), 3),
        "p50 without, ms": round(float(np.median(without)), 3),
        "ratio": round(float(np.median(with_) / np.median(without)), 4),
        "interval": [round(float(end), 4) for end in np.percentile(ratios, [2.5, 97.5])],
        "n": with_.size,
    }


if __name__ == "__main__":
    main()
