"""A server as callers meet it: how soon it answers after a start, how fast, how many at once, and while it ingests.

    python -m tests.benchmarks.serving [--folder FOLDER] [--seconds 15] [--embedder NAME] [--json FILE]

The corpus is `squad2_open`, the passages of an article in one document and chunks small enough to make 20,000 of them;
a FOLDER is filled once and used again. The server is `rag serve` in a process of its own with settings as they come,
every question is another one, hybrid, top 10, and the caller is this process over loopback with connections that stay
open. In this order:

    start      from starting the process to its first answer, imports and indexes included, files in the page cache;
               three times, and the memory that the process has then, and after the questions (PSS)
    alone      one question after the other
    full       as many as it answers to 8 callers, in turn with the same server's `/v1/embeddings` for the same kind of
               questions: retrieval taken out, embedding and HTTP only
    at 70 %    questions arrive at random at 70 % of that rate; the time counts from when a question was due, so that
               waiting in line is in it
    ingesting  one question after the other while other documents are uploaded without a pause

The processor time of the caller is reported: it shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ingest import intake
from ingest.beir import ingest_corpus, read_beir
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import stores
from rag.settings import load_settings
from tests.benchmarks.catalog_size import articles
from tests.benchmarks.watching import share_bytes
from tests.data import data_root
from tests.installations import Process

STORE = "serving"
CHUNK_TOKENS = 150
STARTS = 3
CALLERS = 8
TURNS = 3
"""How often each of the two is asked for all it can, in turn."""
LOAD = 0.7

Ask = Callable[[str], Awaitable[None]]


def fill(folder: Path, embedder: str | None) -> int:
    """Chunks of a data folder with the corpus in it, which is made where it is not there."""
    flags = {"data": folder, "ingest.chunk_tokens": CHUNK_TOKENS, **({"embedder": embedder} if embedder else {})}
    backend = Backend(load_settings(environment={}, flags=flags))
    try:
        with backend.database.read() as connection:
            store = stores.store_named(connection, backend.caller, STORE)
        if store is None:
            with closing(Runner(backend)):
                store = intake.create_store(backend, STORE)
                corpus = articles(read_beir(data_root() / "squad2_open").corpus)
                ingest_corpus(backend, store, corpus, lambda *_: None)
        return len(backend.view(backend.live_generation(store)))
    finally:
        asyncio.run(backend.close())


def questions() -> Iterator[str]:
    """Questions that have not been asked: those of the corpus, then with a word of another one before them."""
    asked = list(read_beir(data_root() / "squad2_open").queries.values())
    yield from asked
    chance = random.Random(5)
    for question in cycle(asked):
        yield f"{chance.choice(chance.choice(asked).split())} {question}"


# ---- asking ----------------------------------------------------------------------------------------------------------


class Caller:
    """A connection that stays open and asks one thing at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def search(self, question: str) -> None:
        """Ten hits, or an error."""
        body = {"query": question, "max_num_results": 10}
        found = json.loads(await self._post(f"/v1/vector_stores/{STORE}/search", body))
        assert len(found["data"]) == 10, found

    async def embed(self, question: str) -> None:
        """A vector, in OpenAI's short form."""
        body = {"model": "default", "input": question, "encoding_format": "base64"}
        found = json.loads(await self._post("/v1/embeddings", body))
        assert len(found["data"][0]["embedding"]) > 100, found

    async def _post(self, path: str, body: Any) -> bytes:
        if self._streams is None or self._streams[0].at_eof():  # an idle connection is closed after a while
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 200"), answer
        length = next(int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
        return await reader.readexactly(length)


async def one_after_the_other(ask: Ask, asked: Iterator[str], seconds: float) -> list[float]:
    """The times of questions, in milliseconds."""
    times, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await ask(next(asked))
        times.append(1000 * (time.perf_counter() - began))
    return times


async def all_it_can(asks: Sequence[Ask], asked: Iterator[str], seconds: float) -> float:
    """Answers a second to as many callers, each asking again at once."""
    began = time.perf_counter()
    times = await asyncio.gather(*[one_after_the_other(ask, asked, seconds) for ask in asks])
    return sum(map(len, times)) / (time.perf_counter() - began)


async def at_random(port: int, asked: Iterator[str], rate: float, seconds: float) -> list[float]:
    """Times in milliseconds from when a question was due, arriving as from many independent people (Poisson)."""
    chance, idle, times = random.Random(7), list[Caller](), list[float]()

    async def one(due: float) -> None:
        caller = idle.pop() if idle else Caller(port)
        await caller.search(next(asked))
        times.append(1000 * (time.perf_counter() - due))
        idle.append(caller)

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        end = due + seconds
        while (due := due + chance.expovariate(rate)) < end:
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(one(due))
    return times


# ---- the server ------------------------------------------------------------------------------------------------------


def started(process: Process) -> float:
    """Seconds from starting the server to its first answer."""
    began = time.perf_counter()
    process.start()
    while time.perf_counter() < began + 120:
        try:
            body = {"query": f"Who lived {process.port} years ago?"}
            answer = httpx.post(
                f"{process.url}/v1/vector_stores/{STORE}/search", json=body, timeout=60, trust_env=False
            )
            if answer.status_code == 200:
                return time.perf_counter() - began
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise AssertionError("it does not answer")


def memory(process: Process) -> int:
    """What the server's process has in memory (proportional set size, without its parsers), in MB."""
    assert process.process is not None
    return round(share_bytes(process.process.pid) / 1e6)


async def uploading(url: str, enough: asyncio.Event) -> int:
    """Documents uploaded without a pause, into another store of the same server, until it is enough."""
    texts = [document.text for document in read_beir(data_root() / "scifact").corpus]
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        store = (await http.post("/v1/vector_stores", json={"name": f"other {time.time()}"})).json()["id"]
        for number, text in enumerate(texts):
            if enough.is_set():
                return number
            file = await http.post("/v1/files", files={"file": (f"{number}.txt", text)}, data={"purpose": "assistants"})
            await http.post(f"/v1/vector_stores/{store}/files", json={"file_id": file.json()["id"]})
    return len(texts)


async def measure(process: Process, seconds: float, record: dict[str, Any]) -> None:
    """Note everything that is asked of a server that runs."""
    asked, caller = questions(), Caller(process.port)
    callers = [Caller(process.port) for _ in range(CALLERS)]
    await one_after_the_other(caller.search, asked, 2)
    await one_after_the_other(caller.embed, asked, 1)
    record["alone ms"] = spread(await one_after_the_other(caller.search, asked, seconds))
    rates: dict[str, list[float]] = {"search": [], "embedding": []}
    own = time.process_time()
    for _ in range(TURNS):
        rates["search"].append(await all_it_can([one.search for one in callers], asked, seconds / TURNS))
        rates["embedding"].append(await all_it_can([one.embed for one in callers], asked, seconds / TURNS))
    full = {name: float(np.median(values)) for name, values in rates.items()}
    record["full, a second"] = {name: round(value, 1) for name, value in full.items()}
    record["search of embedding"] = round(full["search"] / full["embedding"], 3)
    record["cores of the caller"] = round((time.process_time() - own) / (2 * seconds), 2)
    record["at 70 % ms"] = spread(await at_random(process.port, asked, LOAD * full["search"], seconds))
    record["memory after MB"] = memory(process)
    enough = asyncio.Event()
    other = asyncio.create_task(uploading(process.url, enough))
    await asyncio.sleep(2)
    record["ingesting ms"] = spread(await one_after_the_other(caller.search, asked, seconds))
    enough.set()
    record["uploaded meanwhile"] = await other


def spread(times: Sequence[float]) -> dict[str, float]:
    """Percentiles."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {"p50": round(p50, 2), "p95": round(p95, 2), "p99": round(p99, 2), "n": len(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--embedder")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        record: dict[str, Any] = {"chunks": fill(folder, chosen.embedder), "cores": os.cpu_count()}
        settings = {"RAG_EMBEDDER": chosen.embedder} if chosen.embedder else {}
        starts, empty = [], []
        for number in range(STARTS):
            process = Process("all", folder, settings)
            try:
                starts.append(started(process))
                empty.append(memory(process))
                if number == STARTS - 1:
                    record["start s"] = [round(value, 2) for value in starts]
                    record["memory at first MB"] = empty[-1]
                    asyncio.run(measure(process, chosen.seconds, record))
            finally:
                process.stop()
    print(json.dumps(record, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
