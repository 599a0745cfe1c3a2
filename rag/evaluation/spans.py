"""How well stretches of text meet the stretches that were wanted, by characters: for measuring a way of splitting.

overlap({"a": [(0, 10)]}, {"a": [(5, 15)]})  ->  recall 0.5, precision 0.5, iou 1/3
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Document = TypeVar("Document", bound=Hashable)
Span = tuple[int, int]
"""Start and end in characters of a document's text; the end is not part of it."""

BUDGET = 4_000
"""Characters that the best chunks may take together when they are measured, about 1,000 tokens: with so many chunks
instead, small ones would lose by being small."""


def overlap(wanted: Mapping[Document, Sequence[Span]], found: Mapping[Document, Sequence[Span]]) -> dict[str, float]:
    """`span_recall` (the share of the wanted characters that was found), `span_precision` (the share of the found ones
    that was wanted) and `span_iou` (intersection over union), each in [0, 1]; characters count once.

    As in Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval", Chroma, 2024, there by tokens.
    """
    wanted_size, found_size = _size(wanted), _size(found)
    common = covered(wanted, found)
    union = wanted_size + found_size - common
    return {
        "span_recall": common / wanted_size if wanted_size else 0.0,
        "span_precision": common / found_size if found_size else 0.0,
        "span_iou": common / union if union else 0.0,
    }


def covered(wanted: Mapping[Document, Sequence[Span]], found: Mapping[Document, Sequence[Span]]) -> int:
    """How many of the wanted characters were found."""
    return sum(
        max(0, min(end, other_end) - max(start, other_start))
        for document, spans in wanted.items()
        for start, end in merged(spans)
        for other_start, other_end in merged(found.get(document, ()))
    )


def within(stretches: Iterable[tuple[Document, int, int]], budget: int = BUDGET) -> dict[Document, list[Span]]:
    """The first stretches (document, start, end) that take so many characters together; the last one is cut."""
    taken: dict[Document, list[Span]] = {}
    for document, start, end in stretches:
        if budget <= 0:
            break
        taken.setdefault(document, []).append((start, min(end, start + budget)))
        budget -= end - start
    return taken


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same characters as spans that neither touch nor overlap, in order."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _size(spans: Mapping[Document, Sequence[Span]]) -> int:
    return sum(end - start for each in spans.values() for start, end in merged(each))
