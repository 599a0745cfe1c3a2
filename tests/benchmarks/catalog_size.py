"""Bytes that a chunk takes in the catalog, its indexes included, on SQLite and on PostgreSQL.

    python -m tests.benchmarks.catalog_size [--articles 150] [--chunk-tokens 215]

Articles of SQuAD 2 go through the real pipeline with a toy embedder of 384 dimensions. For wider vectors as many rows
of random values are put beside them, and the table's growth is told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import schema
from rag.settings import load_settings
from tests.data import data_root
from tests.postgres import running_postgres

WIDE = 1024
SIZES = {
    "sqlite": "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_master USING (name) GROUP BY tbl_name",
    "postgresql": "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace",
}


def articles(passages: Sequence[CorpusLine]) -> list[CorpusLine]:
    """The passages of each article as one document."""
    texts: dict[str, list[str]] = {}
    for passage in passages:
        texts.setdefault(passage.title, []).append(passage.text)
    return [CorpusLine(title, title, "\n\n".join(parts)) for title, parts in texts.items()]


def measure(corpus: list[CorpusLine], chunk_tokens: int, flags: Mapping[str, str]) -> dict[str, float]:
    """Bytes of each thing for a chunk."""
    with tempfile.TemporaryDirectory() as folder:
        place = {"data": Path(folder), "embedder": "toy-384", "ingest.chunk_tokens": chunk_tokens, **flags}
        backend = Backend(load_settings(environment={}, flags=place))
        runner = Runner(backend)
        try:
            ingest_corpus(backend, intake.create_store(backend, "size"), corpus, lambda *_: None)
        finally:
            runner.close()
        with backend.database.read() as connection:
            before = sizes(connection)
            vectors = connection.execute(sa.select(schema.vectors.c.space_id, schema.vectors.c.embedding_key)).all()
            chunks = schema.chunks.c
            count, tokens, characters = connection.execute(
                sa.select(sa.func.count(), sa.func.avg(chunks.tokens), sa.func.avg(sa.func.length(chunks.text)))
            ).one()
        wide = [
            {"space_id": space, "tenant": "wide", "embedding_key": key, "vector": os.urandom(4 * WIDE)}
            for space, key in vectors
        ]
        with backend.database.write() as connection:
            connection.execute(sa.insert(schema.vectors), wide)
        with backend.database.read() as connection:
            growth = sizes(connection)["vectors"] - before["vectors"]
        blobs = sum(path.stat().st_size for path in Path(folder, "blobs").rglob("*") if path.is_file())
        asyncio.run(backend.close())
    return {
        "chunks": count,
        "tokens": float(tokens),
        "characters": float(characters),
        "text and keys": before["chunks"] / count,
        "vector of 384": before["vectors"] / len(vectors),
        f"vector of {WIDE}": growth / len(wide),
        "all else": sum(size for name, size in before.items() if name not in ("chunks", "vectors")) / count,
        "blobs": blobs / count,
    }


def sizes(connection: Connection) -> dict[str, int]:
    """Bytes of each table with its indexes."""
    return {name: int(size) for name, size in connection.execute(sa.text(SIZES[connection.dialect.name]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=150)
    parser.add_argument("--chunk-tokens", type=int, default=215)
    chosen = parser.parse_args()
    corpus = articles(read_beir(data_root() / "squad2_open").corpus)[: chosen.articles]
    found = {"SQLite": measure(corpus, chosen.chunk_tokens, {})}
    with running_postgres() as server, server.database() as url:
        found["PostgreSQL"] = measure(corpus, chosen.chunk_tokens, {"catalog": url})
    print(json.dumps({kind: {k: round(v) for k, v in of.items()} for kind, of in found.items()}, indent=1))


if __name__ == "__main__":
    main()
