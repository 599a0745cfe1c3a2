"""Embedded tokens per second of the whole durable pipeline, against a bare `SentenceTransformer.encode` loop.

    python -m tests.benchmarks.ingest_speed [--documents 1000] [--rounds 2]

Both run in this process, in turn, over the same chunk texts of SciFact with the same weights; models are loaded and
warm before the clock starts. The pipeline's time runs from the first upload to the last document's end: originals
stored, parsed in the sandbox, split, embedded, published. The loop gets all texts at once, already cut to the model's
limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from ingest.runner import Runner
from ingest.split import embedding_text
from rag.backend import Backend
from rag.catalog import schema
from rag.settings import load_settings
from tests.data import data_root


def run_pipeline(corpus: list[CorpusLine]) -> tuple[float, list[str]]:
    """Seconds for the corpus, and the texts that were embedded."""
    with tempfile.TemporaryDirectory() as folder:
        backend = Backend(load_settings(environment={}, flags={"data": Path(folder)}))
        runner = Runner(backend)
        try:
            store = intake.create_store(backend, "speed")
            backend.embedder(backend.live_generation(store)).embed_documents(["warm"])
            assert runner.ready.wait(60)
            began = time.perf_counter()
            ingest_corpus(backend, store, corpus, lambda *_: None)
            seconds = time.perf_counter() - began
            with backend.database.read() as connection:
                rows = connection.execute(sa.select(schema.chunks.c.header, schema.chunks.c.text)).all()
            return seconds, sorted({embedding_text(row.header, row.text) for row in rows})
        finally:
            runner.close()
            asyncio.run(backend.close())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    corpus = list(read_beir(data_root() / "scifact", chosen.documents).corpus)
    from sentence_transformers import SentenceTransformer

    from rag.embedders.model_files import resolve_model

    model = SentenceTransformer(str(resolve_model("sentence-transformers/all-MiniLM-L6-v2").path), device="cpu")
    model.encode(["warm"])
    ours, bare = [], []
    for _ in range(chosen.rounds):
        seconds, texts = run_pipeline(corpus)
        tokens = sum(len(ids) for ids in model.tokenizer(texts)["input_ids"])
        ours.append(tokens / seconds)
        began = time.perf_counter()
        model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        bare.append(tokens / (time.perf_counter() - began))
    record = {
        "documents": len(corpus),
        "chunks": len(texts),
        "tokens": tokens,
        "pipeline tokens/s": [round(rate) for rate in ours],
        "bare loop tokens/s": [round(rate) for rate in bare],
        "ratio": round(statistics.mean(ours) / statistics.mean(bare), 3),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
