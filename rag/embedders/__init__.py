"""Embedders: text in, unit vectors out.

To add one: a file in this folder and a line in `EMBEDDERS`; or, from another package, an entry point
in the group `rag.embedders`. What stands there is called with an `EmbedderSpec` and returns an `Embedder`.

    registry = EmbedderRegistry.from_tables({"hosted": {"provider": "openai", "model": "text-embedding-3-small"}})
    registry.open("hosted").embed_documents(["a text"])
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from annotated_types import Gt, Interval, MinLen
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, Unsupported
from indexes.registry import resolve
from rag.aliases import invalid, read_table
from rag.spaces import Space
from rag.tokenizers import Tokenizer

if TYPE_CHECKING:
    from rag.embedders.agreement import Agreement


class Embedder(Protocol):
    """Turns texts into vectors of one space. Safe to call from several threads."""

    space: Space
    build: str
    """How the vectors are computed (`torch-fp32`, `onnx-int8`, `remote`, `toy`): an encoder build of the space."""
    agreement: Agreement | None
    """How far this build was found to agree with the original one of its space; None for the original."""
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


EMBEDDERS = {
    "sentence-transformers": "rag.embedders.sentence_transformers:SentenceTransformersEmbedder",
    "openai": "rag.embedders.openai:OpenAIEmbedder",
    "toy": "rag.embedders.toy:ToyEmbedder",
}

COMPUTED_HERE = ("sentence-transformers", "toy")
"""Providers that compute; of others it is taken that they wait for somebody else."""

ENTRY_POINTS = "rag.embedders"

ORIGINAL = "torch-fp32"
"""The build that others of a model are compared with."""

_Count = Annotated[int, Interval(ge=1, le=10_000_000)]
_Name = Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class EmbedderSpec:
    """One alias of the settings, `[embedders.NAME]`: which embedder, and how to reach it.

    None leaves a field to the model's own configuration or to the provider's default.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    name: _Name
    provider: _Name
    model: _Name
    base_url: str | None = None
    api_key_env: str | None = None
    """The environment variable that holds the key; keys never stand in the file."""
    dimension: _Count | None = None
    """The width that the vectors must have; another one is an error, never cut to size."""
    shortens: bool = False
    """The model was trained so that the first entries of a vector, brought to unit length, are a shorter vector of the
    same text (Matryoshka): who asks for embeddings may ask for fewer dimensions. Stores keep the whole."""
    query_prefix: str | None = None
    document_prefix: str | None = None
    pooling: str | None = None
    """`mean`, `cls`, `max`, `lasttoken` and so on, for a model whose folder does not say."""
    batch_size: _Count | None = None
    """The most texts of one batch or request. Compiled models take one text at a time."""
    timeout: Annotated[float, Gt(0)] = 60.0
    """Seconds without a byte from the provider."""
    retries: Annotated[int, Interval(ge=0, le=20)] = 4
    tokenizer: _Name | None = None
    """A name of `rag.tokenizers`, for a model that does not bring its own."""
    token_limit: _Count | None = None
    """Tokens that the model reads, special tokens included."""
    build: Literal["auto", "onnx-int8", "onnx-fp32", "torch"] = "auto"
    """How a model is computed here. `auto`: compiled with rounded numbers where the processor is fast at those, unless
    there is an accelerator. What turns out to be too far from the original is not used."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; unset: the best there is. On all but the first, torch computes."""
    threads: Annotated[int, Interval(ge=1, le=1024)] | None = None
    """Of a compiled model: texts computed at once. Of torch: threads of one computation, a setting of the whole
    process. Unset: as many as cores."""


_REMOTE = {"base_url", "api_key_env", "timeout", "retries", "tokenizer"}
_LOCAL = {"build", "device", "threads", "pooling"}
_NOT_FOR = {
    "sentence-transformers": _REMOTE,
    "openai": _LOCAL,
    "toy": _REMOTE | _LOCAL | {"query_prefix", "document_prefix", "batch_size", "token_limit"},
}
"""Fields that a provider has no use for: to accept one would promise what is not done."""

BUILT_IN: Mapping[str, EmbedderSpec] = {
    "default": EmbedderSpec("default", "sentence-transformers", "sentence-transformers/all-MiniLM-L6-v2"),
    **{name: EmbedderSpec(name, "toy", name) for name in ("toy-256", "toy-384", "toy-384-b")},
}
"""Aliases that need no settings. `[embedders.default]` in the settings takes the place of the first."""


def parse_embedder(name: str, table: Mapping[str, Any]) -> EmbedderSpec:
    """The spec in the table `[embedders.name]`.

    Raises ChangeRequest (`invalid_settings`) that names every field at fault.
    """
    spec = read_table("embedders", EmbedderSpec, name, table, _NOT_FOR)
    if spec.build.startswith("onnx") and spec.device not in (None, "cpu"):
        raise invalid("embedders", name, f"{spec.build} computes on the processor, not on {spec.device!r}")
    return spec


def too_long(model: str, tokens: int, limit: int) -> ChangeRequest:
    """The error for a text over an embedder's limit, both counted in its tokens."""
    return ChangeRequest(
        f"A text of {tokens} tokens is over the limit of the embedder {model!r}, which reads {limit}. "
        f"Shorten or split the text: nothing is cut off silently.",
        code="text_too_long",
    )


def require_compared(build: str, embedder: Embedder) -> None:
    """Raise ChangeRequest (`build_mismatch`) unless the embedder's vectors may stand beside those of another build.

    They may where the embedder is the original or was found to agree with it: whatever made the others was, too.
    """
    if embedder.build in (build, ORIGINAL) or embedder.agreement is not None:
        return
    raise ChangeRequest(
        f"Vectors of the model {embedder.space.model!r} were made as {build!r}, and this embedder makes them as "
        f"{embedder.build!r}, which was not compared with the original. Use the one that made them.",
        code="build_mismatch",
        param="embedder",
    )


def open_embedder(spec: EmbedderSpec) -> Embedder:
    """The embedder of this spec, ready to embed; may take seconds and load a model.

    Raises Unsupported for an unknown provider or a missing package, and what the provider's own file says.
    """
    embedder: Embedder = resolve("embedder provider", EMBEDDERS, ENTRY_POINTS, spec.provider)(spec)
    return embedder


class EmbedderRegistry:
    """Aliases and their embedders, each opened once, on first use. Safe to call from several threads."""

    def __init__(self, specs: Mapping[str, EmbedderSpec]) -> None:
        self._specs = {**BUILT_IN, **specs}
        self._opened: dict[str, Embedder] = {}
        self._locks = {name: threading.Lock() for name in self._specs}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Mapping[str, Any]]) -> EmbedderRegistry:
        """A registry of the tables `[embedders.NAME]` beside the built-in aliases. Raises as `parse_embedder` does."""
        return cls({name: parse_embedder(name, table) for name, table in tables.items()})

    def names(self) -> list[str]:
        """All aliases, in order of the alphabet."""
        return sorted(self._specs)

    def spec(self, name: str) -> EmbedderSpec:
        """The spec behind an alias. Raises Unsupported (`unknown_name`), naming the known ones."""
        if name not in self._specs:
            raise Unsupported(
                f"There is no embedder named {name!r}. Known: {', '.join(self.names())}. "
                f"Add a table [embedders.{name}] to the settings, or use one of these.",
                code="unknown_name",
                param="embedder",
            )
        return self._specs[name]

    def computes(self, name: str) -> bool:
        """Whether the embedder behind an alias keeps this machine's processor busy, rather than another's."""
        return name in self._specs and self._specs[name].provider in COMPUTED_HERE

    def open(self, name: str) -> Embedder:
        """The embedder behind an alias: the same object every time. Raises as `spec` and `open_embedder` do."""
        spec = self.spec(name)
        with self._locks[name]:
            if name not in self._opened:
                self._opened[name] = open_embedder(spec)
            return self._opened[name]

    def close(self) -> None:
        """Close what the opened embedders hold (connections). Idempotent; a later `open` opens anew."""
        for name, lock in self._locks.items():
            with lock:
                embedder = self._opened.pop(name, None)
            close = getattr(embedder, "close", None)
            if close is not None:
                close()
