"""One subject in a process of its own: `python -m tests.benchmarks.peers.subject MODULE:CLASS fill|ask FOLDER STARTED`.

The folder holds `texts.json` (by id) and `questions.json` (by id); what was measured is written to `fill.json` or
`ask.json` there. STARTED is when the process was started, in seconds of the epoch. Runs in either environment.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

HITS = 10
JUDGED = 50
"""Texts that are asked for where the documents are judged: ten documents may have many texts."""
WARM_UP = 10
"""Questions before the clock runs, none of which is asked again."""
VERSIONS = (
    *("chromadb", "faiss-cpu", "langchain-community", "langchain-huggingface", "llama-index-core"),
    *("llama-index-vector-stores-faiss", "onnxruntime", "sentence-transformers", "tantivy", "torch"),
    *("transformers", "txtai"),
)


def fill(subject: Any, texts: dict[str, str]) -> dict[str, Any]:
    """Seconds to take in all texts; models are loaded before."""
    if hasattr(subject, "warm"):
        subject.warm()
    started = time.perf_counter()
    subject.fill(texts)
    seconds = time.perf_counter() - started
    if hasattr(subject, "require_same"):
        subject.require_same(texts)
    return {"seconds": seconds, "limit": subject.limit, "versions": versions()}


def ask(subject: Any, questions: dict[str, str], started: float) -> dict[str, Any]:
    """When the first answer came, how long each took, and the documents found."""
    subject.open()
    assert subject.search(next(iter(questions.values())), HITS)
    ready = time.time() - started
    for number in range(WARM_UP):
        subject.search(f"What was measured in trial {number}?", HITS)
    seconds = []
    for question in list(questions.values())[1:]:
        began = time.perf_counter()
        subject.search(question, HITS)
        seconds.append(time.perf_counter() - began)
    run = {id_: documents(subject.search(question, JUDGED)) for id_, question in questions.items()}
    return {"ready": ready, "query": seconds, "run": run}


def documents(texts: list[str]) -> list[str]:
    """The documents of the texts found, each where its best text is."""
    return list(dict.fromkeys(id_.partition("#")[0] for id_ in texts))[:HITS]


def versions() -> dict[str, str]:
    """What is installed here of what could make a difference."""
    return {d.name.lower(): d.version for d in distributions() if d.name.lower() in VERSIONS}


def main() -> None:
    """Run one phase."""
    named, phase, folder, started = sys.argv[1:]
    module, _, name = named.partition(":")
    place = Path(folder)
    subject = getattr(importlib.import_module(module), name)(place)
    if phase == "fill":
        found = fill(subject, json.loads((place / "texts.json").read_text()))
    else:
        found = ask(subject, json.loads((place / "questions.json").read_text()), float(started))
    (place / f"{phase}.json").write_text(json.dumps(found))
    if hasattr(subject, "close"):
        subject.close()


if __name__ == "__main__":
    main()
