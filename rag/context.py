"""The nouns between retrieval and the prompt: candidate, passage, ledger, context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = str | float | bool
Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""


@dataclass(frozen=True)
class Candidate:
    """A chunk that retrieval proposes, with where it stands and how it scored.

    `text == document_text[start:end]`, in characters of the document version's text.
    """

    chunk_id: int
    document_id: int
    version_id: int
    store_id: str
    file_id: str
    filename: str
    title: str
    ordinal: int
    """Position of the chunk in its document version, from 0."""
    start: int
    end: int
    text: str
    heading_path: tuple[str, ...]
    page: int | None
    attributes: Mapping[str, Scalar]
    fused: float
    """The order of the hits before they are reranked, larger is better; comparable only within one query."""
    relevance: float
    """Absolute, in [0, 1]: does this text have to do with the question at all?"""
    dense: float | None = None
    """Cosine in [-1, 1], None when the query had no dense leg."""
    keyword: float | None = None
    """BM25, 0 or more, None when the query had no keyword leg."""
    reranked: float | None = None
    """What the reranker gave it (see `rag.rerankers`): larger answers better, comparable only within one query. None
    when it was not read."""

    @property
    def standing(self) -> tuple[bool, float]:
        """What hits are sorted by, the best one first: those that were reranked, then the others as they were fused."""
        return (True, -self.fused) if self.reranked is None else (False, -self.reranked)


@dataclass(frozen=True)
class Passage:
    """One stretch of one document version as it stands in the prompt.

    `text == document_text[start:end]`; `number` is the n of its `[n]` marker, from 1, in prompt order.
    """

    number: int
    document_id: int
    version_id: int
    store_id: str
    file_id: str
    filename: str
    title: str
    heading_path: tuple[str, ...]
    page: int | None
    start: int
    end: int
    text: str
    chunk_ids: tuple[int, ...]
    attributes: Mapping[str, Scalar]
    fused: float
    relevance: float
    tokens: int
    """What this passage added to the rendered prompt, in the model's tokens."""


Fate = Literal["kept", "merged", "trimmed", "dropped"]


@dataclass(frozen=True)
class LedgerEntry:
    """What became of one candidate, and why."""

    chunk_id: int
    file_id: str
    start: int
    end: int
    fate: Fate
    reason: str
    """A stable word: `fits`, `adjacent`, `overlaps`, `duplicate`, `document_cap`, `max_passages`, `budget`,
    `below_threshold`, `oversized`."""
    passage: int | None
    """The number of the passage that holds it; None when dropped."""
    fused: float
    relevance: float


@dataclass(frozen=True)
class Ledger:
    """Every candidate with its fate, and where the window went, in the model's own tokens.

    `base_tokens + history_tokens + sum(p.tokens for p in passages) == prompt_tokens`, and
    `prompt_tokens + reserved_tokens <= window`.
    """

    entries: tuple[LedgerEntry, ...]
    window: int
    reserved_tokens: int
    """Kept free for the answer."""
    base_tokens: int
    """The rendered prompt with the question and the caller's own system messages, without turns and passages."""
    history_tokens: int
    """What the kept turns added."""
    prompt_tokens: int
    """The finished prompt, counted whole."""
    turns_kept: int
    """Earlier messages of the user and the assistant; system messages always stay."""
    turns_dropped: int
    tokenizer: str
    exact: bool
    """False when the tokenizer is an upper bound rather than the model's own."""


@dataclass(frozen=True)
class Context:
    """The packed passages, the prompt they were rendered into, and the ledger."""

    passages: tuple[Passage, ...]
    messages: tuple[Message, ...]
    ledger: Ledger
    prompt_id: str
    prompt_hash: str
    question: str
    grounded: bool
    """False when no candidate reached the threshold of relevance: there is nothing to stand on."""
    metadata: Mapping[str, object] = field(default_factory=dict)
