"""This project under the same measure, through its durable pipeline and with the settings of a new user."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa

from ingest.beir import CorpusLine, as_original, ingest_corpus, read_beir
from ingest.loaders import loader_for
from ingest.sniff import MARKDOWN, PLAIN
from ingest.split import ChunkSettings, embedding_text, split_document
from rag.embedders import Embedder, EmbedderRegistry
from rag.tokenizers import Tokenizer
from tests.benchmarks.watching import Memory
from tests.data import data_root
from tests.installations import READY_WITHIN, Process

STORE = "bench"
LIMIT = 256
"""Tokens that the model reads; no chunk has more."""


def chunk_texts(count: int | None) -> dict[str, str]:
    """What this project embeds of the first `count` documents: the chunks with their headings, by document and number.

    Split here beforehand, so that the others get them too; `Ours.fill` sees to it that the pipeline makes the same.
    """
    embedder = EmbedderRegistry({}).open("default")
    with tempfile.TemporaryDirectory() as folder:
        return {
            f"{line.id}#{number}": text
            for line in read_beir(data_root() / "scifact", count).corpus
            for number, text in enumerate(_chunks(line, embedder, Path(folder)))
        }


def _chunks(line: CorpusLine, embedder: Embedder, folder: Path) -> Iterator[str]:
    name, data = as_original(line)
    path = folder / name
    path.write_bytes(data)
    parsed = loader_for(MARKDOWN if path.suffix == ".md" else PLAIN)(path, name)
    for span in split_document(parsed, embedder.tokenizer, embedder.limit, ChunkSettings()):
        yield embedding_text(span.header, parsed.text[span.start : span.end])


def document_texts(count: int | None) -> dict[str, str]:
    """The same documents whole."""
    return {f"{d.id}#0": f"{d.title}\n{d.text}" for d in read_beir(data_root() / "scifact", count).corpus}


def default_tokenizer() -> Tokenizer:
    """The model's own, which tokens are counted with for all."""
    return EmbedderRegistry({}).open("default").tokenizer


class EncoderAlone:
    """The embedder of this project by itself, with all texts at once: what the pipeline is held against."""

    limit = LIMIT

    def __init__(self, folder: Path) -> None:
        self.embedder = EmbedderRegistry({}).open("default")
        self.embedder.embed_documents(["warm"])

    def fill(self, texts: dict[str, str]) -> None:
        self.embedder.embed_documents(list(texts.values()))


class Ours:
    """Documents into a store, by the jobs of this process; hybrid queries in process."""

    limit = LIMIT

    def __init__(self, folder: Path) -> None:
        from rag.backend import Backend
        from rag.settings import load_settings

        self.backend = Backend(load_settings(environment={}, flags={"data": folder / "ours"}))

    def fill(self, texts: dict[str, str]) -> None:
        """From the first upload to the first answer over all of them, so that building the indexes counts.

        The documents are those that `texts` are the chunks of. The model is loaded and the jobs run before `started`.
        """
        self._ingest(len({id_.partition("#")[0] for id_ in texts}))
        self.search("warm", 10)

    def warm(self) -> None:
        """What the others have done when their filling begins: the model is loaded."""
        from ingest import intake
        from ingest.runner import Runner

        self.runner = Runner(self.backend)
        self.store = intake.create_store(self.backend, STORE)
        self.backend.embedder(self.backend.live_generation(self.store)).embed_documents(["warm"])
        assert self.runner.ready.wait(120), self.runner.fault

    def _ingest(self, count: int) -> None:
        figures = ingest_corpus(self.backend, self.store, read_beir(data_root() / "scifact", count).corpus, _quiet)
        assert figures.completed == count, figures

    def require_same(self, texts: dict[str, str]) -> None:
        """See that the pipeline embedded these texts and no others."""
        from rag.catalog import schema

        with self.backend.database.read() as connection:
            rows = connection.execute(sa.select(schema.chunks.c.header, schema.chunks.c.text)).all()
        made = {embedding_text(row.header, row.text) for row in rows}
        assert made == set(texts.values()), f"{len(made ^ set(texts.values()))} texts differ from those of the others"

    def open(self) -> None:
        self.store = self.backend.find_store(STORE)

    def search(self, question: str, count: int) -> list[str]:
        from rag.retrieve import SearchOptions, retrieve

        found = retrieve(self.backend, [self.store], question, SearchOptions(limit=count)).candidates
        return [f"{one.filename.rpartition('.')[0]}#{one.ordinal}" for one in found]

    def close(self) -> None:
        """Stop; the view leaves a snapshot behind."""
        if hasattr(self, "runner"):
            self.runner.close()
        asyncio.run(self.backend.close())


def _quiet(*_: object) -> None:
    pass


# ---- over HTTP ------------------------------------------------------------------------------------------------------


def served(data: Path, questions: Sequence[str]) -> dict[str, float]:
    """`rag serve` over a filled data folder, as nobody has set anything: when its first answer came, how long each
    took over one kept connection, and its memory."""
    server = Process("all", data, {})
    started = time.monotonic()
    server.start()
    try:
        assert server.process is not None
        with Memory(server.process.pid) as memory, httpx.Client(base_url=server.url, trust_env=False) as client:
            store = _first_answer(client, questions[0])
            ready = time.monotonic() - started
            seconds = []
            for question in questions[1:]:
                began = time.perf_counter()
                assert _search(client, store, question).status_code == 200
                seconds.append(time.perf_counter() - began)
            time.sleep(1.0)
    finally:
        server.stop()
    found = {f"http query p{p}": float(np.percentile(seconds, p)) * 1000 for p in (50, 95)}
    return {"http ready": ready, "http query MB": memory.peak / 2**20, **found}


def _first_answer(client: httpx.Client, question: str) -> str:
    """The id of the store, once a question to it was answered."""
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until:
        try:
            store = client.get("/v1/vector_stores", timeout=5.0).json()["data"][0]["id"]
            if _search(client, store, question).status_code == 200:
                return str(store)
        except (httpx.TransportError, KeyError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"no answer within {READY_WITHIN} s")


def _search(client: httpx.Client, store: str, question: str) -> httpx.Response:
    return client.post(f"/v1/vector_stores/{store}/search", json={"query": question, "max_num_results": 10}, timeout=60)
