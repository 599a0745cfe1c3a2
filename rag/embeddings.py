"""Vectors for whoever asks for them by an embedder's name, apart from any store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, NotThere, Unsupported
from rag.embedders import Embedder, EmbedderRegistry
from rag.tokenizers import OpenAITokenizer


def open_named(registry: EmbedderRegistry, name: str) -> Embedder:
    """The embedder of this alias. Raises NotThere (`model_not_found`)."""
    try:
        registry.spec(name)
    except Unsupported as error:
        raise NotThere(error.message, code="model_not_found", param="model") from error
    return registry.open(name)


def read_input(embedder: Embedder, given: str | Sequence[Any]) -> list[str]:
    """The texts that a request names: one, several, the token ids of one, or those of several.

    Raises ChangeRequest for ids where the embedder does not read by an encoding of OpenAI's: those of one vocabulary
    are other words in another, and nobody would notice.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], str):
        return list(given)
    tokenizer = embedder.tokenizer
    if not isinstance(tokenizer, OpenAITokenizer):
        raise ChangeRequest(
            f"The embedder reads by {tokenizer.name!r}, not by an encoding of OpenAI's. Send texts instead of token "
            "ids (LangChain: check_embedding_ctx_length=False).",
            code="unsupported_input",
            param="input",
        )
    several: Sequence[Any] = [given] if isinstance(given[0], int) else given
    return [tokenizer.decode(ids) for ids in several]


def check_dimensions(registry: EmbedderRegistry, name: str, embedder: Embedder, dimensions: int | None) -> int:
    """How many entries of a vector to send. Raises ChangeRequest for a number that this embedder does not have."""
    whole = embedder.space.dimension
    if dimensions is None or dimensions == whole or (dimensions < whole and registry.spec(name).shortens):
        return dimensions or whole
    raise ChangeRequest(
        f"The embedder {name!r} makes vectors of {whole} dimensions"
        + (" or fewer." if registry.spec(name).shortens else ", which cannot be shortened."),
        code="unsupported_dimensions",
        param="dimensions",
    )


def shortened(rows: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The first entries of each row, at unit length; whole rows as they are."""
    if dimensions == rows.shape[1]:
        return rows
    cut = rows[:, :dimensions]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(norms, 1e-12), dtype=np.float32)
