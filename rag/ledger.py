"""From a filled window to a context: render, count the whole, correct, and account for every candidate."""

from __future__ import annotations

from collections.abc import Sequence

from rag.context import Candidate, Context, Fate, Ledger, LedgerEntry, Passage
from rag.fence import fence
from rag.frame import Frame
from rag.pack_settings import SEPARATOR, Order
from rag.window import Outcome, Stretch, Window, shown_title


def finish(frame: Frame, window: Window) -> Context:
    """Render, count the whole, correct until it fits, give what is left to older turns, and write the ledger."""
    ordered, blocks, total = _settle(frame, window)
    if frame.turns_dropped:
        frame.keep_more_turns(SEPARATOR.join(blocks))
        ordered, blocks, total = _settle(frame, window)
    tokens = _shares([frame.counter.tokenizer.count(block + SEPARATOR) for block in blocks], total - frame.fixed_tokens)
    passages = tuple(
        _passage(number, stretch, own) for number, (stretch, own) in enumerate(zip(ordered, tokens, strict=True), 1)
    )
    return Context(
        passages=passages,
        messages=frame.messages(SEPARATOR.join(blocks)),
        ledger=_ledger(frame, window, passages, total),
        prompt_id=frame.prompt.id,
        prompt_hash=frame.prompt.hash,
        question=frame.question,
        grounded=any(c.relevance >= frame.settings.min_relevance for c in window.candidates),
        metadata={"marker": frame.marker, "prompt_version": frame.prompt.version, "model": frame.alias.name},
    )


def _settle(frame: Frame, window: Window) -> tuple[list[Stretch], list[str], int]:
    """The passages in order and rendered, shrunk until they fit, and the tokens of the whole prompt."""
    while True:
        ordered = _in_order(window.stretches, frame.settings.order)
        blocks = [_block(frame, number, stretch) for number, stretch in enumerate(ordered, 1)]
        total = frame.count(SEPARATOR.join(blocks)) if blocks else frame.fixed_tokens
        excess = total - frame.fixed_tokens - frame.room
        if excess <= 0 or not blocks:
            return ordered, blocks, total
        window.shrink(excess)


def _in_order(stretches: Sequence[Stretch], order: Order) -> list[Stretch]:
    ranked = sorted(stretches, key=lambda s: s.rank)
    if order == "reverse":
        return ranked[::-1]
    if order == "edges":
        return ranked[::2] + ranked[1::2][::-1]
    if order == "document":
        best: dict[int, int] = {}
        for stretch in ranked:
            best.setdefault(stretch.lead.document_id, stretch.rank)
        return sorted(ranked, key=lambda s: (best[s.lead.document_id], s.lead.version_id, s.start))
    return ranked


def _block(frame: Frame, number: int, stretch: Stretch) -> str:
    title = frame.clean(shown_title(stretch.lead, stretch.heading_path()))
    return fence(number, title, frame.clean(stretch.text).strip("\n"), frame.marker)


def _shares(tokens: list[int], total: int) -> list[int]:
    """`tokens`, counted apart, made to add up to `total`, counted whole: joins cost or save a few."""
    if not tokens:
        return []
    each, rest = divmod(total - sum(tokens), len(tokens))
    return [own + each + (position < rest) for position, own in enumerate(tokens)]


def _passage(number: int, stretch: Stretch, tokens: int) -> Passage:
    lead = stretch.lead
    return Passage(
        number=number,
        document_id=lead.document_id,
        version_id=lead.version_id,
        store_id=lead.store_id,
        file_id=lead.file_id,
        filename=lead.filename,
        title=lead.title,
        heading_path=stretch.heading_path(),
        page=stretch.pieces[0].page,
        start=stretch.start,
        end=stretch.end,
        text=stretch.text,
        chunk_ids=tuple(piece.chunk_id for piece in stretch.pieces),
        attributes=lead.attributes,
        fused=lead.fused,
        relevance=lead.relevance,
        tokens=tokens,
    )


def _ledger(frame: Frame, window: Window, passages: Sequence[Passage], total: int) -> Ledger:
    return Ledger(
        entries=tuple(_entry(window, rank, passages) for rank in range(len(window.candidates))),
        window=frame.alias.window,
        reserved_tokens=frame.reserved,
        base_tokens=frame.base_tokens,
        history_tokens=frame.fixed_tokens - frame.base_tokens,
        prompt_tokens=total,
        turns_kept=frame.turns_kept,
        turns_dropped=frame.turns_dropped,
        tokenizer=frame.counter.tokenizer.name,
        exact=frame.counter.tokenizer.exact,
    )


def _entry(window: Window, rank: int, passages: Sequence[Passage]) -> LedgerEntry:
    candidate = window.candidates[rank]
    fate, reason, passage = _fate(window, rank, passages)
    return LedgerEntry(
        candidate.chunk_id,
        candidate.file_id,
        candidate.start,
        candidate.end,
        fate,
        reason,
        passage,
        candidate.fused,
        candidate.relevance,
    )


def _fate(window: Window, rank: int, passages: Sequence[Passage]) -> tuple[Fate, str, int | None]:
    """What the finished passages say: whole, in part or not at all in one of them."""
    candidate, outcome = window.candidates[rank], window.outcomes[rank]
    if outcome.dropped == "repeated":
        return "dropped", "duplicate", None
    same = [p for p in passages if p.version_id == candidate.version_id]
    holder = max(same, key=lambda p: min(p.end, candidate.end) - max(p.start, candidate.start), default=None)
    if holder is not None and _whole(holder, candidate):
        if outcome.placed == "fits":
            return "kept", "fits", holder.number
        return "merged", _merge_reason(window, candidate, outcome), holder.number
    if holder is not None and outcome.placed and holder.start < candidate.end and candidate.start < holder.end:
        return "trimmed", "oversized" if outcome.oversized else "budget", holder.number
    return "dropped", outcome.dropped, None


def _merge_reason(window: Window, candidate: Candidate, outcome: Outcome) -> str:
    return outcome.placed or ("adjacent" if candidate.chunk_id in window.widened else "overlaps")


def _whole(passage: Passage, candidate: Candidate) -> bool:
    """Does the passage hold all of the candidate, white space at its ends aside?"""
    start = candidate.end - len(candidate.text.lstrip())
    return passage.start <= start and candidate.start + len(candidate.text.rstrip()) <= passage.end
