"""How to fill a context window, and what packing may ask for meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from indexes.errors import ChangeRequest

Order = Literal["rank", "edges", "reverse", "document"]

USEFUL = 16
"""Tokens of text below which a part of a candidate is not worth a place."""
OVERSIZED = 0.75
"""Share of the room that one candidate gets at most while others wait."""
SLACK = 0.03
"""Share of the room that a cut at a sentence may leave unused before it is made at a word instead."""
GAP = 256
"""Characters of white space between two chunks that still belong together."""
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class PackSettings:
    """How to fill the window. Raises ChangeRequest for a value out of its range."""

    order: Order = "rank"
    """`rank` best first, `reverse` best last, `edges` best at both ends, `document` as they stand in the documents."""
    max_passages: int | None = None
    document_cap: float = 0.5
    """Share of the room that a document's second and later candidates may fill it up to while candidates of other
    documents wait, in (0, 1]."""
    widen: int = 1
    """Neighbours on each side, within the section, that room left over by the candidates may go to; 0 for none."""
    min_relevance: float = 0.0
    """Candidates below this are left out; when none reaches it, the context is not grounded."""
    context_tokens: int | None = None
    """The most tokens that all passages together may take."""
    reserve: int | None = None
    """Tokens kept for the answer; None takes what the request or the model's alias says."""
    history_share: float = 0.25
    """Share of what the question leaves that earlier turns may take from the passages, in [0, 1]. What the passages
    leave is theirs besides."""

    def __post_init__(self) -> None:
        _require(self.order in get_args(Order), "order", f"one of {', '.join(get_args(Order))}", self.order)
        _require(self.max_passages is None or self.max_passages >= 1, "max_passages", "at least 1", self.max_passages)
        _require(0 < self.document_cap <= 1, "document_cap", "above 0 and at most 1", self.document_cap)
        _require(self.widen >= 0, "widen", "0 or more", self.widen)
        _require(0 <= self.min_relevance <= 1, "min_relevance", "between 0 and 1", self.min_relevance)
        _require(
            self.context_tokens is None or self.context_tokens >= 0, "context_tokens", "0 or more", self.context_tokens
        )
        _require(self.reserve is None or self.reserve >= 0, "reserve", "0 or more", self.reserve)
        _require(0 <= self.history_share <= 1, "history_share", "between 0 and 1", self.history_share)


def _require(holds: bool, name: str, range_: str, value: object) -> None:
    if not holds:
        raise ChangeRequest(f"{name} must be {range_}, not {value!r}.", code="invalid_settings", param=name)


class Neighbour(Protocol):
    """A chunk beside a candidate; `text == document_text[start:end]`."""

    @property
    def chunk_id(self) -> int: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def heading_path(self) -> tuple[str, ...]: ...
    @property
    def page(self) -> int | None: ...


Neighbours = Callable[[int, int, int], Sequence[Neighbour]]
"""`neighbours(version_id, first, last)`: the chunks of a version with these ordinals, both included."""

SliceText = Callable[[int, int, int], str]
"""`slice_text(version_id, start, end)`: that stretch of the version's text."""
