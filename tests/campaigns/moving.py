"""Move an installation to PostgreSQL and another index engine, killing the move once, and back again.

    python -m tests.campaigns.moving [--chunk-tokens 150] [--questions 200] [--engine flat]

The corpus is `squad2_open`, the passages of an article in one document and chunks small enough to make 20,000 of them,
with the toy embedder of 384 dimensions. `rag move` runs as a person runs it, in a process of its own that tells every
opening of an embedder; it dies by SIGKILL in the middle of the chunks (and, where there is one, while an engine of its
own is filled) and is started again. At each end: the same ids, vectors to the bit, and for every question the same ten
chunks with the same cosines by exact search over the vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from rag.backend import Backend
from rag.catalog import changes, schema
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings, secret
from tests.backends import open_backend, toy_settings
from tests.benchmarks.catalog_size import articles
from tests.data import data_root
from tests.fakes.qdrant_server import FakeQdrant
from tests.postgres import running_postgres

STORE = "moving"
ROOT = Path(__file__).resolve().parents[2]
EMBEDS = "an embedder was opened"
COUNTED = f"""
import sys
import rag.embedders
honest = rag.embedders.open_embedder
def told(spec):
    print({EMBEDS!r}, file=sys.stderr, flush=True)
    return honest(spec)
rag.embedders.open_embedder = told
from api.cli import main
main()
"""


def command(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    """`rag` over these settings, in a process of its own that tells when an embedder is opened."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAG_DATA": str(settings.data), "RAG_EMBEDDER": "toy-384"}
    environment |= {"RAG_VECTOR_INDEX": settings.vector_index, "RAG_KEYWORD_INDEX": settings.keyword_index}
    if settings.qdrant.url is not None:
        environment["RAG_QDRANT_URL"] = settings.qdrant.url
    if settings.catalog is not None:
        environment["RAG_CATALOG"] = settings.catalog.get_secret_value()
    return subprocess.Popen(
        [sys.executable, "-c", COUNTED, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options(target: Settings) -> list[str]:
    """The options of `rag move` that lead to these settings."""
    found = ["--to-data", str(target.data), "--to-vector-index", target.vector_index]
    found += ["--to-keyword-index", target.keyword_index]
    catalog = secret(target.catalog)
    return found + (["--to-catalog", catalog] if catalog else [])


def run_move(source: Settings, target: Settings, kill_at: tuple[str, float] | None = None) -> dict[str, Any]:
    """Run `rag move`; with `kill_at`, until a stage is done by that share. Returns its last event."""
    events: list[dict[str, Any]] = []
    process = command(source, "move", *options(target), "--json")
    assert process.stdout is not None
    for line in process.stdout:
        events.append(json.loads(line))
        event = events[-1]
        if kill_at is not None and event.get("stage") == kill_at[0] and event["done"] >= kill_at[1] * event["total"]:
            process.send_signal(signal.SIGKILL)
            break
    said = process.communicate()[1]
    assert EMBEDS not in said, said
    assert kill_at is not None or process.returncode == 0, said
    assert kill_at is None or process.returncode == -signal.SIGKILL, "it was over before it was killed"
    return events[-1]


def rows(backend: Backend) -> Mapping[str, list[tuple[Any, ...]]]:
    """Every row that a move must not change; without when a store was last used, which a question changes."""
    tables = (schema.stores, schema.files, schema.documents, schema.versions, schema.chunks, schema.vectors)
    found: dict[str, list[tuple[Any, ...]]] = {}
    with backend.database.read() as connection:
        for table in tables:
            columns = [column for column in table.c if column is not schema.stores.c.last_active_at]
            query = sa.select(*columns).order_by(*table.primary_key)
            found[table.name] = [tuple(row) for row in connection.execute(query)]
    return found


def exact(backend: Backend, questions: Sequence[str]) -> list[list[tuple[int, float]]]:
    """The ten nearest chunks of each question by the definition: every cosine, the largest, ties by id."""
    generation = backend.live_generation(backend.find_store(STORE))
    with backend.database.read() as connection:
        versions = changes.visible_versions(connection, generation.store_id)
        read = changes.read_rows(connection, versions, generation.chunk_set_id, generation.space_id, 384)
        parts = list(read)
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids)
    ids, matrix = ids[order], np.concatenate([part.vectors for part in parts])[order]
    found = []
    for vector in backend.embedder(generation).embed_queries(list(questions)):
        scores = matrix @ vector
        best = np.lexsort((ids, -scores))[:10]
        found.append([(int(ids[i]), float(scores[i])) for i in best])
    return found


def searched(backend: Backend, questions: Sequence[str]) -> list[list[int]]:
    """What dense search through the index finds."""
    store, asked = backend.find_store(STORE), SearchOptions(mode="dense", limit=10)
    return [[c.chunk_id for c in retrieve(backend, [store], question, asked).candidates] for question in questions]


def overlap(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """The share of hits that are the same."""
    same = sum(len(set(a) & set(b)) for a, b in zip(first, second, strict=True))
    return same / sum(map(len, first))


def campaign(
    corpus: Sequence[CorpusLine], questions: Sequence[str], folder: Path, chunk_tokens: int, engine: str
) -> dict[str, Any]:
    """Run it and return the record. Raises AssertionError where a promise was broken."""
    with ExitStack() as stack:
        url = stack.enter_context(stack.enter_context(running_postgres()).database())
        engines = {"vector_index": engine}
        if engine == "qdrant":
            address = os.environ.get("QDRANT_URL") or stack.enter_context(_stand_in(folder)).url
            engines = {"vector_index": "qdrant", "keyword_index": "qdrant", "qdrant__url": address}
        home = toy_settings(folder / "home", ingest__chunk_tokens=chunk_tokens, qdrant__url=engines.get("qdrant__url"))
        away = toy_settings(folder / "away", catalog=url, **engines)
        back = toy_settings(folder / "back")
        with open_backend(home) as backend:
            store = intake.create_store(backend, STORE)
            ingest_corpus(backend, store, corpus, lambda *_: None)
        with open_backend(home, jobs=False) as backend:
            before, nearest, hits = rows(backend), exact(backend, questions), searched(backend, questions)
        kills = [("chunks", 0.5), *([("indexing", 0.2)] if engine == "qdrant" else [])]
        for kill in kills:
            run_move(home, away, kill)
        began = time.monotonic()
        run_move(home, away)
        resumed = time.monotonic() - began
        with open_backend(away, jobs=False) as backend:
            assert rows(backend) == before
            assert exact(backend, questions) == nearest
            same = overlap(hits, searched(backend, questions))
        began = time.monotonic()
        returning = run_move(away, back)
        returned = time.monotonic() - began
        with open_backend(back, jobs=False) as backend:
            assert rows(backend) == before
            assert exact(backend, questions) == nearest
        assert _counts(folder), "what counts embedders counts nothing"
    return {
        "chunks": len(before["chunks"]),
        "vectors": len(before["vectors"]),
        "blobs": returning["blobs"],
        "embedding calls": 0,
        "questions with equal exact top 10": len(questions),
        f"share of hits through {engine} that faiss found too": round(same, 4),
        "killed at": [f"{share:.0%} of {stage}" for stage, share in kills],
        "resumed in s": round(resumed, 1),
        "back in s": round(returned, 1),
    }


def _stand_in(folder: Path) -> FakeQdrant:
    """A server over the engine's own code, since local mode takes hours for so many points."""
    from tests.qdrant_edge import EdgeClient

    return FakeQdrant(engine=EdgeClient(folder / "engine"), requests=deque(maxlen=1))


def _counts(folder: Path) -> bool:
    """Whether an ingestion in the same kind of process tells that it opened an embedder."""
    (folder / "one.md").write_text("One file.\n")
    process = command(toy_settings(folder / "counted"), "ingest", str(folder / "one.md"), "--store", "one")
    return EMBEDS in process.communicate()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-tokens", type=int, default=150)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--engine", default="flat", help="with qdrant: QDRANT_URL, else its engine behind a stand-in")
    chosen = parser.parse_args()
    dataset = read_beir(data_root() / "squad2_open")
    questions = list(dataset.queries.values())[: chosen.questions]
    with tempfile.TemporaryDirectory() as folder:
        record = campaign(articles(dataset.corpus), questions, Path(folder), chosen.chunk_tokens, chosen.engine)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
