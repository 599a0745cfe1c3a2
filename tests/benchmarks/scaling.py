"""How this project grows: the same figures at 1,000, 10,000, 100,000 and 1,000,000 chunks, fitted and plotted.

    python -m tests.benchmarks.scaling [--sizes 1000,10000,100000] [--embedder default|toy] [--again]

Documents of ten passages each go through the whole durable pipeline into an empty folder; then a fresh process is asked
300 questions (hybrid, top 10), and `rag serve` is started over the folder. The passages are those of SciFact,
Cranfield, a support manual and SQuAD 2, some 28,000; beyond those they come again with every so many-th word left out,
so that hardly a text stands twice. Up to 100,000 chunks the default model embeds (some ten minutes there on two
cores); above, the toy embedder of 384 dimensions, so the vectors are synthetic and the rate is not the model's.

A size that was measured is a line in `scaling.jsonl` and not measured again but with `--again`. `scaling.md` is the
table of all sizes with the exponents of fitted power laws, `scaling.svg` the plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus, read_beir
from ingest.document import Block, ParsedDocument
from ingest.runner import Runner
from ingest.split import ChunkSettings, split_document
from rag.backend import Backend
from rag.embedders import EmbedderRegistry
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings, load_settings
from tests.benchmarks.peers.ours import STORE, served
from tests.benchmarks.watching import machine, run_watched, today, tree_bytes
from tests.data import data_root

RESULTS = Path(__file__).with_suffix(".jsonl")
CORPORA = ("squad2_open", "scifact", "cranfield", "emanual_support")
PASSAGES = 10
"""Of a document."""
QUESTIONS = 300
MODEL_UP_TO = 100_000
"""Chunks; above, the toy embeds."""
TOY = {"embedder": "toy-384", "ingest.chunk_tokens": 215}
"""Chunks as long as the default model's."""
FITTED = {
    "chunks/s": "ingest, chunks/s",
    "query p50": "query p50, ms",
    "http ready": "`rag serve` to first answer, s",
    "resident MB": "resident, MB",
    "catalog MB": "catalog, MB",
}


class Documents(Sequence[CorpusLine]):
    """So many documents, made when they are asked for: nothing holds them all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._base = [
            passages[start : start + PASSAGES]
            for passages in (read_beir(data_root() / name).corpus for name in CORPORA)
            for start in range(0, len(passages), PASSAGES)
        ]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> CorpusLine: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[CorpusLine]: ...
    def __getitem__(self, at: int | slice) -> CorpusLine | Sequence[CorpusLine]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(self._count))]
        if at >= self._count:
            raise IndexError(at)
        # A stride over the corpora, so that also few documents are of all of them.
        tour, place = divmod(at, len(self._base))
        passages = self._base[place * 997 % len(self._base)]
        text = "\n\n".join(edited(passage.text, tour) for passage in passages)
        return CorpusLine(f"document-{at}", passages[0].title, text)


def edited(text: str, tour: int) -> str:
    """A text as it is in tour 0; in each later one without other words, one in eleven or fewer."""
    if tour == 0:
        return text
    step, offset = 11 + tour // 11, tour % 11
    return " ".join(word for place, word in enumerate(text.split()) if place % step != offset)


def documents_for(chunks: int) -> int:
    """How many documents make about so many chunks, by the splitter's answer for a hundred."""
    embedder = EmbedderRegistry({}).open("default")
    some = Documents(100)
    made = 0
    for line in some:
        block = Block(0, len(line.text), "paragraph")
        parsed = ParsedDocument(line.text, line.title, "text/plain", (block,))
        made += len(split_document(parsed, embedder.tokenizer, embedder.limit, ChunkSettings()))
    return max(1, round(chunks * len(some) / made))


# ---- in a process of their own --------------------------------------------------------------------------------------


def settings(folder: Path, embedder: str) -> Settings:
    """As a new user has them, but for the toy."""
    return load_settings(environment={}, flags={"data": folder, **(TOY if embedder == "toy" else {})})


def fill(folder: Path, embedder: str, documents: int) -> dict[str, Any]:
    """Take the documents in; the model is warm. The rate at the end is that of the last fifth."""
    backend = Backend(settings(folder, embedder))
    runner = Runner(backend)
    ends: list[tuple[float, int]] = []
    try:
        store = intake.create_store(backend, STORE)
        backend.embedder(backend.live_generation(store)).embed_documents(["warm"])
        assert runner.ready.wait(120), runner.fault
        said = 0.0

        def tell(_stage: str, done: int, of: int) -> None:
            nonlocal said
            ends.append((time.perf_counter(), done))
            if time.perf_counter() - said > 10:
                said = time.perf_counter()
                print(f"{done} of {of} documents", flush=True)

        figures = ingest_corpus(backend, store, Documents(documents), tell)
        assert figures.completed == documents, figures
        late = next((when, done) for when, done in ends if done >= 0.8 * documents)
        rate = figures.chunks * (documents - late[1]) / documents / max(ends[-1][0] - late[0], 1e-9)
        retrieve(backend, [store], "warm", SearchOptions())
        view = backend.view(backend.live_generation(store))
        view.vectors.settle(600.0)  # type: ignore[attr-defined]
        view.save_if_due(share=0.0, least=1)
    finally:
        runner.close()
        asyncio.run(backend.close())
    return {
        "chunks": figures.chunks,
        "chunks/s": figures.chunks / figures.seconds,
        "chunks/s at the end": rate if late[1] < documents else None,
        "tokens/s": figures.embedded_tokens / figures.seconds,
    }


def ask(folder: Path, embedder: str) -> dict[str, Any]:
    """Milliseconds of questions that were not asked before, whole and by stage, and what the process holds then."""
    backend = Backend(settings(folder, embedder))
    try:
        store = backend.find_store(STORE)
        for number in range(20):
            retrieve(backend, [store], f"What was measured in trial {number}?", SearchOptions())
        whole: list[float] = []
        stages: dict[str, list[float]] = {}
        for question in questions():
            began = time.perf_counter()
            timings = retrieve(backend, [store], question, SearchOptions(limit=10)).timings
            whole.append(time.perf_counter() - began)
            for stage, seconds in timings.items():
                stages.setdefault(stage, []).append(seconds)
        resident = tree_bytes(os.getpid()) / 2**20
    finally:
        asyncio.run(backend.close())
    beyond = np.array(whole) - np.array(stages.get("embed", 0.0))
    return {
        **{f"query p{p}": float(np.percentile(whole, p)) * 1000 for p in (50, 95)},
        "query p50 beyond embedding": float(np.median(beyond)) * 1000,
        "stages": {stage: round(float(np.median(seconds)) * 1000, 3) for stage, seconds in stages.items()},
        "resident MB": resident,
    }


def questions() -> list[str]:
    """Some of SQuAD's."""
    return list(read_beir(data_root() / "squad2_open").queries.values())[:QUESTIONS]


# ---- one size -------------------------------------------------------------------------------------------------------


def measured(size: int, embedder: str, seconds: float) -> dict[str, Any]:
    """All figures of a size. Raises RuntimeError where a process does not come to its end in time."""
    with tempfile.TemporaryDirectory(prefix="rag-scaling-") as place:
        folder = Path(place, "data")
        line: dict[str, Any] = {"size": size, "embedder": embedder, "machine": machine(), "date": today()}
        filled = _phase(Path(place), seconds, "fill", embedder, documents_for(size))
        line |= filled | {"ingest MB": filled.pop("peak")}
        asked = _phase(Path(place), seconds, "ask", embedder, 0)
        line |= asked | {"query MB": asked.pop("peak")}
        line["catalog MB"] = _megabytes(*folder.glob("catalog.db*"))
        line["blobs MB"] = _megabytes(*(folder / "blobs").rglob("*"))
        line["views MB"] = _megabytes(*(folder / "views").rglob("*"))
        line |= served(folder, questions())
    return line


def _phase(place: Path, seconds: float, phase: str, embedder: str, documents: int) -> dict[str, Any]:
    out = place / f"{phase}.json"
    command = [sys.executable, "-m", "tests.benchmarks.scaling", "--child", phase, str(out), embedder, str(documents)]
    ended = run_watched(command, os.environ, place / "log", seconds)
    if ended.code != 0:
        raise RuntimeError(f"{phase}: " + ("out of time: " if ended.code is None else "") + ended.said)
    found: dict[str, Any] = json.loads(out.read_text())
    return found | {"peak": ended.peak / 2**20}


def _megabytes(*files: Path) -> float:
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


# ---- the results ----------------------------------------------------------------------------------------------------


def lines(results: Path) -> list[dict[str, Any]]:
    """The latest line of each size and embedder, the smallest first."""
    found = {}
    for text in results.read_text().splitlines() if results.exists() else ():
        line = json.loads(text)
        found[line["size"], line["embedder"]] = line
    return [found[key] for key in sorted(found)]


def points(measured: Sequence[dict[str, Any]], figure: str) -> list[tuple[float, float]]:
    """Chunks and the figure; of rates only those of the model."""
    kept = [line for line in measured if figure != "chunks/s" or line["embedder"] == "default"]
    return [(line["chunks"], line[figure]) for line in kept or measured]


def fitted(some: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Exponent and factor of the power law through some points, by least squares of the logarithms."""
    slope, intercept = np.polyfit(*np.log10(np.array(some)).T, 1)
    return float(slope), float(10**intercept)


def write_results(results: Path) -> None:
    """The table and the plot of all lines, beside them."""
    found = lines(results)
    heads = ("chunks", "embedder", "chunks/s", "at the end", "tokens/s", "query p50 ms", "p95", "beyond embedding")
    more = (
        "`rag serve` to first answer, s",
        "HTTP p50 ms",
        "resident MB",
        "ingest MB at most",
        "catalog MB",
        "views MB",
    )
    keys = (
        *("chunks/s", "chunks/s at the end", "tokens/s", "query p50", "query p95", "query p50 beyond embedding"),
        *("http ready", "http query p50", "resident MB", "ingest MB", "catalog MB", "views MB"),
    )
    page = [
        "Made by `python -m tests.benchmarks.scaling`; stages, machine and day of each line are in the `.jsonl`.\n\n",
        f"| {' | '.join((*heads, *more))} |\n{'|---' * len((*heads, *more))}|\n",
    ]
    for line in found:
        cells = ["–" if line[key] is None else f"{line[key]:,.4g}" for key in keys]
        page.append(f"| {line['chunks']:,} | {line['embedder']} | {' | '.join(cells)} |\n")
    page.append("\nExponents of chunks in the fitted power laws (0: does not grow, 1: in proportion):\n\n")
    if len(found) > 1:
        page += [
            f"- {name}: {fitted(points(found, key))[0]:+.2f}\n" for key, name in FITTED.items() if _fits(found, key)
        ]
        results.with_suffix(".svg").write_text(plotted(found))
        page.append(f"\n![plot]({results.with_suffix('.svg').name})\n")
    results.with_suffix(".md").write_text("".join(page))
    print("".join(page))


def _fits(found: Sequence[dict[str, Any]], figure: str) -> bool:
    return len(points(found, figure)) > 1


WIDTH, HEIGHT, MARGIN = 230, 170, 34
"""Of one panel, in pixels."""


def plotted(found: Sequence[dict[str, Any]]) -> str:
    """One panel for each figure, both axes logarithmic: the points, the fitted line and its exponent."""
    panels = [_panel(points(found, key), name) for key, name in FITTED.items() if _fits(found, key)]
    body = "".join(f'<g transform="translate({at * WIDTH},0)">{panel}</g>' for at, panel in enumerate(panels))
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    style = "text{font:11px sans-serif} path{stroke:#999;fill:none} circle{fill:#14599c}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{body}</svg>\n'


def _panel(some: Sequence[tuple[float, float]], name: str) -> str:
    slope, factor = fitted(some)
    xs, ys = np.array(some).T
    line = factor * xs**slope
    low, high = min(ys.min(), line.min()) / 1.3, max(ys.max(), line.max()) * 1.3

    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * np.log(value / xs.min()) / np.log(xs.max() / xs.min())

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * np.log(value / low) / np.log(high / low)

    dots = "".join(
        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/><text x="{x(a) - 8:.1f}" y="{y(b) - 7:.1f}">{b:,.3g}</text>'
        for a, b in some
    )
    ticks = "".join(f'<text x="{x(a) - 10:.1f}" y="{HEIGHT - 14}">{_short(a)}</text>' for a in xs)
    path = f'<path d="M{x(xs[0]):.1f} {y(line[0]):.1f}L{x(xs[-1]):.1f} {y(line[-1]):.1f}"/>'
    axes = f'<path d="M{MARGIN - 8} {MARGIN - 8}V{HEIGHT - MARGIN + 4}H{WIDTH - MARGIN + 8}"/>'
    return f'<text x="{MARGIN - 8}" y="14">{name.replace("`", "")} (n^{slope:+.2f})</text>{axes}{path}{dots}{ticks}'


def _short(chunks: float) -> str:
    return f"{chunks / 1e6:.3g}M" if chunks >= 1e6 else f"{chunks / 1e3:.3g}k"


def main() -> None:
    """Measure what is not yet, and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000", help="chunks, about, with commas between")
    parser.add_argument("--embedder", choices=("default", "toy"), help=f"else the toy above {MODEL_UP_TO:,} chunks")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--minutes", type=float, default=90.0, help="at most, for each process of a size")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        phase, out, embedder, documents = given.child
        folder = Path(out).parent / "data"
        found = fill(folder, embedder, int(documents)) if phase == "fill" else ask(folder, embedder)
        Path(out).write_text(json.dumps(found))
        return
    known = {} if given.again else {(line["size"], line["embedder"]) for line in lines(given.results)}
    for size in map(int, given.sizes.split(",")):
        embedder = given.embedder or ("default" if size <= MODEL_UP_TO else "toy")
        if (size, embedder) in known:
            print(f"{size:,} chunks, {embedder}: measured before", flush=True)
            continue
        print(f"{size:,} chunks, {embedder} ...", flush=True)
        line = measured(size, embedder, given.minutes * 60)
        with given.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    write_results(given.results)


if __name__ == "__main__":
    main()
