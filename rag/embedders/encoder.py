"""An encoder build: one way to compute the vectors of a model's space. The space is the same, whoever computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True)
class ModelFacts:
    """What a model says of itself."""

    dimension: int
    pooling: str
    """The pooling, then whatever modules change its vectors: `mean`, `cls+Dense`."""
    query_prefix: str
    document_prefix: str
    token_limit: int
    """Tokens that it reads, special tokens included, unless the settings say fewer."""
    positions: int | None
    """Tokens that it could read at most; None where nothing limits them."""


class Encoder(Protocol):
    """Turns token ids into vectors. Safe to call from several threads."""

    build: str
    """`torch-fp32`, `onnx-fp32`, `onnx-int8`."""
    facts: ModelFacts
    tokenizer: tokenizers.Tokenizer
    """The model's own, which neither cuts nor pads."""

    def encode(self, ids: Sequence[Sequence[int]], prompt_tokens: int) -> NDArray[np.float32]:
        """One row of unit length per text, in order: shape (len(ids), dimension).

        `ids` hold the special tokens; their first `prompt_tokens` beside those belong to a prefix.
        """
        ...

    def close(self) -> None:
        """Let go of threads. Idempotent."""
        ...


def unlimited(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that neither cuts nor pads: transformers changes the original's settings as it goes, unsafe in threads."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
