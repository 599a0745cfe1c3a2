"""Exact, HNSW, lists and quantised: build rate, memory, time and recall of a search, one at a time.

    python -m tests.benchmarks.vector_index prepare FOLDER [--data synthetic] [--count 100000]
    python -m tests.benchmarks.vector_index measure FOLDER [--data synthetic] [--count 100000] [--variant "faiss" ...]
    python -m tests.benchmarks.vector_index filters FOLDER [--data synthetic] [--count 100000] [--queries 400]
    python -m tests.benchmarks.vector_index table

`prepare` writes vectors, queries and their true neighbours into a folder, `measure` appends a line to
`vector_index.jsonl` for each variant, each in a process of its own, `filters` one for each share and kind of filter,
and `table` makes `vector_index.md` of these lines. A filter leaves any vectors (`random`) or those nearest to one of
them (`clustered`), of which most queries ask for something else.

The data: `synthetic` is Gaussian clusters of 50, noise 0.035 per dimension, normalised (20,000 clusters for a million);
`real` is passages of `squad2_open`, embedded by the default model and repeated with noise of 0.02 per dimension, asked
for with the questions of that set.

Memory is what the process holds more than before (`RssAnon`), at the end and at most; pages of mapped files are not in
it. FAISS runs with as many threads as it takes by itself. `faiss` is the index as it serves, built by additions of
4,096; the others are FAISS alone, fed with everything at once. All lists are trained alike.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexes import faiss as served
from indexes import faiss_building
from indexes.faiss_forms import LOOKED_INTO
from indexes.faiss_partition import SAMPLE_PER_LIST, list_count, quantizer_of, trained_centroids
from tests.data import data_root

DIMENSION = 384
CLUSTER, NOISE = 50, 0.035
REAL_TEXTS, REAL_NOISE = 4_000, 0.02
PIECE = 50_000
SHARES = (0.001, 0.01, 0.1, 0.5, 0.9)
RECORD = Path(__file__).with_suffix(".jsonl")
BY_PRODUCT = faiss.METRIC_INNER_PRODUCT
QUANTIZERS = {
    "fp16": faiss.ScalarQuantizer.QT_fp16,
    "SQ8": faiss.ScalarQuantizer.QT_8bit,
}
Search = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Data:
    """Vectors, queries, and the rows of the 100 nearest to each query."""

    vectors: np.ndarray
    queries: np.ndarray
    nearest: np.ndarray


def normalised(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def about(rng: np.random.Generator, centres: np.ndarray, noise: float) -> np.ndarray:
    return normalised(centres + noise * rng.standard_normal(centres.shape, dtype=np.float32))


def synthetic(count: int) -> tuple[Iterator[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    centres = normalised(rng.standard_normal((max(count // CLUSTER, 1), DIMENSION)))

    def drawn(some: int) -> np.ndarray:
        return about(rng, centres[rng.integers(0, len(centres), some)], NOISE)

    queries = drawn(1_000)
    return (drawn(min(PIECE, count - start)) for start in range(0, count, PIECE)), queries


def real(count: int, folder: Path) -> tuple[Iterator[np.ndarray], np.ndarray]:
    passages, questions = embedded(folder / "embedded.npz")
    rng = np.random.default_rng(0)
    order = rng.permutation(count) % len(passages)
    pieces = (about(rng, passages[order[start : start + PIECE]], REAL_NOISE) for start in range(0, count, PIECE))
    return pieces, questions


def embedded(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Passages and questions of `squad2_open`, embedded once."""
    if not file.exists():
        from rag.embedders import EmbedderRegistry

        embedder = EmbedderRegistry({}).open("default")
        folder = data_root() / "squad2_open"
        corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
        passages = [f"{document['title']}\n{document['text']}" for document in corpus]
        questions = [json.loads(line)["text"] for line in (folder / "queries.jsonl").open()]
        fitting = [text for text in passages[::5] if embedder.tokenizer.count(text) <= embedder.limit][:REAL_TEXTS]
        vectors = embedder.embed_documents(fitting)
        np.savez(file, passages=vectors, questions=embedder.embed_queries(questions[:500]))
    held = np.load(file)
    return held["passages"], held["questions"]


def prepare(data: str, count: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pieces, queries = synthetic(count) if data == "synthetic" else real(count, folder)
    vectors = np.lib.format.open_memmap(stem(data, count, folder, "vectors"), "w+", np.float32, (count, DIMENSION))
    start = 0
    for piece in pieces:
        vectors[start : start + len(piece)] = piece
        start += len(piece)
    np.save(stem(data, count, folder, "queries"), queries)
    np.save(stem(data, count, folder, "nearest"), true_neighbours(vectors, queries, 100))


def true_neighbours(vectors: np.ndarray, queries: np.ndarray, k: int, some: np.ndarray | None = None) -> np.ndarray:
    """The places of the k nearest to each query among the vectors, or some rows of them, the nearest first."""
    products = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors) if some is None else len(some), PIECE):
        part = slice(start, start + PIECE)
        piece = queries @ vectors[part if some is None else some[part]].T
        products, rows = (
            np.hstack([products, piece]),
            np.hstack([rows, start + np.arange(piece.shape[1])[None].repeat(len(queries), 0)]),
        )
        best = np.argpartition(-products, min(k, products.shape[1] - 1), axis=1)[:, :k]
        products, rows = np.take_along_axis(products, best, 1), np.take_along_axis(rows, best, 1)
    return np.take_along_axis(rows, np.argsort(-products, axis=1, kind="stable"), 1)


def stem(data: str, count: int, folder: Path, part: str) -> Path:
    return folder / f"{data}-{count}-{part}.npy"


def load(data: str, count: int, folder: Path) -> Data:
    vectors, queries, nearest = (stem(data, count, folder, part) for part in ("vectors", "queries", "nearest"))
    return Data(np.load(vectors, mmap_mode="r"), np.load(queries), np.load(nearest))


def flat(vectors: np.ndarray, quantizer: str) -> tuple[Any, Search]:
    kind = {"fp32": None} | QUANTIZERS
    index = (
        faiss.IndexFlatIP(DIMENSION)
        if quantizer == "fp32"
        else faiss.IndexScalarQuantizer(DIMENSION, kind[quantizer], BY_PRODUCT)
    )
    return filled(index, vectors)


def graph(vectors: np.ndarray, quantizer: str) -> tuple[Any, Search]:
    index = (
        faiss.IndexHNSWFlat(DIMENSION, 32, BY_PRODUCT)
        if quantizer == "fp32"
        else faiss.IndexHNSWSQ(DIMENSION, QUANTIZERS[quantizer], 32, BY_PRODUCT)
    )
    index.hnsw.efSearch = 128
    index.train(np.array(vectors[:PIECE]))
    return filled(index, vectors)


def lists(vectors: np.ndarray, quantizer: str) -> tuple[Any, Search]:
    """As many lists as the index makes and looks into."""
    count = list_count(len(vectors))
    some = np.random.default_rng(0).choice(len(vectors), min(len(vectors), SAMPLE_PER_LIST * count), replace=False)
    sample = vectors[some]
    coarse = quantizer_of(trained_centroids(sample, count, lambda _: None))
    index = (
        faiss.IndexIVFFlat(coarse, DIMENSION, count, BY_PRODUCT)
        if quantizer == "fp32"
        else faiss.IndexIVFScalarQuantizer(coarse, DIMENSION, count, QUANTIZERS[quantizer], BY_PRODUCT)
    )
    index.train(sample)
    index.nprobe = min(count, LOOKED_INTO)
    return filled(index, vectors)


def filled(index: Any, vectors: np.ndarray) -> tuple[Any, Search]:
    for start in range(0, len(vectors), PIECE):
        index.add(np.array(vectors[start : start + PIECE]))
    return index, lambda query, k: index.search(query[None], k)[1][0]


def rescored(vectors: np.ndarray, quantizer: str) -> tuple[Any, Search]:
    index, search = lists(vectors, quantizer)

    def best(query: np.ndarray, k: int) -> np.ndarray:
        found = search(query, k + served.EXTRA)
        return found[np.argsort(-(vectors[found] @ query), kind="stable")[:k]]

    return index, best


def ours(vectors: np.ndarray, form: str, shared: Path | None = None) -> tuple[Any, Search]:
    """The index as it serves, in either form whatever its size."""
    faiss_building.LARGE = 1 if form == "lists" else len(vectors) + 1
    index = served.FaissIndex(DIMENSION, Path(os.environ["RAG_BENCHMARK_FOLDER"]), shared)
    for start in range(0, len(vectors), 4_096):
        piece = np.array(vectors[start : start + 4_096])
        index.add(np.arange(start + 1, start + 1 + len(piece)), piece)
    assert index.settle(3_600)
    return index, lambda query, k: index.search(query, k).ids - 1


VARIANTS: dict[str, tuple[Callable[[np.ndarray, str], tuple[Any, Search]], str]] = {
    "exact fp32": (flat, "fp32"),
    "exact fp16": (flat, "fp16"),
    "HNSW32 fp32": (graph, "fp32"),
    "HNSW32 SQ8": (graph, "SQ8"),
    "IVF fp32": (lists, "fp32"),
    "IVF fp16": (lists, "fp16"),
    "IVF SQ8": (lists, "SQ8"),
    "IVF SQ8 rescored": (rescored, "SQ8"),
    "faiss: scan": (ours, "scan"),
    "faiss: lists": (ours, "lists"),
}


class Memory:
    """What this process holds more than at the start, in MB; the most is looked for ten times a second."""

    def __init__(self) -> None:
        self._start = self._most = self._held()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> int:
        gc.collect()
        return self._held() - self._start

    def most(self) -> int:
        return max(self._most, self._held()) - self._start

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self._held())
            time.sleep(0.1)

    @staticmethod
    def _held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


def measure(data: str, count: int, folder: Path, variant: str, asked: int) -> None:
    """One variant; its line goes to the record."""
    os.environ["RAG_BENCHMARK_FOLDER"] = str(folder)
    held = load(data, count, folder)
    held.vectors.sum(axis=0)  # from now on the file is in the system's memory
    build, kind = VARIANTS[variant]
    memory, began = Memory(), time.perf_counter()
    index, search = build(held.vectors, kind)
    seconds = time.perf_counter() - began
    line: dict[str, Any] = {"data": data, "count": count, "variant": variant}
    line |= {"built per s": round(count / seconds), "MB": memory.now(), "MB at most": memory.most()}
    for k in (10, 100):
        line |= timed(held, search, k, asked)
    if isinstance(index, served.FaissIndex):
        line |= changes(index, held.queries[0], count)
    record(line)


def record(line: dict[str, Any]) -> None:
    line |= {"machine": f"{os.cpu_count()} cores, {processor()}", "date": datetime.now(UTC).date().isoformat()}
    print(json.dumps(line), flush=True)
    with RECORD.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def timed(held: Data, search: Search, k: int, asked: int) -> dict[str, float]:
    """Recall at k, and milliseconds of a search."""
    for query in held.queries[-20:]:
        search(query, k)
    spent, right = [], 0
    queries = held.queries[: min(asked, len(held.queries) - 20)]
    for query, nearest in zip(queries, held.nearest, strict=False):
        began = time.perf_counter()
        found = search(query, k)
        spent.append(time.perf_counter() - began)
        right += len(np.intersect1d(found, nearest[:k]))
    p50, p95 = (round(1_000 * float(np.percentile(spent, q)), 2) for q in (50, 95))
    return {f"recall@{k}": round(right / k / len(queries), 4), f"p50@{k}": p50, f"p95@{k}": p95}


def changes(index: served.FaissIndex, vector: np.ndarray, count: int) -> dict[str, float]:
    """Milliseconds of a single addition and of a single removal, each seen by the next search."""
    spent: dict[str, list[float]] = {"add": [], "remove": []}
    ids = np.array([count + 1])
    for _ in range(20):
        began = time.perf_counter()
        index.add(ids, vector[None])
        spent["add"].append(time.perf_counter() - began)
        assert index.search(vector, 1).ids.tolist() == ids.tolist()
        began = time.perf_counter()
        index.remove(ids)
        spent["remove"].append(time.perf_counter() - began)
        assert index.search(vector, 1).ids.tolist() != ids.tolist()
    return {f"ms to {change}": round(1_000 * float(np.median(times)), 2) for change, times in spent.items()}


def filters(data: str, count: int, folder: Path, asked: int) -> None:
    """At several shares of what is allowed: as many as can be are found, and how many of those are the right ones."""
    os.environ["RAG_BENCHMARK_FOLDER"] = str(folder)
    held = load(data, count, folder)
    began = time.perf_counter()
    index, _ = ours(held.vectors, "lists", folder / f"{data}-{count}-shared")
    print(f"ready after {time.perf_counter() - began:.0f} s, {index.memory() / 2**20:.0f} MB", flush=True)
    rng = np.random.default_rng(1)
    for share in SHARES:
        for kind in ("random", "clustered"):
            cases = [case for _ in range(4) for case in filtered(index, held, share, kind, asked // 4, rng)]
            right, spent = np.array(cases).T
            p50, p95 = (round(1_000 * float(np.percentile(spent, q)), 2) for q in (50, 95))
            record(
                {"data": data, "count": count, "share": share, "filter": kind}
                | {"recall@10": round(float(right.mean()), 4), "p50@10": p50, "p95@10": p95, "queries": len(cases)}
            )


def filtered(
    index: served.FaissIndex, held: Data, share: float, kind: str, asked: int, rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """One filter and some queries: the recall at 10 and the seconds of each."""
    count = len(held.vectors)
    by = rng.random(count) if kind == "random" else -(held.vectors @ held.vectors[rng.integers(count)])
    allowed = np.sort(np.argpartition(by, int(share * count))[: int(share * count)]) + 1
    queries = held.queries[rng.choice(len(held.queries), asked, replace=False)]
    nearest = allowed[true_neighbours(held.vectors, queries, 10, allowed - 1)]
    for query, right in zip(queries, nearest, strict=True):
        began = time.perf_counter()
        hits = index.search(query, 10, allowed)
        spent = time.perf_counter() - began
        assert len(hits.ids) == 10
        assert np.isin(hits.ids, allowed).all()
        yield len(np.intersect1d(hits.ids, right)) / 10, spent


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def table() -> None:
    """The record as Markdown, the newest line of each variant, share and kind of filter."""
    lines = [json.loads(line) for line in RECORD.read_text().splitlines()]
    what = ("data", "count", "variant", "share", "filter")
    newest = {tuple(line.get(key) for key in what): line for line in lines}
    print("Made by `python -m tests.benchmarks.vector_index table`; machine and day of each line are in the `.jsonl`.")
    measured = ("variant", "built per s", "MB", "MB at most", "recall@10", "p50@10", "p95@10", "recall@100", "p50@100")
    for data in ("synthetic", "real"):
        for count in sorted({line["count"] for line in lines if line["data"] == data}):
            print(f"\n**{data}, {count:,} vectors**\n")
            rows(measured, [newest.get((data, count, variant, None, None)) for variant in VARIANTS])
            cells = [
                newest.get((data, count, None, share, kind)) for share in SHARES for kind in ("random", "clustered")
            ]
            if any(cells):
                print("\nFiltered, `faiss: lists`:\n")
                rows(("share", "filter", "recall@10", "p50@10", "p95@10", "queries"), cells)


def rows(columns: tuple[str, ...], lines: list[dict[str, Any] | None]) -> None:
    print("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), sep="\n")
    for line in filter(None, lines):
        cells = (f"{line[column]:,}" if isinstance(line[column], int) else str(line[column]) for column in columns)
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "measure", "filters", "table"])
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--data", choices=["synthetic", "real"], default="synthetic")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--variant", choices=VARIANTS, nargs="*", default=list(VARIANTS))
    parser.add_argument("--queries", type=int, default=400)
    chosen = parser.parse_args()
    if chosen.what == "prepare":
        prepare(chosen.data, chosen.count, chosen.folder)
    elif chosen.what == "filters":
        filters(chosen.data, chosen.count, chosen.folder, chosen.queries)
    elif chosen.what == "table":
        table()
    else:
        for variant in chosen.variant:
            arguments = (chosen.data, chosen.count, chosen.folder, variant, chosen.queries)
            child = multiprocessing.get_context("spawn").Process(target=measure, args=arguments)
            child.start()
            child.join()
            assert child.exitcode == 0, variant


if __name__ == "__main__":
    main()
