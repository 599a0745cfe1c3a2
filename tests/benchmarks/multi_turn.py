"""What the conversation adds to retrieval: nDCG@10 of last questions, searched alone and with what came before.

    python -m tests.benchmarks.multi_turn [--passages 2400] [--conversations 400]

The conversations are made of the questions of `squad2_open` (dev articles; the other passages are distractors), each
last question after two earlier ones with their answers:

    pronoun   of the same passage, and every name in the last question that was said before is "it"
    same      of the same passage, as they were asked
    near      of another passage of the same article
    away      of another article: what came before can only mislead

The search is the default one (hybrid). Stated with each mean are its 95 % interval (bootstrap) and, for the difference
to the last question alone, the p value of a paired permutation test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ingest import intake
from ingest.beir import CorpusLine, as_original, ingest_corpus, read_beir
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog.records import Store
from rag.context import Message
from rag.conversation import by_words
from rag.evaluation.rankings import measure
from rag.retrieve import SearchOptions, retrieve
from rag.settings import load_settings
from tests.data import data_root

Conversation = tuple[Message, ...]
Question = Mapping[str, str]

_NAME = re.compile(r"\b[A-Z][\w'’.-]*(?:\s+(?:of\s+|the\s+)?[A-Z][\w'’.-]*)*")
_PRONOUNS = ["it", "he", "they", "this"]

WAYS: Mapping[str, Callable[[Sequence[Message]], str]] = {
    "the last question alone": lambda messages: messages[-1]["content"],
    "every question": lambda messages: "\n".join(m["content"] for m in messages if m["role"] == "user"),
    "by words": by_words,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=2400)
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--folder", type=Path, help="keep what was taken in here, and use it again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        sets, gold = conversations(chosen.conversations)
        backend = Backend(load_settings(environment={}, flags={"data": folder}))
        try:
            store = filled(backend, chosen.passages)
            for kind, asked in sets.items():
                report(backend, store, kind, asked, gold)
        finally:
            asyncio.run(backend.close())


def filled(backend: Backend, passages: int) -> Store:
    """The store with the passages, taken in where it is not there yet."""
    corpus = read_beir(data_root() / "squad2_open").corpus
    mine = [line for line in corpus if line.id.startswith("dev/")]
    others = [line for line in corpus if not line.id.startswith("dev/")]
    try:
        return backend.find_store("squad")
    except Exception:  # noqa: BLE001
        with closing(Runner(backend)) as runner:
            runner.ready.wait(60)
            store = intake.create_store(backend, "squad")
            ingest_corpus(backend, store, [*mine, *others[: max(0, passages - len(mine))]], lambda *_: None)
        return store


def conversations(most: int) -> tuple[dict[str, dict[str, Conversation]], dict[str, dict[str, int]]]:
    """Conversations by kind and the id of their last question, and the passage that each last question asks for."""
    lines = (data_root() / "squad2_open" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = random.Random(7)
    passages: dict[str, list[Question]] = {}
    for question in map(json.loads, lines):
        if question["answerable"]:
            passages.setdefault(question["context_id"], []).append(question)
    long = [passage for passage in passages if len(passages[passage]) >= 3]
    sets: dict[str, dict[str, Conversation]] = {"pronoun": {}, "same": {}, "near": {}, "away": {}}
    gold = {}
    for passage in chosen.sample(long, len(long)):
        first, second, last = chosen.sample(passages[passage], 3)
        article = [p for p in long if p != passage and p.partition("#")[0] == passage.partition("#")[0]]
        foreign = [p for p in long if p.partition("#")[0] != passage.partition("#")[0]]
        reduced = with_pronouns(last["question"], " ".join(turn_texts([first, second])), chosen)
        gold[last["_id"]] = {file_name(passage): 1}
        if reduced != last["question"]:
            sets["pronoun"][last["_id"]] = spoken([first, second], reduced)
        sets["same"][last["_id"]] = spoken([first, second], last["question"])
        for kind, places in (("near", article), ("away", foreign)):
            if places:
                before = chosen.sample(passages[chosen.choice(places)], 2)
                sets[kind][last["_id"]] = spoken(before, last["question"])
        if len(gold) == most:
            break
    return sets, gold


def file_name(passage: str) -> str:
    """What the file of a passage is called."""
    return as_original(CorpusLine(passage, "any", ""))[0]


def turn_texts(turns: Sequence[Question]) -> list[str]:
    """What was said in some turns."""
    return [text for turn in turns for text in (turn["question"], turn["answers"][0])]


def spoken(turns: Sequence[Question], last: str) -> Conversation:
    """Questions and answers as messages, and a last question."""
    said = [
        message
        for turn in turns
        for message in (
            {"role": "user", "content": turn["question"]},
            {"role": "assistant", "content": turn["answers"][0]},
        )
    ]
    return (*said, {"role": "user", "content": last})


def with_pronouns(question: str, before: str, chosen: random.Random) -> str:
    """A question in which every name that was said before is a pronoun.

    >>> with_pronouns("When did Mongke Khan die?", "Where did Mongke Khan attack?", random.Random(1)) in (
    ...     f"When did {word} die?" for word in _PRONOUNS)
    True
    """
    said = before.casefold()
    pronoun = chosen.choice(_PRONOUNS)
    return _NAME.sub(
        lambda name: pronoun if name.start() and name.group().casefold() in said else name.group(), question
    )


def report(
    backend: Backend,
    store: Store,
    kind: str,
    asked: Mapping[str, Conversation],
    gold: Mapping[str, Mapping[str, int]],
) -> None:
    """Print what each way of searching finds."""
    alone: np.ndarray | None = None
    print(f"{kind}: {len(asked)} conversations")
    for name, way in WAYS.items():
        run = {key: found(backend, store, way(messages)) for key, messages in asked.items()}
        values = measure(run, {key: gold[key] for key in asked}, ["nDCG@10"]).per_query["nDCG@10"]
        column = np.array([values[key] for key in asked])
        alone = column if alone is None else alone
        low, high = interval(column)
        print(f"  {name:24} {column.mean():.3f} [{low:.3f}, {high:.3f}]  p {p_value(column - alone):.4f}", flush=True)


def found(backend: Backend, store: Store, query: str) -> list[str]:
    """The ten best passages, each once."""
    hits = retrieve(backend, [store], query, SearchOptions(limit=30)).candidates
    return list(dict.fromkeys(hit.filename for hit in hits))[:10]


def interval(values: np.ndarray, rounds: int = 2_000) -> tuple[float, float]:
    """The 95 % interval of a mean, by bootstrap."""
    draws = np.random.default_rng(7).choice(values, (rounds, len(values))).mean(axis=1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def p_value(differences: np.ndarray, rounds: int = 10_000) -> float:
    """How often chance alone makes a mean difference as large, by flipping signs."""
    signs = np.random.default_rng(7).choice((-1, 1), (rounds, len(differences)))
    return float((np.abs((signs * differences).mean(axis=1)) >= abs(differences.mean()) - 1e-12).mean())


if __name__ == "__main__":
    main()
