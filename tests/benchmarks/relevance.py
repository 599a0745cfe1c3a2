"""How well relevance tells answerable questions from off-topic ones, at the default threshold.

    python -m tests.benchmarks.relevance [--cache FILE]

Positives: questions whose gold passage is among the first 10 (cosine and coverage, each scaled, averaged). Negatives:
questions against a corpus of something else, and, hardest, SQuAD questions against the other articles. A question's
score is the relevance of its best hit. Printed for the cosine alone, the words alone and both: the ROC AUC, the share
of positives below the threshold (false abstentions) and of negatives at or above it (missed abstentions). Embedding
some 3,600 texts takes minutes; `--cache` keeps the vectors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexes.words import analyse, content_words
from rag.embedders import EmbedderRegistry
from rag.relevance import DEFAULT_THRESHOLD, calibrate, coverage, relevance
from tests.data import shared_data

HITS = 10


@dataclass
class Material:
    """Passages and questions of one data set, with their vectors."""

    ids: list[str]
    passages: list[str]
    questions: list[str]
    gold: list[set[str]]
    passage_vectors: np.ndarray | None = None
    question_vectors: np.ndarray | None = None


def lines(name: str, file: str) -> list[dict]:
    """The records of one file."""
    return [json.loads(line) for line in (shared_data(name) / file).read_text(encoding="utf-8").splitlines()]


def retrieval_set(name: str, passages: int, questions: int, draw: random.Random) -> Material:
    """At most so many questions, and passages that hold all of their gold."""
    gold: dict[str, set[str]] = defaultdict(set)
    for row in (shared_data(name) / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = row.split("\t")
        if int(grade) > 0:
            gold[query].add(document)
    asked = [query for query in lines(name, "queries.jsonl") if query["_id"] in gold]
    asked = draw.sample(asked, min(questions, len(asked)))
    needed = set().union(*(gold[query["_id"]] for query in asked))
    corpus = lines(name, "corpus.jsonl")
    articles = {document.rpartition("#")[0] for document in needed}
    others = [d for d in corpus if d["_id"] not in needed and d["_id"].rpartition("#")[0] in articles]
    draw.shuffle(others)
    kept = [d for d in corpus if d["_id"] in needed] + others[: max(passages - len(needed), 0)]
    return Material(
        [d["_id"] for d in kept],
        [f"{d['title']}\n{d['text']}" for d in kept],
        [query["text"] for query in asked],
        [gold[query["_id"]] for query in asked],
    )


def load(embedder, cache: Path | None) -> dict[str, Material]:
    """All sets, embedded; texts over the limit are cut to it, as a splitter would."""
    draw = random.Random(1)
    sets = {
        "emanual": retrieval_set("emanual_support", 704, 400, draw),
        "scifact": retrieval_set("scifact", 700, 300, draw),
        "squad": retrieval_set("squad2_open", 1200, 500, draw),
    }
    off = [row["text"] for row in lines("clinc_oos", "queries.jsonl") if not row["in_scope"]]
    off = draw.sample(off, 400)
    sets["clinc"] = Material([], [], off, [set() for _ in off])
    kept = dict(np.load(cache)) if cache and cache.exists() else {}
    for name, material in sets.items():
        material.passages = [cut(text, embedder) for text in material.passages]
        if name not in kept:
            kept[name] = embedder.embed_documents(material.passages)
            kept[f"{name}?"] = embedder.embed_queries(material.questions)
        material.passage_vectors, material.question_vectors = kept[name], kept[f"{name}?"]
    if cache:
        np.savez(cache, **kept)
    return sets


def cut(text: str, embedder) -> str:
    """The beginning of `text` that fits."""
    while embedder.tokenizer.count(text) > embedder.limit:
        spans = embedder.tokenizer.offsets(text)
        text = text[: spans[min(embedder.limit, len(spans)) - 1][1] - 1]
    return text


def hits(asked: Material, corpus: Material, found: list[set[str]], frequency: Counter, *, answerable, foreign):
    """Per question: cosines and coverages of its best candidates by either sign."""
    for question, vector, gold in zip(asked.questions, asked.question_vectors, asked.gold, strict=True):
        words = content_words(question)
        idf = np.array([math.log(1 + (len(found) - frequency[w] + 0.5) / (frequency[w] + 0.5)) for w in words])
        cosines = corpus.passage_vectors @ vector
        covered = coverage(idf, np.array([[word in text for text in found] for word in words]))
        if foreign:
            own = {document.rpartition("#")[0] for document in gold}
            allowed = np.array([document.rpartition("#")[0] not in own for document in corpus.ids])
            cosines, covered = np.where(allowed, cosines, -1), np.where(allowed, covered, 0)
        if answerable:
            mixed = cosines / max(cosines.max(), 1e-9) + covered / max(covered.max(), 1e-9)
            if not any(corpus.ids[i] in gold for i in np.argsort(-mixed)[:HITS]):
                continue
        best = np.union1d(np.argsort(-cosines)[:HITS], np.argsort(-covered)[:HITS])
        yield cosines[best], covered[best]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that a positive scores above a negative; a tie counts half."""
    negative = np.sort(negative)
    below, upto = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    return float((below + upto).mean() / 2 / len(negative))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="an .npz file for the vectors")
    cache = parser.parse_args().cache
    embedder = EmbedderRegistry({}).open("default")
    calibration = calibrate(embedder)
    print(f"calibration: low {calibration.low:.3f}, high {calibration.high:.3f}; threshold {DEFAULT_THRESHOLD}")
    sets = load(embedder, cache)
    words = {name: [set(analyse(text)) for text in material.passages] for name, material in sets.items()}
    frequency = {name: Counter(w for text in found for w in text) for name, found in words.items()}

    def collect(asked: str, corpus: str, *, answerable=False, foreign=False):
        return list(
            hits(sets[asked], sets[corpus], words[corpus], frequency[corpus], answerable=answerable, foreign=foreign)
        )

    positives = {name: collect(name, name, answerable=True) for name in ("emanual", "squad", "scifact")}
    negatives = {"squad, other articles": collect("squad", "squad", foreign=True)}
    for asked, corpus in (
        ("clinc", "emanual"),
        ("emanual", "scifact"),
        ("clinc", "squad"),
        ("clinc", "scifact"),
        ("scifact", "emanual"),
        ("squad", "emanual"),
    ):
        negatives[f"{asked} on {corpus}"] = collect(asked, corpus)

    for name, dense, lexical in (("cosine alone", True, False), ("words alone", False, True), ("both", True, True)):

        def best(hit, dense=dense, lexical=lexical) -> float:
            return max(
                relevance(float(c) if dense else None, float(w) if lexical else None, calibration)
                for c, w in zip(*hit, strict=True)
            )

        good = {key: np.array([best(hit) for hit in value]) for key, value in positives.items()}
        bad = {key: np.array([best(hit) for hit in value]) for key, value in negatives.items()}
        every = np.concatenate(list(good.values()))
        none = np.concatenate(list(bad.values()))
        print(
            f"\n{name}: AUC {auc(every, none):.3f}, false abstentions {(every < DEFAULT_THRESHOLD).mean():.1%} of "
            f"{len(every)}, missed {(none >= DEFAULT_THRESHOLD).mean():.1%} of {len(none)}"
        )
        for key, scores in good.items():
            print(f"  {key:24} false abstentions {(scores < DEFAULT_THRESHOLD).mean():6.1%} of {len(scores)}")
        for key, scores in bad.items():
            missed = (scores >= DEFAULT_THRESHOLD).mean()
            print(f"  {key:24} missed abstentions {missed:5.1%} of {len(scores)}, AUC {auc(every, scores):.3f}")


if __name__ == "__main__":
    main()
