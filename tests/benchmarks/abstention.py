"""How well the product knows what it cannot answer: its own threshold, and one chosen on other questions.

    python -m tests.benchmarks.abstention [--documents 3000] [--json tests/benchmarks/abstention.json]

Whole stores, through ingestion and retrieval as they are: the passages of `squad2_open` (those that questions are about
and some of the others), and `clinc_oos`, each intent a document of its training utterances. A question's score is the
relevance of its best hit of 30, as in an answer. Two kinds of unanswerable questions about SQuAD: those that people
wrote to look answerable (the passage is there, what is asked is not in it), and those whose whole article is left out
of the hits. The threshold is chosen on half the articles, of CLINC on `val`, and reported on the others and on `test`.
Takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import schema
from rag.catalog.records import Store
from rag.evaluation.abstention import Asked, gate, report
from rag.relevance import DEFAULT_THRESHOLD
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings
from tests.benchmarks.relevance import lines

HITS = 30
PRICES = (0.01, 0.05, 0.1)
"""Shares of answerable questions that may be lost."""

Halves = Mapping[str, Sequence[Asked]]


@contextmanager
def filled(corpus: Sequence[CorpusLine], embedder: str) -> Iterator[tuple[Backend, Store, dict[int, str]]]:
    """A store with these documents, and the id of each by its number."""
    with tempfile.TemporaryDirectory() as folder:
        backend = Backend(Settings(data=Path(folder), embedder=embedder))
        try:
            store = intake.create_store(backend, "s")
            with closing(Runner(backend)) as runner:
                assert runner.ready.wait(120)
                taken = ingest_corpus(backend, store, corpus, lambda *_: None)
            print(f"  {taken.completed:,} documents, {taken.chunks:,} chunks, {taken.seconds:.0f} s", flush=True)
            rows = schema.documents.c
            with backend.database.read() as connection:
                names = {int(number): str(name) for number, name in connection.execute(sa.select(rows.id, rows.source))}
            yield backend, store, names
        finally:
            asyncio.run(backend.close())


def squad(documents: int, every: int, embedder: str) -> tuple[Halves, Halves]:
    """Questions written to look answerable, and questions without their article."""
    asked = lines("squad2_open", "qa.jsonl")
    articles = {row["context_id"].partition("#")[0] for row in asked}
    rows = lines("squad2_open", "corpus.jsonl")
    own = [row for row in rows if row["_id"].partition("#")[0] in articles]
    others = [row for row in rows if row["_id"].partition("#")[0] not in articles]
    others.sort(key=lambda row: sha256(row["_id"].encode()).digest())
    corpus = [CorpusLine(row["_id"], row["title"], row["text"]) for row in (*own, *others[: documents - len(own)])]
    looking, without = defaultdict[str, list[Asked]](list), defaultdict[str, list[Asked]](list)
    with filled(corpus, embedder) as (backend, store, names):
        for row in asked[::every]:
            article = row["context_id"].partition("#")[0]
            half = "chosen on" if sha256(article.encode()).digest()[0] % 2 else "judged on"
            hits = retrieve(backend, [store], row["question"], SearchOptions(limit=100)).candidates
            best = max((hit.relevance for hit in hits[:HITS]), default=0.0)
            found = any(names[hit.document_id] == row["context_id"] for hit in hits[:HITS])
            mine = Asked(best, row["answerable"], row["answerable"] and found)
            looking[half].append(mine)
            if row["answerable"]:
                strange = (hit.relevance for hit in hits if not names[hit.document_id].startswith(f"{article}#"))
                without[half] += [mine, Asked(max(strange, default=0.0), False, False)]
    return looking, without


def clinc(every: int, embedder: str) -> Halves:
    """Utterances of known intents and others."""
    rows = lines("clinc_oos", "queries.jsonl")
    by_intent = defaultdict[str, list[str]](list)
    for row in rows:
        if row["split"] == "train" and row["in_scope"]:
            by_intent[row["intent"]].append(row["text"])
    corpus = [CorpusLine(name, name.replace("_", " "), "\n\n".join(texts)) for name, texts in by_intent.items()]
    halves = defaultdict[str, list[Asked]](list)
    with filled(corpus, embedder) as (backend, store, names):
        for row in [row for row in rows if row["split"] in ("val", "test")][::every]:
            hits = retrieve(backend, [store], row["text"], SearchOptions(limit=HITS)).candidates
            best = max((hit.relevance for hit in hits), default=0.0)
            right = bool(hits) and names[hits[0].document_id] == row["intent"]
            asked = Asked(best, row["in_scope"], row["in_scope"] and right)
            halves["chosen on" if row["split"] == "val" else "judged on"].append(asked)
    return halves


def told(name: str, halves: Halves) -> dict[str, Any]:
    """Print and return what the thresholds do."""
    chosen_on, judged_on = halves["chosen on"], halves["judged on"]
    reports = {str(price): report(chosen_on, judged_on, price) for price in PRICES}
    first = reports[str(PRICES[0])]
    print(
        f"{name}: {first['answerable']:,} answerable and {first['unanswerable']:,} others; ROC AUC {first['roc_auc']}"
    )
    default = gate(judged_on, DEFAULT_THRESHOLD)
    print(f"  default   threshold {DEFAULT_THRESHOLD:.2f}: {_said(default.to_json())}")
    for price, found in reports.items():
        print(f"  at {float(price):4.0%}   threshold {found['threshold']:.2f}: {_said(found)}")
    kept = {price: {key: value for key, value in found.items() if key != "curve"} for price, found in reports.items()}
    return {"default": default.to_json(), "chosen_at": kept, "curve": first["curve"]}


def _said(found: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{name} {found[name]:.1%}" for name in ("recall", "false_abstention", "coverage", "accuracy"))
    intervals = [found.get(f"{name}_interval") for name in ("recall", "false_abstention")]
    return shares + "".join(f" [{low:.1%} to {high:.1%}]" for low, high in filter(None, intervals))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3_000, help="of squad2_open")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th question")
    parser.add_argument("--embedder", default="default")
    parser.add_argument("--json", type=Path, help="write the figures and curves there too")
    options = parser.parse_args()
    looking, without = squad(options.documents, options.every, options.embedder)
    figures = {
        "squad2_open, written to look answerable": told("squad2_open, written to look answerable", looking),
        "squad2_open, article left out": told("squad2_open, article left out", without),
    }
    figures["clinc_oos"] = told("clinc_oos", clinc(options.every, options.embedder))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
