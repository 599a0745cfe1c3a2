"""How fast and how good the builds of the local embedder are, beside a bare `SentenceTransformer.encode` loop.

    python -m tests.benchmarks.embedding speed [--texts 300] [--rounds 3] [--builds onnx-int8 torch]
    python -m tests.benchmarks.embedding waits [--seconds 10]
    python -m tests.benchmarks.embedding quality [--builds onnx-int8]

All load the same weights. For speed they take turns over the same texts, so that whatever else the machine does falls
on all; the texts are pieces of SciFact abstracts that fit the model, so that none is cut off. Waits are those of single
questions beside an ingestion. For quality whole documents, cut to the model's limit, are ranked by cosine alone and
compared with the original's ranking, question by question.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from ingest.beir import Dataset, read_beir
from rag.embedders import Embedder, open_embedder, parse_embedder
from rag.embedders.model_files import resolve_model
from rag.evaluation.rankings import measure
from tests.data import shared_data

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BUILDS = ("onnx-int8", "onnx-fp32", "torch")
WORDS = 120
"""Words of a piece: about 180 tokens, as the splitter makes them."""
QUESTION = "How do I reset the remote control?"
CORPORA = ("scifact", "cranfield", "emanual_support")
DRAWS = 10_000


def open_build(build: str) -> Embedder:
    """The model by this build and no other."""
    embedder = open_embedder(
        parse_embedder(build, {"provider": "sentence-transformers", "model": MODEL, "build": build})
    )
    assert embedder.build.startswith(build), f"{build} is not to be had here"
    return embedder


# ---- speed ----------------------------------------------------------------------------------------------------------


def pieces(count: int, embedder: Embedder) -> list[str]:
    """The first `count` pieces of the corpus that fit."""
    found: list[str] = []
    with (shared_data("scifact") / "corpus.jsonl").open() as lines:
        for line in lines:
            document = json.loads(line)
            words = f"{document['title']} {document['text']}".split()
            cut = [" ".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)]
            found += [piece for piece in cut if embedder.tokenizer.count(piece) <= embedder.limit]
            if len(found) >= count:
                break
    return found[:count]


def seconds(work: Callable[[], object]) -> float:
    """What one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def speed(builds: Sequence[str], texts: int, rounds: int) -> None:
    """Print tokens per second and the time of a short question, each with its ratio to the bare loop."""
    from sentence_transformers import SentenceTransformer

    bare = SentenceTransformer(str(resolve_model(MODEL).path), device="cpu", local_files_only=True)
    embedders = {build: open_build(build) for build in builds}
    some = pieces(texts, next(iter(embedders.values())))
    tokens = sum(next(iter(embedders.values())).tokenizer.count(text) for text in some)
    print(f"{len(some)} texts, {tokens} tokens")
    many = {"bare loop": lambda texts: bare.encode(texts, normalize_embeddings=True)}
    one = {"bare loop": lambda text: bare.encode([text], normalize_embeddings=True)}
    many |= {build: embedder.embed_documents for build, embedder in embedders.items()}
    one |= {build: lambda text, e=embedder: e.embed_queries([text]) for build, embedder in embedders.items()}
    rates: dict[str, list[float]] = {name: [] for name in many}
    for work in many.values():
        work(some[:32])
    for _ in range(rounds):
        for name, work in many.items():
            rates[name].append(tokens / seconds(lambda work=work: work(some)))
    print("\n| build | tokens/s | of the bare loop | a short question, ms |\n|---|---|---|---|")
    for name, found in rates.items():
        rate = statistics.median(found)
        times = [seconds(lambda name=name: one[name](QUESTION)) for _ in range(100)]
        ratio = rate / statistics.median(rates["bare loop"])
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {statistics.median(times) * 1e3:.2f} |")


def waits(builds: Sequence[str], least: float) -> None:
    """Print how long single questions take while texts are embedded in two other threads, as two batches are."""
    print(
        "| build | question alone, ms | beside an ingestion: p50 | p95 | at most | tokens/s beside |\n"
        + "|---" * 6
        + "|"
    )
    for build in builds:
        embedder = open_build(build)
        some = pieces(64, embedder)
        tokens = sum(embedder.tokenizer.count(text) for text in some)
        alone = [seconds(lambda e=embedder: e.embed_queries([QUESTION])) for _ in range(100)]
        done: list[float] = []
        until = time.monotonic() + least

        def ingest(
            e: Embedder = embedder, texts: list[str] = some, until: float = until, done: list[float] = done
        ) -> None:
            while time.monotonic() < until:
                e.embed_documents(texts)
                done.append(1.0)

        threads = [threading.Thread(target=ingest) for _ in range(2)]
        for thread in threads:
            thread.start()
        times = []
        while time.monotonic() < until:
            times.append(seconds(lambda e=embedder: e.embed_queries([QUESTION])))
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        rate = len(done) * tokens / least
        figures = [statistics.median(alone) * 1e3, p50, p95, max(times) * 1e3]
        print(f"| {build} | {' | '.join(f'{figure:.1f}' for figure in figures)} | {rate:,.0f} |", flush=True)


# ---- quality --------------------------------------------------------------------------------------------------------


def quality(builds: Sequence[str]) -> None:
    """Print nDCG@10 of each build beside the original's, and how far vectors and rankings agree."""
    print(
        "| corpus | build | cosine, mean | at least | nDCG@10 | difference | 95 % interval | top 10 shared |\n"
        + "|---" * 8
        + "|"
    )
    original = open_build("torch")
    for corpus in CORPORA:
        dataset = read_beir(shared_data(corpus))
        texts = [fitting(f"{line.title}\n{line.text}".strip(), original) for line in dataset.corpus]
        questions = [fitting(text, original) for text in dataset.queries.values()]
        truth = embedded(original, texts, questions)
        before, nearest = judged(dataset, *truth)
        print(f"| {corpus} | torch | 1 | 1 | {before.mean():.4f} | | | 1 |", flush=True)
        for build in builds:
            rows = embedded(open_build(build), texts, questions)
            after, found = judged(dataset, *rows)
            cosines = (np.vstack(rows) * np.vstack(truth)).sum(axis=1)
            low, high = interval(after - before)
            shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(nearest, found, strict=True)])
            print(
                f"| {corpus} | {build} | {cosines.mean():.4f} | {cosines.min():.4f} | {after.mean():.4f} "
                f"| {(after - before).mean():+.4f} | {low:+.4f} to {high:+.4f} | {shared:.3f} |",
                flush=True,
            )


def fitting(text: str, embedder: Embedder) -> str:
    """The beginning of a text that the model reads."""
    spans = embedder.tokenizer.offsets(text)
    return text if len(spans) <= embedder.limit else text[: spans[embedder.limit - 1][1]]


def embedded(embedder: Embedder, texts: list[str], questions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the documents and of the questions."""
    return embedder.embed_documents(texts), embedder.embed_queries(questions)


def judged(dataset: Dataset, documents: np.ndarray, questions: np.ndarray) -> tuple[np.ndarray, list[list[str]]]:
    """nDCG@10 of each question, and the ten documents that it ranks first."""
    ids = [line.id for line in dataset.corpus]
    order = np.argsort(-(questions @ documents.T), axis=1, kind="stable")[:, :10]
    run = {query: [ids[at] for at in row] for query, row in zip(dataset.queries, order, strict=True)}
    values = measure(run, dataset.qrels, ["nDCG@10"]).per_query["nDCG@10"]
    return np.array([values[query] for query in run if query in values]), list(run.values())


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Of the mean of paired differences, by bootstrap over the questions."""
    draws = np.random.default_rng(0).integers(0, len(differences), (DRAWS, len(differences)))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "waits", "quality"))
    parser.add_argument("--builds", nargs="+", choices=BUILDS, default=list(BUILDS))
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.what == "speed":
        speed(options.builds, options.texts, options.rounds)
    elif options.what == "waits":
        waits(options.builds, options.seconds)
    else:
        quality([build for build in options.builds if build != "torch"])


if __name__ == "__main__":
    main()
