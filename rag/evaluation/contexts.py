"""How good a packed context is: what it holds of the answer, what it says twice, how it uses its room."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rag.context import Context, Passage
from rag.evaluation.spans import Span, covered, merged

SHINGLE = 8
"""Words in a row that make a repetition."""


def score(context: Context, wanted: Mapping[int, Sequence[Span]]) -> dict[str, float]:
    """The measures of a context; `wanted` are the spans that answer the question, by document number.

    `context_coverage`: the share of their characters that the passages hold, and `context_coverage_per_1k`: the same
    for each thousand tokens of passages (both only where spans are known). `context_duplicates`: the share of the
    passages' words that repeat what stands earlier in them (lower is better). `context_budget_use`: the share of the
    tokens free for passages that they take.
    """
    passages, ledger = context.passages, context.ledger
    tokens = sum(passage.tokens for passage in passages)
    room = ledger.window - ledger.reserved_tokens - ledger.base_tokens - ledger.history_tokens
    scores = {
        "context_duplicates": duplicate_share([passage.text for passage in passages]),
        "context_budget_use": min(1.0, tokens / room) if room > 0 else 0.0,
    }
    size = sum(end - start for spans in wanted.values() for start, end in merged(spans))
    if size:
        scores["context_coverage"] = covered(wanted, _spans(passages)) / size
        scores["context_coverage_per_1k"] = 1000 * scores["context_coverage"] / tokens if tokens else 0.0
    return scores


def duplicate_share(texts: Sequence[str]) -> float:
    """The share of the words, of all texts in order, that lie in a run of `SHINGLE` words seen before."""
    seen: set[tuple[str, ...]] = set()
    repeated = total = 0
    for text in texts:
        words = re.findall(r"\w+", text.casefold())
        again = [False] * len(words)
        for start in range(len(words) - SHINGLE + 1):
            shingle = tuple(words[start : start + SHINGLE])
            if shingle in seen:
                again[start : start + SHINGLE] = [True] * SHINGLE
            seen.add(shingle)
        repeated, total = repeated + sum(again), total + len(words)
    return repeated / total if total else 0.0


def _spans(passages: Sequence[Passage]) -> dict[int, list[Span]]:
    spans: dict[int, list[Span]] = {}
    for passage in passages:
        spans.setdefault(passage.document_id, []).append((passage.start, passage.end))
    return spans
