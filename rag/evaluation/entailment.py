"""Does a text support a statement? One question, three ways to answer it: by words, by a model of natural-language
inference, by a language model that is asked.

To add a way, write a class that is called with pairs and closed, and a line in `METHODS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from indexes.errors import Unsupported
from rag.evaluation.groundedness import check
from rag.settings import Settings

Pair = tuple[str, str]
"""A text and the statement that it supports, or not."""

METHODS = {
    "words": "rag.evaluation.entailment:ByWords",
    "nli": "rag.evaluation.nli:CrossEncoderNli",
    "judge": "rag.evaluation.judge:Judge",
}
"""Each is constructed with the installation's settings."""


class Entailment(Protocol):
    """Tells of pairs whether the text supports the statement."""

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """One verdict for each pair, in order. Raises rather than guess."""
        ...

    def close(self) -> None:
        """Release what is held, once."""
        ...


class ByWords:
    """As `rag.evaluation.groundedness` has it: every sentence of the statement stands on the text. No model."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is chosen by the settings."""

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Entailment`."""
        return [check(statement, {1: text}, []).unsupported == 0 for text, statement in pairs]

    def close(self) -> None:
        """Nothing is held."""


def open_entailment(settings: Settings, method: str | None = None) -> Entailment:
    """The way of this name, else the one that the settings choose (`groundedness.method`).

    Raises Unsupported for an unknown name, and what opening a model raises.
    """
    name = method or settings.groundedness.method
    if name not in METHODS:
        raise Unsupported(
            f"There is no method {name!r}. Known: {', '.join(METHODS)}.", code="unknown_method", param="method"
        )
    module, _, attribute = METHODS[name].partition(":")
    return cast("Entailment", getattr(importlib.import_module(module), attribute)(settings))
