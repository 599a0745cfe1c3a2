"""An answer made of quotations: the best sentences of the passages, each with its `[n]`. It needs no model.

A sentence is worth the share of the question's words that it holds, weighted by how rare they are in the passages at
hand (after TextTiling's and BM25's idea of IDF; Robertson and Zaragoza, 2009). What stands above it counts too: under
the heading "Changing the port" a sentence need not say "port" again.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise

from indexes.errors import ChangeRequest
from indexes.words import analyse, content_words
from rag.context import Context, Message, Passage
from rag.fence import visible
from rag.models import Delta, ModelAlias, Quote, Sampling, Usage
from rag.segments import FENCE, Segment, segments
from rag.tokenizers import Tokenizer, open_tokenizer

MOST_QUOTES = 3
LONGEST_QUOTE = 1200
"""Characters after which a quote takes in no more of what follows it."""
HEADING_WEIGHT = 0.5
"""What a question word is worth when only the headings above a sentence hold it."""
NEIGHBOUR_WEIGHT = 0.5
"""The same for the sentences right before and after."""
RANK_WEIGHT = 0.15
"""How much the passage's place among the passages counts, beside a coverage in [0, 1]."""
FOLLOWING = 0.55
"""A sentence's successor in its paragraph is quoted with it when it is worth this share of it."""
FURTHER_QUOTE = 0.4
"""A further quote must reach this share of the best one's value."""
MOST_ROWS = 3
"""Rows of tables in one answer; more of them is a table, not an answer."""
LESS_RELEVANT = 0.7
"""An answer does not begin with a passage whose relevance is below this share of another quoted one's."""


class ExtractiveLLM:
    """Quotes one to three stretches of the packed passages; see `LLM`."""

    def __init__(self, alias: ModelAlias) -> None:
        self._alias = alias
        self._tokenizer: Tokenizer = open_tokenizer(alias.tokenizer)

    async def stream(
        self,
        messages: tuple[Message, ...],  # noqa: ARG002
        sampling: Sampling,
        context: Context | None = None,
    ) -> AsyncIterator[Delta]:
        """Yield quote by quote. Raises ChangeRequest (`no_passages`) when there is nothing to quote from."""
        if context is None or not context.passages:
            raise ChangeRequest(
                f"The model {self._alias.name!r} answers by quoting passages, and there are none. "
                f"Ask something that the store covers, or choose another model.",
                code="no_passages",
                param="model",
            )
        limit = sampling.max_tokens or self._alias.output_limit
        text, finish = "", "stop"
        for gap, quote in _spaced(quotes(context.question, context.passages)):
            fitting = _fit(text + gap, quote, limit, self._tokenizer)
            if fitting is not None:
                for delta in (Delta(gap), Delta(_said(fitting), quote=fitting), Delta(_marker(fitting))):
                    text += delta.text
                    yield delta
            if fitting != quote:
                finish = "length"
                break
        usage = Usage(context.ledger.prompt_tokens, self._tokenizer.count(text))
        yield Delta(finish_reason=finish, usage=usage)

    async def close(self) -> None:
        """Nothing is held."""


def quotes(question: str, passages: Sequence[Passage]) -> list[Quote]:
    """One to three quotes that answer `question` best, in reading order (of the passages, then within each); those of
    clearly less relevant passages come last.
    """
    candidates = [_Scored(i, passage, segments(passage.text)) for i, passage in enumerate(passages)]
    weights = _weights(question, candidates)
    values = [scored.values(weights) for scored in candidates]
    ranked = sorted(
        ((value, i, at) for i, those in enumerate(values) for at, value in enumerate(those)),
        key=lambda entry: (-entry[0] - candidates[entry[1]].prior, entry[1], entry[2]),
    )
    chosen: list[tuple[int, Quote]] = []
    for value, i, at in ranked:
        if len(chosen) == MOST_QUOTES:
            break
        if chosen and value < max(FURTHER_QUOTE * ranked[0][0], 1e-9):
            continue
        quote = _widened(candidates[i], at, values[i])
        rows = sum(candidates[j].rows(other) for j, other in chosen) + candidates[i].rows(quote)
        if not chosen or rows <= MOST_ROWS:
            _choose(chosen, i, quote)
    enough = LESS_RELEVANT * max((quote.passage.relevance for _, quote in chosen), default=0.0)
    chosen.sort(key=lambda entry: (entry[1].passage.relevance < enough, entry[0], entry[1].start))
    return _joined([quote for _, quote in chosen])


class _Scored:
    """A passage cut into segments, with the words of each and of the headings above it."""

    def __init__(self, rank: int, passage: Passage, parts: list[Segment]) -> None:
        self.prior = RANK_WEIGHT * passage.relevance / (1 + rank)
        self.passage = passage
        self.parts = parts or [Segment(0, len(passage.text), "sentence")]
        self.words = [frozenset(analyse(passage.text[part.start : part.end])) for part in self.parts]
        above = " ".join((passage.title, *passage.heading_path))
        self.headings = [frozenset(analyse(above)) | near for near in self._nearest_headings()]

    def rows(self, quote: Quote) -> int:
        """How many rows of a table a quote holds."""
        return sum(part.kind == "row" and quote.start <= part.start < quote.end for part in self.parts)

    def is_header(self, at: int) -> bool:
        """Whether a segment is the first row of a table, which names its columns: a rule stands below it."""
        if not 0 <= at < len(self.parts) - 1 or self.parts[at].kind != "row":
            return False
        return "--" in self.passage.text[self.parts[at].end : self.parts[at + 1].start]

    def _nearest_headings(self) -> list[frozenset[str]]:
        near: frozenset[str] = frozenset()
        found = []
        for part, words in zip(self.parts, self.words, strict=True):
            near = words if part.kind == "heading" else near
            found.append(near)
        return found

    def values(self, weights: dict[str, float]) -> list[float]:
        """What each segment is worth, in order; coverage is in [0, 1]."""
        total = sum(weights.values()) or 1.0
        return [self._covered(at, weights) / total * self._form(at) for at in range(len(self.parts))]

    def _covered(self, at: int, weights: dict[str, float]) -> float:
        around = frozenset[str]().union(*(self.words[i] for i in (at - 1, at + 1) if self._beside(i)))
        return sum(
            weight
            * (
                1.0
                if word in self.words[at]
                else max(HEADING_WEIGHT * (word in self.headings[at]), NEIGHBOUR_WEIGHT * (word in around))
            )
            for word, weight in weights.items()
        )

    def _beside(self, at: int) -> bool:
        """A heading does not speak for the sentence before it, and for those after it it counts as heading."""
        return 0 <= at < len(self.parts) and self.parts[at].kind != "heading"

    def _form(self, at: int) -> float:
        """Less for what says little by itself: a heading, a fragment of a few words; nothing for a table's header."""
        if self.is_header(at):
            return 0.0
        if self.parts[at].kind == "heading":
            return 0.3
        return min(1.0, 0.4 + 0.1 * len(self.words[at]))


def _weights(question: str, candidates: Sequence[_Scored]) -> dict[str, float]:
    """The rarity of each content word of the question among the segments at hand."""
    among = [words for scored in candidates for words in scored.words]
    frequency = Counter(word for words in among for word in words)
    return {
        word: math.log(1 + (len(among) - frequency[word] + 0.5) / (frequency[word] + 0.5))
        for word in content_words(question)
    }


def _widened(scored: _Scored, at: int, values: Sequence[float]) -> Quote:
    """The segment with what belongs to it: a heading's first words, what a colon announces, the sentence after it, the
    header above a table's first row.
    """
    parts, text = scored.parts, scored.passage.text
    first = at - 1 if parts[at].kind == "row" and scored.is_header(at - 1) else at
    last, rows = at, sum(part.kind == "row" for part in parts[first : at + 1])
    while last + 1 < len(parts) and parts[last + 1].end - parts[first].start <= LONGEST_QUOTE:
        rows += parts[last + 1].kind == "row"
        if rows > MOST_ROWS or not _goes_on(parts, text, at, last, values):
            break
        last += 1
    while last > at and scored.is_header(last):
        last -= 1
    return Quote(scored.passage, parts[first].start, parts[last].end)


def _goes_on(parts: Sequence[Segment], text: str, first: int, last: int, values: Sequence[float]) -> bool:
    this, after = parts[last], parts[last + 1]
    gap = text[this.end : after.start]
    if after.kind == "heading" or "```" in gap or "~~~" in gap:
        return False  # a lone fence in a quote would take in all that follows it
    if this.kind == "heading":
        return True
    if text[this.start : this.end].endswith((":", "：")):
        return True
    if last > first and this.kind == after.kind and after.kind in ("item", "row"):
        return True
    same_paragraph = "\n\n" not in gap
    return last == first and same_paragraph and 0 < FOLLOWING * values[first] <= values[last + 1]


def _choose(chosen: list[tuple[int, Quote]], i: int, quote: Quote) -> None:
    """Add `quote` from passage `i`: as its own, or to the one that it overlaps; not when it says the same again."""
    for k, (j, other) in enumerate(chosen):
        if i == j and quote.start < other.end and other.start < quote.end:
            start, end = min(quote.start, other.start), max(quote.end, other.end)
            if end - start <= LONGEST_QUOTE:
                chosen[k] = (i, replace(other, start=start, end=end))
            return
        if quote.text.casefold() == other.text.casefold():
            return
    chosen.append((i, quote))


def _joined(chosen: list[Quote]) -> list[Quote]:
    """Quotes with only white space between them are one."""
    joined: list[Quote] = []
    for quote in chosen:
        before = joined[-1] if joined else None
        if before and before.passage is quote.passage and not quote.passage.text[before.end : quote.start].strip():
            joined[-1] = replace(before, end=max(before.end, quote.end))
        else:
            joined.append(quote)
    return joined


# ---- saying it -------------------------------------------------------------------------------------------------------


def _spaced(chosen: Sequence[Quote]) -> list[tuple[str, Quote]]:
    """Each quote that can be seen at all, with the white space between it and the one before."""
    seen = [quote for quote in chosen if _said(quote).strip()]
    gaps = ["\n\n" if "\n" in _said(a) + _marker(a) + _said(b) else " " for a, b in pairwise(seen)]
    return list(zip(["", *gaps], seen, strict=False))


def _said(quote: Quote) -> str:
    return visible(quote.text)


def _marker(quote: Quote) -> str:
    gap = "\n\n" if FENCE.match(quote.text.rpartition("\n")[2]) else " "
    return f"{gap}[{quote.passage.number}]"


def _fit(before: str, quote: Quote, limit: int, tokenizer: Tokenizer) -> Quote | None:
    """The quote, or its longest beginning of whole words that with its marker stays within `limit` tokens in all."""

    def tokens(end: int) -> int:
        part = replace(quote, end=end)
        return tokenizer.count(before + _said(part) + _marker(part))

    ends = [quote.start + found.end() for found in re.finditer(r"\S+", quote.text)]
    fitting = bisect_right(ends, limit, key=tokens)
    return replace(quote, end=ends[fitting - 1]) if fitting else None
