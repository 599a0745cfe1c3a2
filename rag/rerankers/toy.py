"""A deterministic toy for tests and first steps: words that question and passage share, no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexes.errors import Unsupported
from indexes.words import analyse
from rag.rerankers import RerankerSpec

MODEL = "overlap"


class ToyReranker:
    """The share of the passage's different words that are the question's, under the contract of `Reranker`."""

    def __init__(self, spec: RerankerSpec) -> None:
        if spec.model != MODEL:
            raise Unsupported(
                f"There is no toy reranker {spec.model!r}. Known: {MODEL}.", code="unknown_name", param="model"
            )

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """In [0, 1]; 0 where a passage has no words."""
        asked = set(analyse(question))
        words = (set(analyse(passage)) for passage in passages)
        return np.array([len(asked & own) / max(len(own), 1) for own in words], dtype=np.float32)
