"""How good the extractive answers are, on real support questions: token-F1 and the answer's sentences found again.

    python -m tests.benchmarks.bench_extractive [dev|all]

Beside each figure stand the first sentence and the first three of the first passage.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from indexes.words import analyse, content_words
from rag.context import Passage
from rag.models.extractive import quotes
from rag.segments import segments
from tests.data import data_root

FOLDER = "emanual_support"


def passage(number: int, section: dict[str, str], relevance: float) -> Passage:
    text = section["text"]
    return Passage(
        number=number, document_id=number, version_id=1, store_id="s", file_id="f", filename="f",
        title=section["title"], heading_path=(), page=None, start=0, end=len(text), text=text,
        chunk_ids=(number,), attributes={}, fused=relevance, relevance=relevance, tokens=0,
    )  # fmt: skip


def token_f1(answer: str, truth: str) -> float:
    """The harmonic mean of precision and recall over words, as SQuAD counts it."""
    said, wanted = Counter(analyse(answer)), Counter(analyse(truth))
    common = sum((said & wanted).values())
    return 2 * common / (sum(said.values()) + sum(wanted.values())) if common else 0.0


def sentence_overlap(answer: str, truth: str) -> float:
    """The share of the true answer's sentences of which at least 70 % of the content words were said."""
    said = set(analyse(answer))
    sentences = [set(content_words(truth[part.start : part.end])) for part in segments(truth)]
    return mean(len(words & said) >= 0.7 * len(words) for words in sentences if words)


def lead(count: int) -> Callable[[str, Sequence[Passage]], str]:
    def say(question: str, passages: Sequence[Passage]) -> str:
        text = passages[0].text
        return " ".join(text[part.start : part.end] for part in segments(text)[:count])

    return say


def extractive(question: str, passages: Sequence[Passage]) -> str:
    return " ".join(quote.text for quote in quotes(question, passages))


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (data_root() / FOLDER / name).read_text().splitlines()]


def main(part: str = "all") -> None:
    """Print one line per way of answering and kind of material."""
    corpus = {row["_id"]: row for row in read("corpus.jsonl")}
    questions = [
        row for i, row in enumerate(read("qa.jsonl")) if row["gold"] in corpus and (part == "all" or i % 2 == 0)
    ]
    print(f"{len(questions)} questions of {FOLDER} ({part})")
    chance = random.Random(7)
    for material in ("gold", "gold among 4 random"):
        packs = []
        for row in questions:
            others = chance.sample([key for key in corpus if key != row["gold"]], 4) if material != "gold" else []
            order = [row["gold"], *others]
            if others:
                chance.shuffle(order)
            packs.append([passage(i + 1, corpus[key], 0.5) for i, key in enumerate(order)])
        for name, say in (("lead-1", lead(1)), ("lead-3", lead(3)), ("extractive", extractive)):
            answers = [say(row["question"], pack) for row, pack in zip(questions, packs, strict=True)]
            f1 = mean(token_f1(a, row["answer"]) for a, row in zip(answers, questions, strict=True))
            found = mean(sentence_overlap(a, row["answer"]) for a, row in zip(answers, questions, strict=True))
            words = mean(len(re.findall(r"\w+", answer)) for answer in answers)
            print(f"{material:20} {name:12} F1 {f1:.3f}  sentences {found:.3f}  words {words:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
