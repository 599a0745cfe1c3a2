"""Every embedder against the contract; each one's truth is computed by other means than its own."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.words import analyse
from rag.embedders import EMBEDDERS, Embedder, open_embedder, parse_embedder
from rag.embedders.model_files import resolve_model
from tests.contracts.embedder import CHECKS, Subject
from tests.fakes.openai_server import FakeOpenAI, toy_vector
from tests.rag.embedders.conftest import compiling_here
from tests.small_bert import BertByHand, build_bert

PASSAGE, QUERY = "a longer passage: ", "query: "


def opening(stack: ExitStack, **table: Any) -> Callable[..., Embedder]:
    """Opens embedders by these settings, the one without changes only once: a model takes seconds."""

    def open_it(**changes: Any) -> Embedder:
        embedder = open_embedder(parse_embedder("x", {**table, **changes}))
        stack.callback(getattr(embedder, "close", lambda: None))
        return embedder

    once = cache(open_it)
    return lambda **changes: open_it(**changes) if changes else once()


def bag_of_words(text: str, model: str = "toy-256", dimension: int = 256) -> np.ndarray:
    """As `rag.embedders.toy` describes it: each word adds eight signed entries, by the logarithm of its count."""
    words = analyse(text) or [""]
    row = np.zeros(dimension)
    for word in set(words):
        digest = hashlib.blake2b(f"{model}\0{word}".encode(errors="replace"), digest_size=32).digest()
        for (number,) in struct.iter_unpack("<I", digest):
            row[(number >> 1) % dimension] += (1 if number % 2 else -1) * (1 + math.log(words.count(word)))
    return row


def counted_bytes(text: str) -> np.ndarray:
    """What the server sends."""
    return np.array(toy_vector(text, 8))


class Graph:
    """What a compiled graph makes of one text, read by the library's own tokenizer."""

    def __init__(self, model: Path, folder: Path) -> None:
        import onnxruntime
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._session = onnxruntime.InferenceSession(model, disabled_optimizers=["SkipLayerNormFusion"])

    def __call__(self, text: str) -> np.ndarray:
        """The vector of a text."""
        ids = self._tokenizer(text, return_tensors="np", truncation=False, verbose=False)["input_ids"]
        row: np.ndarray = self._session.run(None, {"input_ids": ids.astype(np.int64)})[0][0]
        return row


def _manifest(folder: Path) -> str:
    file = folder / "manifest.json"
    return file.read_text() if file.is_file() else ""


@contextmanager
def one_thread() -> Iterator[None]:
    """Of torch: over texts so short more of them only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Subjects:
    """What the contract is run on, each made when it is asked for, once."""

    def __init__(self, folder: Path, encoders: Path, server: FakeOpenAI, stack: ExitStack) -> None:
        self._folder = folder
        self._encoders = encoders
        self._server = server
        self._opening = partial(opening, stack)
        self.get = cache(lambda name: getattr(self, f"_{name.replace('-', '_')}")())

    def _sentence_transformers(self) -> Subject:
        others = ({"token_limit": 100}, {"query_prefix": "q: "}, {"document_prefix": "d: "}, {"pooling": "cls"})
        opened = self._opening(provider="sentence-transformers", model="all-MiniLM-L6-v2", build="torch")
        return Subject(opened, BertByHand(resolve_model("all-MiniLM-L6-v2").path, "mean"), ("", ""), others, 2)

    def _small(self) -> Subject:
        return self._bert("cls", build="torch")

    def _small_otherwise(self) -> Subject:
        return self._bert("mean", build="torch", pooling="mean", batch_size=3)

    def _small_compiled(self) -> Subject:
        return self._bert("mean", build="onnx-fp32", pooling="mean", threads=2)

    def _small_rounded(self) -> Subject:
        """Its truth is the rounded graph, one text at a time; how near the original that is, is tested apart."""
        subject = self._bert("cls", spread=0.2, build="onnx-int8")
        embedder = subject.open()
        assert embedder.build == "onnx-int8"
        (folder,) = (path for path in self._encoders.iterdir() if '"onnx-int8"' in _manifest(path))
        return replace(subject, truth=Graph(folder / "model.onnx", self._folder / "cls-0.2" / "tiny-bert"))

    def _bert(self, pooled: str, *, build: str, spread: float = 0.5, **settings: Any) -> Subject:
        prompts = {"query": QUERY, "document": PASSAGE}
        folder = self._folder / f"{pooled}-{spread}"
        path, _ = build_bert(folder, prompts=prompts, spread=spread)
        other, _ = build_bert(folder / "other", prompts=prompts, spread=spread, seed=8)
        others = (
            *({"model": str(other)}, {"query_prefix": ""}, {"document_prefix": "passage: "}),
            *({"token_limit": 40}, {"pooling": "lasttoken"}),
        )
        opened = self._opening(provider="sentence-transformers", model=str(path), build=build, **settings)
        return Subject(opened, BertByHand(path, pooled), (PASSAGE, QUERY), others, 2)

    def _openai(self) -> Subject:
        others = (
            *({"model": "embed-2"}, {"dimension": 16}, {"query_prefix": ""}, {"document_prefix": "passage: "}),
            *({"token_limit": 300},),
        )
        opened = self._opening(
            provider="openai",
            base_url=self._server.base_url,
            model="embed-1",
            dimension=8,
            document_prefix=PASSAGE,
            query_prefix=QUERY,
            tokenizer="bytes",
            token_limit=400,
            batch_size=7,
            retries=0,
        )
        return Subject(opened, counted_bytes, (PASSAGE, QUERY), others)

    def _toy(self) -> Subject:
        others = ({"model": "toy-384"}, {"model": "toy-384-b"})
        return Subject(self._opening(provider="toy", model="toy-256"), bag_of_words, ("", ""), others)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subjects]:
    folder = tmp_path_factory.mktemp("models")
    with one_thread(), pytest.MonkeyPatch.context() as patch, FakeOpenAI() as server, ExitStack() as stack:
        yield Subjects(folder, compiling_here(patch, folder / "cache"), server, stack)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*EMBEDDERS, "small", "small-otherwise", "small-compiled", "small-rounded"])
def test_contract(name: str, check: Callable[[Subject], None], subjects: Subjects) -> None:
    check(subjects.get(name))
