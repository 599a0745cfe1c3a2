"""Rerankers: a question and some passages in, how well each passage answers it out.

To add one: a file in this folder and a line in `RERANKERS`; or, from another package, an entry point in the group
`rag.rerankers`. What stands there is called with a `RerankerSpec` and returns a `Reranker`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from annotated_types import Interval, MinLen
from numpy.typing import NDArray

from indexes.errors import Unsupported
from indexes.registry import resolve
from rag.aliases import read_table


class Reranker(Protocol):
    """Reads a question and a passage together. Safe to call from several threads."""

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """One finite number per passage, in order: shape (len(passages),). Larger answers better.

        A number depends on its passage and the question alone, not on what else is scored with them; it has no range
        and no zero that means anything: it orders the passages of one question, and is no threshold. What of a passage
        does not fit the model together with the question is not looked at.
        """
        ...


RERANKERS = {
    "cross-encoder": "rag.rerankers.cross_encoder:CrossEncoderReranker",
    "toy": "rag.rerankers.toy:ToyReranker",
}
ENTRY_POINTS = "rag.rerankers"
NONE = "none"
"""Where a reranker is named: leave the order as it is."""

_Name = Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class RerankerSpec:
    """One alias of the settings, `[rerankers.NAME]`. None leaves a field to the model's own configuration."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    name: _Name
    provider: _Name
    model: _Name
    token_limit: Annotated[int, Interval(ge=8, le=10_000_000)] | None = None
    """Tokens of question and passage together, special tokens included."""
    batch_size: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    """The most passages of one pass."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; unset: the best there is."""


_NOT_FOR = {"toy": {"token_limit", "batch_size", "device"}}


class RerankerRegistry:
    """Aliases and their rerankers, each opened once, on first use. Safe to call from several threads."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """`tables` are those of the settings, `[rerankers.NAME]`. Raises ChangeRequest (`invalid_settings`)."""
        self._specs = {
            name: read_table("rerankers", RerankerSpec, name, table, _NOT_FOR) for name, table in tables.items()
        }
        self._opened: dict[str, Reranker] = {}
        self._locks = {name: threading.Lock() for name in self._specs}

    def specs(self) -> list[RerankerSpec]:
        """Every alias, in order of the alphabet."""
        return [self._specs[name] for name in sorted(self._specs)]

    def spec(self, name: str) -> RerankerSpec:
        """What is behind an alias. Raises Unsupported (`unknown_name`), naming the known ones."""
        if name not in self._specs:
            raise Unsupported(
                f"There is no reranker named {name!r}. Known: {', '.join([NONE, *sorted(self._specs)])}. "
                f"A table [rerankers.{name}] in the settings would add it.",
                code="unknown_name",
                param="reranker",
            )
        return self._specs[name]

    def open(self, name: str) -> Reranker:
        """The reranker behind an alias, the same object every time; the first time may take seconds.

        Raises Unsupported for an unknown name or provider or a missing package, and what the provider's file says.
        """
        spec = self.spec(name)
        with self._locks[name]:
            if name not in self._opened:
                self._opened[name] = open_reranker(spec)
            return self._opened[name]


def open_reranker(spec: RerankerSpec) -> Reranker:
    """The reranker of this spec. Raises as `RerankerRegistry.open` does."""
    reranker: Reranker = resolve("reranker provider", RERANKERS, ENTRY_POINTS, spec.provider)(spec)
    return reranker
