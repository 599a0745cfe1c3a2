"""A query's time beyond embedding it: in process, hybrid, top 10, over 20,000 chunks.

    python -m tests.benchmarks.query_time [--chunk-tokens 150] [--questions 500]

The corpus is `squad2_open`, the passages of an article in one document and chunks small enough to make 20,000 of them,
with the toy embedder of 384 dimensions: what is measured does not depend on what the vectors mean. Every question is
asked once, so that no cache helps, and each stage is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog.records import Store
from rag.retrieve import SearchOptions, retrieve
from rag.settings import load_settings
from tests.data import data_root


def articles(passages: Sequence[CorpusLine]) -> list[CorpusLine]:
    """The passages of each article as one document."""
    texts: dict[str, list[str]] = {}
    for passage in passages:
        texts.setdefault(passage.title, []).append(passage.text)
    return [CorpusLine(title, title, "\n\n".join(parts)) for title, parts in texts.items()]


@contextmanager
def filled(chunk_tokens: int) -> Iterator[tuple[Backend, Store, list[str]]]:
    """A store with the articles, and the questions."""
    dataset = read_beir(data_root() / "squad2_open")
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data": Path(folder), "embedder": "toy-384", "ingest.chunk_tokens": chunk_tokens}
        backend = Backend(load_settings(environment={}, flags=flags))
        runner = Runner(backend)
        store = intake.create_store(backend, "speed")
        ingest_corpus(backend, store, articles(dataset.corpus), lambda *_: None)
        runner.close()
        yield backend, store, list(dataset.queries.values())
        asyncio.run(backend.close())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-tokens", type=int, default=150)
    parser.add_argument("--questions", type=int, default=500)
    chosen = parser.parse_args()
    with filled(chosen.chunk_tokens) as (backend, store, asked):
        began = time.perf_counter()
        chunks = len(backend.view(backend.live_generation(store)))
        opened = time.perf_counter() - began
        questions = asked[: chosen.questions]
        for question in questions[:20]:
            retrieve(backend, [store], f"warm {question}", SearchOptions())
        stages: dict[str, list[float]] = {}
        for question in questions:
            began = time.perf_counter()
            timings = retrieve(backend, [store], question, SearchOptions()).timings
            stages.setdefault("beyond embedding", []).append(time.perf_counter() - began - timings["embed"])
            for stage, seconds in timings.items():
                stages.setdefault(stage, []).append(seconds)
    milliseconds = {
        stage: {
            "p50": round(1000 * float(np.percentile(s, 50)), 2),
            "p95": round(1000 * float(np.percentile(s, 95)), 2),
        }
        for stage, s in stages.items()
    }
    record = {"chunks": chunks, "questions": len(questions), "view opened in s": round(opened, 2), "ms": milliseconds}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
