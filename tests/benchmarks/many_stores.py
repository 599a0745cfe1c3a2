"""Thousands of small stores in one process: what an open view costs, how long opening one takes, what letting go does.

    python -m tests.benchmarks.many_stores [--stores 2000] [--memory-mb 256] [--questions 4000]

Each store holds a few passages of `squad2_open`, embedded by the toy of 384 dimensions. Questions go to stores at
random, four of five to a tenth of them, as callers do. Memory is what the process holds beyond what it held before the
first question, so that the estimate of `View.memory` can be checked against it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ingest import intake
from ingest.beir import read_beir
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import documents
from rag.catalog.records import Store
from rag.retrieve import SearchOptions, retrieve
from rag.settings import load_settings
from tests.data import data_root

PASSAGES = 8
"""Passages of each store."""


def resident() -> int:
    """Bytes of memory that this process holds and no file backs."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def filled(backend: Backend, count: int) -> list[tuple[Store, str]]:
    """So many stores, and a question that is answered by each."""
    passages = list(read_beir(data_root() / "squad2_open").corpus)
    stores = []
    for number in range(count):
        store = intake.create_store(backend, f"store {number}")
        mine = [passages[(PASSAGES * number + offset) % len(passages)] for offset in range(PASSAGES)]
        files = [intake.upload(backend, f"{line.id}.txt", "assistants", [line.text.encode()]) for line in mine]
        intake.attach(backend, store, [intake.NewDocument(file) for file in files])
        stores.append((store, mine[0].text[:60]))
    runner = Runner(backend)
    while waiting := _waiting(backend):
        print(f"{waiting} documents to go", file=sys.stderr)
        time.sleep(5)
    runner.close()
    return stores


def _waiting(backend: Backend) -> int:
    with backend.database.read() as connection:
        return documents.count_waiting(connection)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, default=2_000)
    parser.add_argument("--memory-mb", type=int, default=256)
    parser.add_argument("--questions", type=int, default=4_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data": Path(folder), "embedder": "toy-384", "views.memory_mb": chosen.memory_mb}
        backend = Backend(load_settings(environment={}, flags=flags))
        stores = filled(backend, chosen.stores)
        random = np.random.default_rng(0)
        before = resident()
        times: dict[str, list[float]] = {"opening": [], "open": []}
        for _ in range(chosen.questions):
            some = len(stores) if random.random() < 0.2 else max(len(stores) // 10, 1)
            store, words = stores[int(random.integers(some))]
            known = backend.live_generation(store).id in backend.views._views
            began = time.perf_counter()
            found = retrieve(backend, [store], words, SearchOptions())
            times["open" if known else "opening"].append(time.perf_counter() - began)
            assert found.candidates, store.name
        opened = backend.views._views
        record = {
            "stores": len(stores),
            "open at the end": len(opened),
            "estimated MB": round(sum(view.memory() for view in opened.values()) / 2**20),
            "MB": round((resident() - before) / 2**20),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "ms": {
                name: {q: round(1000 * float(np.percentile(s, p)), 2) for q, p in (("p50", 50), ("p95", 95))}
                | {"n": len(s)}
                for name, s in times.items()
                if s
            },
        }
        asyncio.run(backend.close())
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
