"""How fast and in how much memory the whole durable pipeline takes documents in, each figure beside its baseline.

    python -m tests.benchmarks.ingest_speed scifact [--documents 1000] [--rounds 1] [--bare]
    python -m tests.benchmarks.ingest_speed small_files [--kilobytes 1000]
    python -m tests.benchmarks.ingest_speed large_file [--megabytes 200]
    python -m tests.benchmarks.ingest_speed pdf [--pages 600]
    python -m tests.benchmarks.ingest_speed growth [--chunks 100000] [--embedder toy-384]

`scifact`: embedded tokens per second from the first upload to the last document's end (originals stored, parsed in the
sandbox, split, embedded, published), against the same embedder alone over the same chunk texts, in turn in one process;
`--bare` adds `SentenceTransformer.encode`, which gets the same texts.
`small_files`: tokens per second of many files of 1 KB, against one file of the same size as all of them.
`large_file`: the most memory that ingesting a text file takes, children included, over what it takes before it begins.
`pdf`: seconds for parsing a file joined from the papers of `aragog_pdf`.
`growth`: chunks per second at a store's end, against those up to a tenth of its size.

All but `scifact` and `small_files` use the toy embedder unless told otherwise. Processor seconds are told beside the
wall's: where others use the machine, those of pipeline and baseline can still be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from ingest.runner import Runner
from ingest.sandbox import ParseLimits, ParserPool
from ingest.scratch import await_end
from ingest.split import embedding_text
from rag.backend import Backend
from rag.catalog import schema
from rag.catalog.records import Store
from rag.embedders import Embedder
from rag.settings import load_settings
from tests.benchmarks.watching import Memory, tree_bytes
from tests.data import data_root

MEGABYTE = 1 << 20
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WATCH_EVERY = 0.05
PRIVATE = "Pss_Anon"
TENTHS = 10


@contextmanager
def installation(embedder: str | None) -> Iterator[tuple[Backend, Store, Embedder]]:
    """A new one in a folder of its own, its jobs running and its model warm."""
    with tempfile.TemporaryDirectory() as folder:
        named = {} if embedder is None else {"embedder": embedder}
        backend = Backend(load_settings(environment={}, flags={"data": Path(folder), **named}))
        runner = Runner(backend)
        try:
            store = intake.create_store(backend, "speed")
            opened = backend.embedder(backend.live_generation(store))
            opened.embed_documents(["warm"])
            assert runner.ready.wait(60)
            yield backend, store, opened
        finally:
            runner.close()
            asyncio.run(backend.close())


@dataclass(frozen=True)
class Took:
    """Seconds of the wall's clock and of the processor, the latter of this process alone."""

    wall: float
    processor: float

    def rates(self, tokens: int) -> dict[str, int]:
        """Tokens per second of each."""
        return {"tokens/s": round(tokens / self.wall), "tokens per processor second": round(tokens / self.processor)}


def timed(work: Callable[[], object]) -> Took:
    """Do it and tell what it took."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def put_in(backend: Backend, store: Store, corpus: Sequence[CorpusLine]) -> None:
    ingest_corpus(backend, store, corpus, lambda *_: None)


def embedded_texts(backend: Backend) -> list[str]:
    """The texts that vectors were computed for."""
    with backend.database.read() as connection:
        rows = connection.execute(sa.select(schema.chunks.c.header, schema.chunks.c.text)).all()
    return sorted({embedding_text(row.header, row.text) for row in rows})


def embedded_tokens(backend: Backend) -> int:
    """How many tokens they hold."""
    with backend.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.sum(schema.documents.c.embedded_tokens))).scalar_one())


# ---- against the embedder alone ---------------------------------------------------------------------------------


def scifact(documents: int, rounds: int, *, bare: bool) -> Iterator[dict[str, Any]]:
    """The pipeline, then the embedder alone, over the same texts."""
    corpus = list(read_beir(data_root() / "scifact", documents).corpus)
    for _ in range(rounds):
        with installation(None) as (backend, store, embedder):
            ours = timed(partial(put_in, backend, store, corpus))
            texts, tokens = embedded_texts(backend), embedded_tokens(backend)
            alone = timed(partial(embedder.embed_documents, texts))
            record = {
                "documents": len(corpus),
                "documents/s": round(len(corpus) / ours.wall, 1),
                "texts": len(texts),
                "tokens": tokens,
                "build": embedder.build,
                "pipeline": ours.rates(tokens),
                "embedder alone": alone.rates(tokens),
                "of the embedder alone (target 0.9)": round(alone.wall / ours.wall, 3),
                "of it by processor seconds": round(alone.processor / ours.processor, 3),
            }
        if bare:
            slow = bare_loop(texts)
            record["bare loop"] = slow.rates(tokens)
            record["times the bare loop (target 1.8)"] = round(slow.wall / ours.wall, 2)
        yield record


def bare_loop(texts: Sequence[str]) -> Took:
    """`SentenceTransformer.encode` over these texts, the model loaded and warm."""
    from sentence_transformers import SentenceTransformer

    from rag.embedders.model_files import resolve_model

    model = SentenceTransformer(str(resolve_model(MODEL).path), device="cpu", local_files_only=True)
    model.encode(["warm"])
    return timed(lambda: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


# ---- many against one -------------------------------------------------------------------------------------------


def small_files(kilobytes: int, embedder: str | None) -> Iterator[dict[str, Any]]:
    """Files of 1 KB, and one that holds all of them."""
    words = " ".join(line.text for line in read_beir(data_root() / "scifact").corpus).encode()
    pieces = [words[at << 10 : (at + 1) << 10].decode("utf-8", "ignore") for at in range(kilobytes)]
    many = [CorpusLine(f"{number:06d}", "", piece) for number, piece in enumerate(pieces)]
    one = [CorpusLine("all", "", "\n\n".join(pieces))]
    figures: dict[str, Any] = {}
    rates: dict[str, float] = {}
    for name, corpus in (("one file", one), ("many files", many)):
        with installation(embedder) as (backend, store, _):
            took = timed(partial(put_in, backend, store, corpus))
            tokens = embedded_tokens(backend)
        figures[name] = {"files": len(corpus), "tokens": tokens, **took.rates(tokens)}
        rates[name], rates[f"{name}, processor"] = tokens / took.wall, tokens / took.processor
    yield {
        **figures,
        "many of one (target 0.8)": round(rates["many files"] / rates["one file"], 3),
        "by processor seconds": round(rates["many files, processor"] / rates["one file, processor"], 3),
    }


# ---- memory -----------------------------------------------------------------------------------------------------


def large_file(megabytes: int) -> Iterator[dict[str, Any]]:
    """One text file; of the words of a corpus, again and again with numbers between them, so that texts differ."""
    abstracts = [line.text for line in read_beir(data_root() / "scifact").corpus]
    with tempfile.TemporaryDirectory() as folder, installation("toy-384") as (backend, store, _):
        path = Path(folder) / "large.txt"
        with path.open("w", encoding="utf-8") as file:
            number = 0
            while file.tell() < megabytes * MEGABYTE:
                file.write(f"Number {number}. {abstracts[number % len(abstracts)]}\n\n")
                number += 1
        put_in(backend, store, [CorpusLine("warm", "", "A file that comes first.")])
        before = tree_bytes(os.getpid(), PRIVATE)
        with Memory(os.getpid(), PRIVATE, WATCH_EVERY) as watch, path.open("rb") as file:
            stored = intake.upload(backend, path.name, "assistants", iter(lambda: file.read(MEGABYTE), b""))
            intake.attach(backend, store, [intake.NewDocument(stored, path.name, owned=True)])
            took = timed(lambda: await_end(backend, store, lambda _: None))
        with backend.database.read() as connection:
            ended = connection.execute(
                sa.select(
                    schema.documents.c.state, schema.documents.c.error_message, schema.documents.c.chunks_total
                ).where(schema.documents.c.source == path.name)
            ).one()
    yield {
        "megabytes": megabytes,
        "ended as": list(ended),
        "seconds": round(took.wall, 1),
        "MB before": round(before / MEGABYTE),
        "MB beyond that at most (target 300)": round((watch.peak - before) / MEGABYTE),
    }


# ---- a PDF ------------------------------------------------------------------------------------------------------


def pdf(pages: int) -> Iterator[dict[str, Any]]:
    """Papers, joined until there are so many pages."""
    import pypdfium2

    papers = sorted((data_root() / "aragog_pdf" / "files").glob("*.pdf"))
    joined = pypdfium2.PdfDocument.new()
    while len(joined) < pages:
        for paper in papers:
            joined.import_pages(pypdfium2.PdfDocument(paper))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.pdf"
        joined.save(path)
        with ParserPool(ParseLimits(), Path(folder) / "scratch") as pool:
            pool.confinement()
            began = time.perf_counter()
            document = pool.parse(path, path.name)
            seconds = time.perf_counter() - began
    yield {
        "pages": len(joined),
        "characters": len(document.text),
        "seconds (target for 600 pages: 10)": round(seconds, 1),
    }


# ---- growth -----------------------------------------------------------------------------------------------------


def growth(chunks: int, embedder: str | None) -> Iterator[dict[str, Any]]:
    """A store that grows: the rate of each tenth, the last against the first."""
    abstracts = [line.text for line in read_beir(data_root() / "scifact").corpus]
    rates: list[float] = []
    with installation(embedder) as (backend, store, _):
        number = held = 0
        for tenth in range(1, TENTHS + 1):
            wall, before = time.perf_counter(), held
            while held < chunks * tenth // TENTHS:
                lines = [
                    CorpusLine(f"{at:07d}", f"Number {at}", f"{at}: {abstracts[at % len(abstracts)]}")
                    for at in range(number, number + 500)
                ]
                number += len(lines)
                put_in(backend, store, lines)
                with backend.database.read() as connection:
                    held = int(connection.execute(sa.select(sa.func.count(schema.chunks.c.id))).scalar_one())
            rates.append((held - before) / (time.perf_counter() - wall))
    yield {
        "chunks": held,
        "chunks/s of each tenth": [round(rate) for rate in rates],
        "last of first (target 0.9)": round(rates[-1] / rates[0], 3),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scifact", "small_files", "large_file", "pdf", "growth"))
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--kilobytes", type=int, default=1_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--pages", type=int, default=600)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--embedder")
    chosen = parser.parse_args()
    runs = {
        "scifact": lambda: scifact(chosen.documents, chosen.rounds, bare=chosen.bare),
        "small_files": lambda: small_files(chosen.kilobytes, chosen.embedder),
        "large_file": lambda: large_file(chosen.megabytes),
        "pdf": lambda: pdf(chosen.pages),
        "growth": lambda: growth(chosen.chunks, chosen.embedder or "toy-384"),
    }
    for record in runs[chosen.what]():
        print(json.dumps(record, indent=1), flush=True)


if __name__ == "__main__":
    main()
