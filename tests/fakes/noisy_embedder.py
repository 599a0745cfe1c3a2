"""A toy whose vectors are mostly noise: deterministic, honest about its space, and bad at its task."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rag.embedders import EmbedderSpec
from rag.embedders.toy import ToyEmbedder

NOISE = 1.5
"""The length of what is added to a vector of length 1."""


class NoisyEmbedder(ToyEmbedder):
    def __init__(self, spec: EmbedderSpec) -> None:
        super().__init__(spec)
        self.space = replace(self.space, provider="noisy")

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = super().embed_documents(texts)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
            noise = np.random.default_rng(seed).normal(size=len(row))
            row += (NOISE * noise / np.linalg.norm(noise)).astype(np.float32)
            row /= np.linalg.norm(row)
        return rows
