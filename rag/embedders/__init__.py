"""Embedders: text in, unit vectors out.

To add one: a file in this folder and a line in `EMBEDDERS`; or, from another package, an entry point
in the group `rag.embedders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.spaces import Space
from rag.tokenizers import Tokenizer


class Embedder(Protocol):
    """Turns texts into vectors of one space. Safe to call from several threads."""

    space: Space
    build: str
    """How the vectors are computed (`torch-fp32`, `remote`, `toy`): an encoder build of the space."""
    tokenizer: Tokenizer
    """The model's own tokenizer."""
    limit: int
    """Tokens of text that fit beside the special tokens and the longer of the two prefixes."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row per text, in order: shape (len(texts), dimension), unit length.

        Raises ChangeRequest (`text_too_long`) for a text over `limit` tokens: nothing is ever cut off.
        """
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for questions, which some models embed with another prefix."""
        ...
