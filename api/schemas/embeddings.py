"""The shapes of embeddings."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from api.schemas.common import Identifier, OrNull, RequestModel, ResponseModel

MOST_INPUTS = 2_048
TokenIds = Annotated[list[int], Field(min_length=1, max_length=MOST_INPUTS)]


class EmbeddingRequest(RequestModel):
    """OpenAI's request; `model` is an embedder of the settings. Beyond it: `input_type`, for models that embed
    questions and documents apart.

    Token ids are those of an encoding of OpenAI's, and taken where the embedder reads by one.
    """

    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | TokenIds
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    model: Identifier
    encoding_format: OrNull[Literal["float", "base64"]] = None
    dimensions: OrNull[Annotated[int, Field(ge=1)]] = None
    user: OrNull[str] = None
    input_type: OrNull[Literal["document", "query"]] = None


class EmbeddingObject(ResponseModel):
    """A vector of unit length; with `encoding_format` base64 its little-endian float32 as a string, as OpenAI's own
    description does not say."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float]


class EmbeddingUsage(ResponseModel):
    """Tokens of the texts in the embedder's own count, special tokens and prefixes left out."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(ResponseModel):
    """The vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


def in_base64(row: NDArray[np.float32]) -> str:
    """A vector as little-endian float32 in base64."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
