"""Random filters and questions on every index, against brute force.

    python -m tests.campaigns.filters --cases 10000 --seed 1 [--qdrant memory engine server]

Each case is a filter tree (with or without a caller's permission tags), a question and a k. Exact engines must find
what brute force finds, ids and scores; approximate ones exactly as many, with a recall of .98; a keyword engine its own
unfiltered order with the filter applied.
"""

from __future__ import annotations

import argparse
import random
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexes import open_keyword_index, open_vector_index
from indexes.filters import AttributeTable, Filter
from indexes.keyword import KeywordEntry
from indexes.vector import Hits
from tests.contracts import keyword_index, vector_index
from tests.contracts.filters import Described, holds, random_documents, random_filter
from tests.contracts.vector_index import clustered, truth, unit
from tests.qdrant import Qdrant, open_qdrant

DIMENSION = 16
CASES_PER_CORPUS = 250


@dataclass(frozen=True)
class Corpus:
    """Documents and their chunks, about three each."""

    documents: dict[int, Described]
    owners: dict[int, int]
    vectors: dict[int, np.ndarray]
    texts: dict[int, str]
    table: AttributeTable

    def matching(self, condition: Filter | None) -> np.ndarray:
        """The chunks that count, by the definition."""
        return self._chunks({id_ for id_, document in self.documents.items() if holds(condition, document)})

    def allowed(self, condition: Filter | None) -> np.ndarray | None:
        """The same as the table says, for an index that is told ids."""
        return None if condition is None else self._chunks(set(self.table.matching(condition).tolist()))

    def _chunks(self, documents: set[int]) -> np.ndarray:
        return np.array(sorted(chunk for chunk, owner in self.owners.items() if owner in documents), dtype=np.int64)


def random_corpus(rng: random.Random, count: int, vectors: Callable[..., np.ndarray] = unit) -> Corpus:
    documents = random_documents(rng, count)
    chunks = rng.sample(range(1, 100 * count), 3 * count)
    rows = vectors(len(chunks), DIMENSION, seed=rng.randrange(2**31))
    texts = {chunk: " ".join(rng.choices(keyword_index.WORDS, k=rng.randint(1, 12))) for chunk in chunks}
    table = AttributeTable()
    for id_, document in documents.items():
        table.set(id_, document.attributes, document.tags)
    owners = {chunk: rng.choice(list(documents)) for chunk in chunks}
    return Corpus(documents, owners, dict(zip(chunks, rows, strict=True)), texts, table)


def run(cases: int, seed: int, folder: Path, kinds: tuple[str, ...], documents: int = 40) -> None:
    """Raises AssertionError at the first case that is wrong."""
    rng = random.Random(seed)
    with ExitStack() as stack:
        opened = {kind: stack.enter_context(open_qdrant(kind, folder / kind)) for kind in kinds}
        for number in range(-(-cases // CASES_PER_CORPUS)):
            corpus = random_corpus(rng, documents)
            legs = [*_local_legs(corpus, folder / f"words-{number}"), *(_Remote(q, corpus) for q in opened.values())]
            for case in range(min(CASES_PER_CORPUS, cases - number * CASES_PER_CORPUS)):
                condition = random_filter(rng, corpus.documents)
                query = unit(1, DIMENSION, seed=rng.randrange(2**31))[0]
                words = " ".join(rng.choices(keyword_index.WORDS, k=rng.randint(1, 4)))
                for leg in legs:
                    try:
                        leg.check(query, words, rng.choice((1, 5, 20, 500)), condition)
                    except AssertionError as error:
                        raise AssertionError(f"seed {seed}, corpus {number}, case {case}: {condition}") from error
            for leg in legs:
                leg.close()


def recall(
    open_leg: Callable[[Corpus], Any],
    vectors: Callable[..., np.ndarray],
    cases: int,
    seed: int,
    documents: int = 1000,
    k: int = 10,
) -> float:
    """The share of the true k nearest under a filter that an approximate search finds; it must find as many."""
    rng = random.Random(seed)
    corpus = random_corpus(rng, documents, vectors)
    leg = open_leg(corpus)
    found, wanted = 0, 0
    for _ in range(cases):
        condition = random_filter(rng, corpus.documents)
        query = unit(1, DIMENSION, seed=rng.randrange(2**31))[0]
        expected = truth(corpus.vectors, query, k, corpus.matching(condition))
        hits = leg.near(query, k, condition)
        assert len(hits.ids) == len(expected), condition
        assert np.isin(hits.ids, corpus.matching(condition)).all(), condition
        wanted += len(expected)
        found += len({id_ for id_, _ in expected} & set(hits.ids.tolist()))
    leg.close()
    return found / wanted


def open_lists(corpus: Corpus) -> _Vectors:
    """FAISS as it is where vectors are many: a search looks into a tenth of the lists, or four where it is filtered."""
    from indexes import faiss, faiss_building, faiss_forms

    faiss_building.LARGE, faiss_building.SETTLE_SECONDS, faiss.GATHER_COUNT = 1, 0.0, 0
    vectors = _Vectors("faiss", corpus)
    assert vectors.index.settle(60)
    faiss_forms.LOOKED_INTO = len(vectors.index._form._sizes) // 10
    return vectors


def open_graph(qdrant: Qdrant, corpus: Corpus) -> _Remote:
    from indexes.qdrant_collection import QdrantEffort

    qdrant.effort = QdrantEffort()
    remote = _Remote(qdrant, corpus)
    qdrant.connection.optimize()
    return remote


class _Vectors:
    """A vector index that is told the ids."""

    def __init__(self, name: str, corpus: Corpus) -> None:
        self._corpus = corpus
        self.index: Any = open_vector_index(name, DIMENSION)
        self.index.add(np.array(list(corpus.vectors)), np.array(list(corpus.vectors.values())))
        self.close = self.index.close

    def near(self, query: np.ndarray, k: int, condition: Filter | None) -> Hits:
        return self.index.search(query, k, self._corpus.allowed(condition))

    def check(self, query: np.ndarray, words: str, k: int, condition: Filter | None) -> None:
        expected = truth(self._corpus.vectors, query, k, self._corpus.matching(condition))
        vector_index.agree(self.near(query, k, condition), expected)


class _Words:
    """A keyword index that is told the ids."""

    def __init__(self, name: str, corpus: Corpus, folder: Path) -> None:
        self._corpus = corpus
        self._index = open_keyword_index(name, folder)
        self._index.add([KeywordEntry(chunk, text) for chunk, text in corpus.texts.items()])
        self._index.commit()
        self.close = self._index.close

    def check(self, query: np.ndarray, words: str, k: int, condition: Filter | None) -> None:
        everything = self._index.search(words, len(self._corpus.texts))
        hits = self._index.search(words, k, self._corpus.allowed(condition))
        _same_order(hits, everything, self._corpus.matching(condition), k)


class _Remote:
    """An engine that is told the filter, and searches both legs at once."""

    def __init__(self, qdrant: Qdrant, corpus: Corpus) -> None:
        from indexes.qdrant_collection import Leg, Point, Scope

        self._corpus, self._leg, self._scope = corpus, Leg, Scope(1, 1)
        self._collection = qdrant.collection(DIMENSION, secrets.token_hex(6))
        self.close = self._collection.drop
        self._collection.put(self._scope, [Point(*row) for row in self._rows()])

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for chunk, owner in self._corpus.owners.items():
            document = self._corpus.documents[owner]
            vector, text = self._corpus.vectors[chunk], self._corpus.texts[chunk]
            yield chunk, owner, owner, vector, text, "", document.attributes, document.tags

    def search(self, query: np.ndarray, words: str, k: int, condition: Filter | None) -> list[Hits]:
        return self._collection.search(self._scope, [self._leg(query, k), self._leg(words, k)], condition)

    def near(self, query: np.ndarray, k: int, condition: Filter | None) -> Hits:
        return self.search(query, "", k, condition)[0]

    def check(self, query: np.ndarray, words: str, k: int, condition: Filter | None) -> None:
        near, worded = self.search(query, words, k, condition)
        matching = self._corpus.matching(condition)
        vector_index.agree(near, truth(self._corpus.vectors, query, k, matching))
        _, everything = self.search(query, words, len(self._corpus.texts), None)
        _same_order(worded, everything, matching, k)


def _local_legs(corpus: Corpus, folder: Path) -> list[Any]:
    return [_Vectors("flat", corpus), _Vectors("faiss", corpus), _Words("tantivy", corpus, folder)]


def _same_order(hits: Hits, everything: Hits, matching: np.ndarray, k: int) -> None:
    keep = np.isin(everything.ids, matching)
    assert hits.ids.tolist() == everything.ids[keep][:k].tolist()
    np.testing.assert_array_equal(hits.scores, everything.scores[keep][:k])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--qdrant", nargs="*", default=["memory", "engine"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(arguments.cases, arguments.seed, Path(folder), tuple(arguments.qdrant))
        engines = ", ".join(["flat", "faiss", "tantivy", *(f"qdrant ({kind})" for kind in arguments.qdrant)])
        print(f"{arguments.cases} cases on {engines}: all as brute force says")
        with open_qdrant("engine", Path(folder) / "graph") as qdrant:
            report("a graph", partial(open_graph, qdrant), unit, arguments.cases, arguments.seed)
    report("lists", open_lists, clustered, arguments.cases, arguments.seed)


def report(
    what: str, open_leg: Callable[[Corpus], Any], vectors: Callable[..., np.ndarray], cases: int, seed: int
) -> None:
    share = recall(open_leg, vectors, cases, seed)
    print(f"{cases} cases on {what} of 3,000 vectors: k found whenever k exist, recall@10 {share:.4f}")
    assert share >= 0.98


if __name__ == "__main__":
    main()
