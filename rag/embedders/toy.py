"""Deterministic toy embedders for tests and first steps: a hashed bag of words, no model.

Each word of a text (`indexes.words.analyse`) adds a fixed vector of eight signed entries, chosen by a hash of the
model's name and the word (feature hashing: Weinberger et al., 2009). Texts that share words are near each other;
two models of one width have unrelated spaces.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, Unsupported
from indexes.words import WORDS_VERSION, analyse
from rag.embedders import EmbedderSpec, too_long
from rag.spaces import Space
from rag.tokenizers import open_tokenizer

MODELS = {"toy-256": 256, "toy-384": 384, "toy-384-b": 384}
"""Name and dimension. The name seeds the hash."""

LIMIT = 512
ENTRIES = 8
"""Entries that one word sets: with one alone, two words in one place would be the same word."""


class ToyEmbedder:
    """A hashed bag of words under the contract of `Embedder`. A text without words has a direction of its own."""

    build = "toy"
    agreement = None
    limit = LIMIT

    def __init__(self, spec: EmbedderSpec) -> None:
        if spec.model not in MODELS:
            raise Unsupported(
                f"There is no toy embedder {spec.model!r}. Known: {', '.join(MODELS)}.",
                code="unknown_name",
                param="model",
            )
        dimension = MODELS[spec.model]
        if spec.dimension not in (None, dimension):
            raise ChangeRequest(
                f"The toy embedder {spec.model!r} makes vectors of {dimension} dimensions, not {spec.dimension}.",
                code="wrong_dimension",
                param="dimension",
            )
        self.tokenizer = open_tokenizer("o200k_base")
        self.space = Space(
            provider="toy",
            model=spec.model,
            revision=f"words-{WORDS_VERSION}",
            dimension=dimension,
            pooling="sum",
            normalised=True,
            document_prefix="",
            query_prefix="",
            token_limit=LIMIT,
        )

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), unit length. Raises ChangeRequest (`text_too_long`)."""
        vectors = np.zeros((len(texts), self.space.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            self._refuse_long(text)
            _add_words(row, text, self.space.model)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same: toys have no prefixes."""
        return self.embed_documents(texts)

    def _refuse_long(self, text: str) -> None:
        # A byte is at least a token of its own, so a short text needs no count.
        if len(text) * 4 <= LIMIT or (tokens := self.tokenizer.count(text)) <= LIMIT:
            return
        raise too_long(self.space.model, tokens, LIMIT)


def _add_words(row: NDArray[np.float32], text: str, model: str) -> None:
    counts = Counter(analyse(text)) or Counter({"": 1})
    places = [_places(model, word, len(row)) for word in counts]
    weights = np.repeat([1 + math.log(n) for n in counts.values()], ENTRIES)
    where = np.concatenate([place for place, _ in places])
    signs = np.concatenate([sign for _, sign in places])
    np.add.at(row, where, (signs * weights).astype(np.float32))
    if not row.any():
        # Words that cancel out exactly: without this the row would have no direction.
        row[places[0][0][0]] = 1.0


@lru_cache(maxsize=20_000)
def _places(model: str, word: str, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where a word adds, and with which sign: two arrays of `ENTRIES`."""
    digest = hashlib.blake2b(f"{model}\0{word}".encode(errors="replace"), digest_size=4 * ENTRIES).digest()
    numbers = np.frombuffer(digest, dtype="<u4").astype(np.int64)
    return (numbers >> 1) % dimension, np.where(numbers & 1, np.float32(1), np.float32(-1))
