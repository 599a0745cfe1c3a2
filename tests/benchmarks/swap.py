"""Whether an evaluation and the gate tell a better embedder from a worse one, on a real corpus in both directions.

    python -m tests.benchmarks.swap [--data FOLDER] [--json FILE]

SciFact (5,183 abstracts, 300 claims), once embedded by all-MiniLM-L6-v2 as it is meant to be used (mean pooling) and
once by the same weights with the vector of the first token alone (`pooling = "cls"`): the same width, another space. In
each mode both are asked every claim; printed are the means, the difference with its interval, p, and what the gate
(nDCG@10, margin 0, 50 questions) says of going from one to the other. Last, the share of 1,000 comparisons of one arm
with itself (its questions in two random halves, paired) that have p < 0.05. Filling takes minutes for each store; with
`--data` the stores stay there and are used again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ingest import intake
from ingest.arms import Arm
from ingest.beir import Dataset, ingest_corpus, read_beir, read_questions
from ingest.evaluate import Plan, result_of, run
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog.records import Store
from rag.evaluation.statistics import permutation_p
from rag.settings import GateSettings, Settings
from tests.data import data_root

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
STORES = {"scifact": "default", "scifact-cls": "cls"}
MEASURES = ("nDCG@10", "R@100", "RR@10", "AP")


def settings(folder: Path) -> Settings:
    cls = {"provider": "sentence-transformers", "model": MODEL, "pooling": "cls"}
    return Settings(data=folder, embedders={"cls": cls}, gate=GateSettings(metric="nDCG@10"))


def filled(backend: Backend, dataset: Dataset) -> dict[str, Store]:
    """The stores, with the corpus in them."""
    with closing(Runner(backend)) as runner:
        assert runner.ready.wait(120), runner.fault
        found = {}
        for name, embedder in STORES.items():
            store = found[name] = intake.create_store(backend, name, embedder=embedder, only_if_absent=True)
            print(name, ingest_corpus(backend, store, dataset.corpus, lambda *_: None), flush=True)
    return found


def same_with_itself(values: Sequence[float], splits: int = 1_000) -> float:
    """The share of comparisons of an arm with itself that seem to show a difference."""
    rng = np.random.default_rng(1)
    half = len(values) // 2
    found = 0
    for _ in range(splits):
        order = rng.permutation(np.asarray(values))
        found += permutation_p((order[:half] - order[half : 2 * half]).tolist(), resamples=2_000) < 0.05
    return found / splits


def compared(backend: Backend, stores: dict[str, Store], folder: Path) -> list[dict[str, Any]]:
    """Both directions in each mode."""
    questions = read_questions(folder, 0.0)
    rows = []
    for mode in ("dense", "hybrid"):
        arms = [(Arm(name=name, mode=mode), store) for name, store in stores.items()]  # type: ignore[arg-type]
        outcomes = run(backend, questions, arms, Plan(MEASURES, contexts=False))
        share = same_with_itself(list(outcomes[0].values["nDCG@10"].values()))
        print(f"\n{mode}: p < 0.05 in {share:.1%} of comparisons of {outcomes[0].arm.name} with itself")
        for live, candidate in (outcomes, outcomes[::-1]):
            result = result_of(backend, questions, [live, candidate], gated=True)
            (comparison,), (verdict,) = result.comparisons, result.verdicts
            rows.append({"mode": mode, "comparison": comparison, "verdict": verdict})
            print(f"\n{mode}: {comparison.a} -> {comparison.b}")
            for measure, one in comparison.measures.items():
                assert one.interval is not None
                print(
                    f"  {measure:8} {one.a:.4f} {one.b:.4f} {one.difference:+.4f} ({one.interval.low:+.4f} to "
                    f"{one.interval.high:+.4f}) p {one.p:.4f} n {one.n} detectable {one.detectable:.4f} "
                    f"better {one.better} worse {one.worse}"
                )
            print(f"  gate: {verdict.reason}: {verdict.message}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data folder to keep")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    folder = data_root() / "scifact"
    with tempfile.TemporaryDirectory(prefix="rag-swap-") as scratch:
        backend = Backend(settings(given.data or Path(scratch)))
        try:
            rows = compared(backend, filled(backend, read_beir(folder)), folder)
        finally:
            asyncio.run(backend.close())
    if given.json:
        plain = [{name: asdict(part) if name != "mode" else part for name, part in row.items()} for row in rows]
        given.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
