"""One question from end to end: retrieve, pack, and (where asked) answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from rag.answer import Answer, TextDelta
from rag.backend import Backend
from rag.catalog.records import Store
from rag.context import Context, Message
from rag.models import ModelAlias, Sampling
from rag.retrieve import Retrieval, SearchOptions


@dataclass(frozen=True)
class Ask:
    """A question with everything that may be chosen for one request; None takes the installation's setting."""

    stores: tuple[Store, ...]
    messages: tuple[Message, ...]
    """The conversation, oldest first; the last one is the user's question."""
    model: str | None = None
    """An alias of the registry."""
    prompt: str | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    sampling: Sampling = Sampling()
    window: int | None = None
    """Tokens of prompt and answer together, below the alias's own window."""
    tokenizer: str | None = None
    """Count with another tokenizer than the alias's (for `context` of a model that is not in the registry)."""
    order: str | None = None
    max_passages: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A question that is ready to be answered."""

    context: Context
    retrieval: Retrieval
    alias: ModelAlias
    sampling: Sampling


def prepare(backend: Backend, ask: Ask) -> Prepared:
    """Retrieve and pack; no model is called.

    Raises ChangeRequest when there is no question, or it does not fit the window, and NotThere for an unknown
    model or prompt.
    """
    raise NotImplementedError


def answer(backend: Backend, prepared: Prepared) -> AsyncIterator[TextDelta | Answer]:
    """The answer piece by piece, the whole of it last."""
    raise NotImplementedError
