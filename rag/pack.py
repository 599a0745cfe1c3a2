"""Fills the context window of a model with what retrieval found.

The prompt is counted as the model reads it, rendered and whole, and never exceeds the window less what the
answer needs. On the way there, texts are counted once each and piece by piece; the whole is counted a few times
at the end, to verify and to correct. So packing costs what it emits, not what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from indexes.errors import ChangeRequest
from rag.context import Candidate, Context, Fate, Ledger, LedgerEntry, Message, Passage
from rag.duplicates import SeenTexts
from rag.fence import clean, fence, new_marker, one_line
from rag.models import ModelAlias, Sampling
from rag.prompt import Prompt, messages
from rag.tokenizers import PromptCounter
from rag.trim import longest_beginning, longest_ending

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
    """Share of what the question leaves that earlier turns may take, in [0, 1]."""

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


def pack(
    question: str,
    candidates: Sequence[Candidate],
    alias: ModelAlias,
    prompt: Prompt,
    settings: PackSettings | None = None,
    *,
    history: Sequence[Message] = (),
    sampling: Sampling | None = None,
    neighbours: Neighbours | None = None,
    slice_text: SliceText | None = None,
    values: Mapping[str, str] | None = None,
    seed: int | str | None = None,
) -> Context:
    """The context for `question`: passages, the messages they stand in, and the ledger.

    Without `neighbours` nothing is widened; without `slice_text` only chunks that touch are merged. `values` are the
    prompt's own variables. `seed` fixes the random marker, for tests: the same input then gives the same output.

    Raises ChangeRequest `context_length_exceeded` when the question does not fit beside the template and the
    answer; whatever a prompt or a chat template raises.
    """
    settings = settings or PackSettings()
    counter = PromptCounter(alias)
    control_tokens = counter.tokenizer.control_tokens
    texts = [clean(text, control_tokens) for text in _untrusted(question, candidates, history)]
    while True:
        marker = new_marker(texts, seed)
        frame = _Frame(
            question, alias, prompt, settings, history, _reserved(alias, settings, sampling), values, counter, marker
        )
        window = _Window(frame, candidates, slice_text)
        window.fill()
        window.widen(neighbours)
        context = _finish(frame, window)
        joined = [clean(passage.text, control_tokens) for passage in context.passages]
        if not any(marker in text.casefold() for text in joined):
            return context
        texts += joined  # the marker stands across a join, or in a neighbour: draw another


def _untrusted(question: str, candidates: Iterable[Candidate], history: Iterable[Message]) -> list[str]:
    shown = [text for candidate in candidates for text in (_title(candidate, candidate.heading_path), candidate.text)]
    return [question, *(turn["content"] for turn in history), *shown]


def _title(candidate: Candidate, heading_path: tuple[str, ...]) -> str:
    title = candidate.title or candidate.filename
    return " › ".join([title, *(heading_path[1:] if heading_path[:1] == (title,) else heading_path)])


def _reserved(alias: ModelAlias, settings: PackSettings, sampling: Sampling | None) -> int:
    if settings.reserve is not None:
        return settings.reserve
    asked = (sampling and sampling.max_tokens) or alias.sampling.max_tokens or alias.output_limit
    return min(asked, alias.output_limit)


class _Frame:
    """What stands around the passages: the prompt, the history that fits, the question; and how much room is left."""

    def __init__(
        self,
        question: str,
        alias: ModelAlias,
        prompt: Prompt,
        settings: PackSettings,
        history: Sequence[Message],
        reserved: int,
        values: Mapping[str, str] | None,
        counter: PromptCounter,
        marker: str,
    ) -> None:
        self.question, self.alias, self.prompt, self.settings = question, alias, prompt, settings
        self.reserved, self.counter, self.marker = reserved, counter, marker
        self._values = values
        self._shown_question = self.clean(question)
        self.history: tuple[Message, ...] = ()
        self.base_tokens = self.count()
        self.budget = alias.window - reserved
        if self.base_tokens > self.budget:
            raise self._too_long()
        self._keep_history(history)
        self.fixed_tokens = self.count()
        self.turns_dropped = len(history) - len(self.history)
        left = self.budget - self.fixed_tokens
        self.room = left if settings.context_tokens is None else min(left, settings.context_tokens)

    def clean(self, text: str) -> str:
        return clean(text, self.counter.tokenizer.control_tokens)

    def messages(self, passages: str = "") -> tuple[Message, ...]:
        return messages(self.prompt, self._shown_question, passages, self.marker, self.history, self._values)

    def count(self, passages: str = "") -> int:
        """Tokens of the whole rendered prompt."""
        return self.counter.count(self.messages(passages))

    def _too_long(self) -> ChangeRequest:
        return ChangeRequest(
            f"The question and the prompt {self.prompt.id!r} take {self.base_tokens} tokens, but of the "
            f"{self.alias.window} tokens of the model {self.alias.name!r} only {max(self.budget, 0)} are left beside "
            f"the {self.reserved} reserved for the answer. Shorten the question, or ask for fewer max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )

    def _keep_history(self, history: Sequence[Message]) -> None:
        """Keep the newest turns that fit into their share. An answer is never kept without what it answers."""
        cleaned = [{"role": turn["role"], "content": self.clean(turn["content"])} for turn in history]
        cuts = [at for at, turn in enumerate(cleaned) if turn["role"] != "assistant"]
        limit = self.base_tokens + int((self.budget - self.base_tokens) * self.settings.history_share)
        low, high = self._first_plausible(cleaned, cuts, limit - self.base_tokens), len(cuts)
        while low < high:
            middle = (low + high) // 2
            self.history = tuple(cleaned[cuts[middle] :])
            low, high = (low, middle) if self.count() <= limit else (middle + 1, high)
        self.history = tuple(cleaned[cuts[low] :]) if low < len(cuts) else ()

    def _first_plausible(self, turns: Sequence[Message], cuts: Sequence[int], limit: int) -> int:
        """The position among `cuts` from which the contents alone fit; nothing older needs a whole count."""
        tokens, reached = 0, len(turns)
        for position in range(len(cuts) - 1, -1, -1):
            tokens += sum(self.counter.tokenizer.count(turn["content"]) for turn in turns[cuts[position] : reached])
            reached = cuts[position]
            if tokens > limit:
                return position + 1
        return 0


@dataclass(frozen=True)
class _Piece:
    """A chunk, whether it was retrieved or stands beside one that was."""

    chunk_id: int
    version_id: int
    ordinal: int
    start: int
    end: int
    text: str
    heading_path: tuple[str, ...]
    page: int | None


def _piece(version_id: int, chunk: Candidate | Neighbour) -> _Piece:
    return _Piece(
        chunk.chunk_id, version_id, chunk.ordinal, chunk.start, chunk.end, chunk.text, chunk.heading_path, chunk.page
    )


@dataclass
class _Stretch:
    """A passage in the making: `text == document_text[start:end]`."""

    lead: Candidate
    rank: int
    """Of the best candidate in it; 0 is the best."""
    start: int
    end: int
    text: str
    pieces: list[_Piece]
    cost: int
    """Tokens of the fenced text, by the sum of its pieces."""
    overhead: int
    """Tokens of its borders and title."""
    cut_before: bool = False
    """Does it begin within a chunk?"""
    cut_after: bool = False

    def heading_path(self) -> tuple[str, ...]:
        """What the heading paths of its pieces have in common."""
        paths = [piece.heading_path for piece in self.pieces]
        common = 0
        while all(len(path) > common for path in paths) and len({path[common] for path in paths}) == 1:
            common += 1
        return paths[0][:common]


@dataclass
class _Outcome:
    """What has been decided about one candidate; the final spans tell the rest."""

    placed: str | None = None
    """Why it has a place: `fits`, `adjacent`, `overlaps`."""
    dropped: str = "budget"
    """Why it has none, if it has none."""
    oversized: bool = False
    cut: bool = False
    """Was a part of it left out when it was placed?"""


@dataclass
class _Window:
    """The room for passages, filled in order of rank."""

    frame: _Frame
    given: Sequence[Candidate]
    slice_text: SliceText | None
    stretches: list[_Stretch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.candidates = sorted(self.given, key=lambda c: (-c.fused, c.document_id, c.version_id, c.start, c.chunk_id))
        self.outcomes = [_Outcome() for _ in self.candidates]
        self.room = self.frame.room
        self.left = self.room
        self.slack = int(self.room * SLACK)
        self.complete = True
        """Has every relevant candidate got its place?"""
        self.widened: set[int] = set()
        self._seen = SeenTexts()
        self._ids: set[int] = set()
        self._overheads: dict[str, int] = {}
        self._slices: dict[tuple[int, int, int], str] = {}

    # Filling

    def fill(self) -> None:
        """Give the candidates their places, best first; then what the caps kept back, with what is left; and at
        last, if much is still left, more of what was cut."""
        relevant = [rank for rank in range(len(self.candidates)) if self._is_relevant(rank)]
        documents = {self.candidates[rank].document_id for rank in relevant}
        single = self.room if len(relevant) == 1 else int(self.room * OVERSIZED)
        share = self.room if len(documents) == 1 else int(self.room * self.frame.settings.document_cap)
        kept_back = [rank for rank in relevant if not self._offer(rank, single, share)]
        for rank in kept_back:
            self._offer(rank, self.room, self.room)
        for rank in relevant:
            if self.outcomes[rank].cut and self.left > self.slack:
                self._grow(rank)

    def _is_relevant(self, rank: int) -> bool:
        relevant = self.candidates[rank].relevance >= self.frame.settings.min_relevance
        if not relevant:
            self.outcomes[rank].dropped = "below_threshold"
        return relevant

    def _offer(self, rank: int, single: int, share: int) -> bool:
        """Place a candidate, whole or in part. False when only a cap keeps some of it back, for the time being."""
        candidate, outcome = self.candidates[rank], self.outcomes[rank]
        piece = _piece(candidate.version_id, candidate)
        touching = self._touching(piece)
        if self._is_settled(candidate, touching, outcome):
            return True
        need = self._need(piece, touching, candidate)
        spent = self._spent_on(candidate)
        free = min(single, share - spent) if spent else single
        capped = free < self.left
        if need <= min(self.left, free):
            self._place(rank, piece, touching, need)
            return True
        outcome.oversized = outcome.oversized or need > single
        if outcome.oversized or not capped:
            self._place_part(rank, piece, touching, min(self.left, free))
        if capped:
            outcome.dropped = "oversized" if outcome.oversized else "document_cap"
        else:
            self.complete = False
        return not capped

    def _is_settled(self, candidate: Candidate, touching: list[_Stretch], outcome: _Outcome) -> bool:
        """Does this candidate need no count, since it has no place to expect or says nothing new?"""
        if outcome.placed:
            return self.left < USEFUL
        if candidate.chunk_id in self._ids:
            outcome.dropped = "repeated"
            return True
        limit = self.frame.settings.max_passages
        if not touching and limit is not None and len(self.stretches) >= limit:
            outcome.dropped = "max_passages"
            return True
        if self.left < USEFUL + (0 if touching else self._overhead(candidate)):
            self.complete = self.complete and any(_holds(stretch, candidate) for stretch in touching)
            return True
        overlaps = any(_overlap(stretch, candidate) for stretch in touching)
        if not overlaps and self.frame.clean(candidate.text) in self._seen:
            outcome.dropped = "duplicate"
            return True
        return False

    def _spent_on(self, candidate: Candidate) -> int:
        return sum(s.cost for s in self.stretches if s.lead.document_id == candidate.document_id)

    # Counting

    def _count(self, text: str) -> int:
        return self.frame.counter.tokenizer.count(self.frame.clean(text))

    def _overhead(self, candidate: Candidate) -> int:
        """Tokens of borders, title and separator."""
        title = one_line(self.frame.clean(_title(candidate, candidate.heading_path)))
        if title not in self._overheads:
            block = fence(88, title, "", self.frame.marker) + "\n" + SEPARATOR
            self._overheads[title] = self.frame.counter.tokenizer.count(block)
        return self._overheads[title]

    def _need(self, piece: _Piece, touching: list[_Stretch], candidate: Candidate | None = None) -> int:
        """What the whole piece would add, in tokens; joining two stretches saves the borders of one."""
        new = sum(self._count(part) + 1 for part in _uncovered(piece, touching))
        if not touching and candidate is not None:
            return new + self._overhead(candidate)
        return new - sum(stretch.overhead for stretch in touching[1:])

    def _count_new(self, piece: _Piece, touching: list[_Stretch]) -> int:
        return sum(map(self._count, _uncovered(piece, touching)))

    # Placing

    def _touching(self, piece: _Piece) -> list[_Stretch]:
        """The stretches that this piece overlaps or continues, in the order of the text."""
        same = (s for s in self.stretches if s.lead.version_id == piece.version_id)
        return sorted((s for s in same if self._touches(s, piece)), key=lambda s: s.start)

    def _touches(self, stretch: _Stretch, piece: _Piece) -> bool:
        low, high = min(stretch.end, piece.end), max(stretch.start, piece.start)
        if high <= low:
            return True
        if high - low > GAP or self.slice_text is None:
            return False
        return self._slice(piece.version_id, low, high).isspace()

    def _slice(self, version_id: int, start: int, end: int) -> str:
        """A stretch of a document, asked for once: behind the callable may be a file."""
        key = (version_id, start, end)
        if key not in self._slices and self.slice_text is not None:
            self._slices[key] = self.slice_text(*key)
        return self._slices[key]

    def _place(self, rank: int, piece: _Piece, touching: list[_Stretch], cost: int) -> None:
        candidate, outcome = self.candidates[rank], self.outcomes[rank]
        outcome.placed = outcome.placed or _reason(candidate, touching)
        self._remember(candidate)
        if touching:
            self._join(piece, touching, cost)
        else:
            self._start(rank, piece, cost)

    def _start(self, rank: int, piece: _Piece, cost: int) -> None:
        lead = self.candidates[rank]
        overhead = self._overhead(lead)
        self.stretches.append(_Stretch(lead, rank, piece.start, piece.end, piece.text, [piece], cost, overhead))
        self.left -= cost

    def _join(self, piece: _Piece, touching: list[_Stretch], cost: int) -> None:
        """Make one stretch of the piece and all that it touches; the best of them leads."""
        first, last = touching[0], touching[-1]
        best = min(touching, key=lambda stretch: stretch.rank)
        parts = sorted([(s.start, s.end, s.text) for s in touching] + [(piece.start, piece.end, piece.text)])
        text = self._joined_text(piece.version_id, parts)
        pieces = {p.chunk_id: p for stretch in touching for p in stretch.pieces} | {piece.chunk_id: piece}
        joined = _Stretch(
            best.lead,
            best.rank,
            parts[0][0],
            parts[0][0] + len(text),
            text,
            sorted(pieces.values(), key=lambda p: p.start),
            sum(stretch.cost for stretch in touching) + cost,
            best.overhead,
            first.cut_before and first.start < piece.start,
            last.cut_after and last.end > piece.end,
        )
        self.stretches = [stretch for stretch in self.stretches if stretch not in touching] + [joined]
        self.left -= cost

    def _joined_text(self, version_id: int, parts: list[tuple[int, int, str]]) -> str:
        _, reached, text = parts[0]
        for start, end, part in parts[1:]:
            if start > reached:
                text += self._slice(version_id, reached, start)
                reached = start
            if end > reached:
                text += part[reached - start :]
                reached = end
        return text

    def _place_part(self, rank: int, piece: _Piece, touching: list[_Stretch], allowance: int) -> bool:
        """Place as much of the piece as fits, on its own or as the continuation of one stretch."""
        if allowance < USEFUL:
            return False
        below = [stretch for stretch in touching if stretch.start <= piece.start]
        if touching and not below:
            part = self._ending(piece, touching[0], allowance, self.slack)
        else:
            spent = 0 if touching else self._overhead(self.candidates[rank])
            part = self._beginning(piece, touching, allowance - spent, self.slack)
        if part is None or self._count_new(part, touching) < USEFUL:
            return False
        return self._place_cut(rank, piece, part, touching, allowance)

    def _grow(self, rank: int) -> None:
        """Add to a candidate that was cut what still fits, to the last word."""
        candidate = self.candidates[rank]
        piece = _piece(candidate.version_id, candidate)
        touching = self._touching(piece)
        if touching and touching[0].start <= piece.start:
            part = self._beginning(piece, touching, self.left, 0)
        else:
            part = self._ending(piece, touching[0], self.left, 0) if touching else None
        if part is not None:
            self._place_cut(rank, piece, part, touching, self.left)

    def _place_cut(self, rank: int, piece: _Piece, part: _Piece, touching: list[_Stretch], allowance: int) -> bool:
        candidate, outcome = self.candidates[rank], self.outcomes[rank]
        below = [stretch for stretch in touching if stretch.start <= piece.start]
        target = below[-1:] or touching[:1]
        need = self._need(part, target, candidate)
        if need > allowance:
            return False
        outcome.placed, outcome.cut = outcome.placed or _reason(candidate, target), True
        self._remember(candidate)
        if target:
            self._join(part, target, need)
        else:
            self._start(rank, part, need)
        stretch = self.stretches[-1]
        stretch.cut_after = stretch.cut_after or (part.end < piece.end and stretch.end == part.end)
        stretch.cut_before = stretch.cut_before or (part.start > piece.start and stretch.start == part.start)
        return True

    def _beginning(self, piece: _Piece, touching: list[_Stretch], limit: int, slack: int) -> _Piece | None:
        """The piece up to where it fits, beyond what is there already and before what follows."""
        covered = max([0, *(s.end - piece.start for s in touching if s.start <= piece.start)])
        until = min([len(piece.text), *(s.start - piece.start for s in touching if s.start > piece.start)])
        length = longest_beginning(piece.text[covered:until], self._count, limit - 1, slack)
        return _part(piece, 0, covered + length) if length else None

    def _ending(self, piece: _Piece, above: _Stretch, limit: int, slack: int) -> _Piece | None:
        """The piece from where it fits, before the stretch that it leads up to."""
        text = piece.text[: above.start - piece.start]
        start = longest_ending(text, self._count, limit - 1, slack)
        return _part(piece, start, len(piece.text)) if start < len(text) else None

    def _remember(self, candidate: Candidate) -> None:
        if candidate.chunk_id not in self._ids:
            self._ids.add(candidate.chunk_id)
            self._seen.add(self.frame.clean(candidate.text))

    # Widening

    def widen(self, neighbours: Neighbours | None) -> None:
        """Give room that no candidate wants to the chunks around them, within their sections, nearest first."""
        settings = self.frame.settings
        if neighbours is None or not settings.widen or not self.complete:
            return
        unwanted = {c.chunk_id for c, o in zip(self.candidates, self.outcomes, strict=True) if o.dropped == "duplicate"}
        around: dict[int, dict[int, _Piece]] = {}
        ranked = sorted(self.stretches, key=lambda s: s.rank)
        for stretch in ranked:
            version, ordinals = stretch.lead.version_id, [piece.ordinal for piece in stretch.pieces]
            found = neighbours(version, max(0, min(ordinals) - settings.widen), max(ordinals) + settings.widen)
            pieces = {chunk.ordinal: _piece(version, chunk) for chunk in found if chunk.chunk_id not in unwanted}
            around.setdefault(version, {}).update(pieces)
        for _ in range(settings.widen):
            for lead in [stretch.lead for stretch in ranked]:
                for step in (1, -1):
                    self._widen_one(lead, step, around[lead.version_id])

    def _widen_one(self, lead: Candidate, step: int, around: Mapping[int, _Piece]) -> None:
        stretch = next((s for s in self.stretches if s.lead is lead), None)
        if stretch is None or (stretch.cut_after if step > 0 else stretch.cut_before):
            return
        edge = max(stretch.pieces, key=lambda p: p.ordinal * step)
        piece = around.get(edge.ordinal + step)
        if piece is None or piece.heading_path != edge.heading_path:
            return
        touching = self._touching(piece)
        if stretch not in touching:
            return
        need = self._need(piece, touching)
        if need <= self.left:
            self._join(piece, touching, need)
            self.widened.add(piece.chunk_id)

    # Correcting

    def shrink(self, tokens: int) -> None:
        """Take at least this many tokens (by estimate) from the passage that ranks last, or take it out."""
        stretch = max(self.stretches, key=lambda s: s.rank)
        limit = self._count(stretch.text) - tokens
        length = longest_beginning(stretch.text, self._count, limit, self.slack) if limit >= USEFUL else 0
        if not 0 < length < len(stretch.text) or self._count(stretch.text[:length]) < USEFUL:
            self.stretches.remove(stretch)
            return
        stretch.text, stretch.end, stretch.cut_after = stretch.text[:length], stretch.start + length, True
        stretch.pieces = [piece for piece in stretch.pieces if piece.start < stretch.end]


def _reason(candidate: Candidate, touching: list[_Stretch]) -> str:
    if not touching:
        return "fits"
    return "overlaps" if any(_overlap(stretch, candidate) for stretch in touching) else "adjacent"


def _overlap(stretch: _Stretch, chunk: Candidate | _Piece) -> bool:
    return stretch.start < chunk.end and chunk.start < stretch.end


def _holds(stretch: _Stretch, chunk: Candidate | _Piece) -> bool:
    return stretch.start <= chunk.start and chunk.end <= stretch.end


def _part(piece: _Piece, start: int, end: int) -> _Piece:
    return _Piece(
        piece.chunk_id,
        piece.version_id,
        piece.ordinal,
        piece.start + start,
        piece.start + end,
        piece.text[start:end],
        piece.heading_path,
        piece.page,
    )


def _uncovered(piece: _Piece, touching: list[_Stretch]) -> list[str]:
    """The parts of the piece that no stretch holds yet. `touching` stands in the order of the text."""
    parts, reached = [], piece.start
    for stretch in touching:
        if stretch.start > reached:
            parts.append(piece.text[reached - piece.start : stretch.start - piece.start])
        reached = max(reached, stretch.end)
    if reached < piece.end:
        parts.append(piece.text[reached - piece.start :])
    return [part for part in parts if part]


def _finish(frame: _Frame, window: _Window) -> Context:
    """Render, count the whole, correct until it fits, and write the ledger."""
    while True:
        ordered = _in_order(window.stretches, frame.settings.order)
        blocks = [_block(frame, number, stretch) for number, stretch in enumerate(ordered, 1)]
        text = SEPARATOR.join(blocks)
        total = frame.count(text) if blocks else frame.fixed_tokens
        excess = total - frame.fixed_tokens - frame.room
        if excess <= 0 or not blocks:
            break
        window.shrink(excess)
    tokens = _shares([frame.counter.tokenizer.count(block + SEPARATOR) for block in blocks], total - frame.fixed_tokens)
    passages = tuple(
        _passage(number, stretch, own) for number, (stretch, own) in enumerate(zip(ordered, tokens, strict=True), 1)
    )
    return Context(
        passages=passages,
        messages=frame.messages(text),
        ledger=_ledger(frame, window, passages, total),
        prompt_id=frame.prompt.id,
        prompt_hash=frame.prompt.hash,
        question=frame.question,
        grounded=any(c.relevance >= frame.settings.min_relevance for c in window.candidates),
        metadata={"marker": frame.marker, "prompt_version": frame.prompt.version, "model": frame.alias.name},
    )


def _in_order(stretches: Sequence[_Stretch], order: Order) -> list[_Stretch]:
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


def _block(frame: _Frame, number: int, stretch: _Stretch) -> str:
    title = frame.clean(_title(stretch.lead, stretch.heading_path()))
    return fence(number, title, frame.clean(stretch.text).strip("\n"), frame.marker)


def _shares(tokens: list[int], total: int) -> list[int]:
    """`tokens`, counted apart, made to add up to `total`, counted whole: joins cost or save a few."""
    if not tokens:
        return []
    each, rest = divmod(total - sum(tokens), len(tokens))
    return [own + each + (position < rest) for position, own in enumerate(tokens)]


def _passage(number: int, stretch: _Stretch, tokens: int) -> Passage:
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


def _ledger(frame: _Frame, window: _Window, passages: Sequence[Passage], total: int) -> Ledger:
    return Ledger(
        entries=tuple(_entry(window, rank, passages) for rank in range(len(window.candidates))),
        window=frame.alias.window,
        reserved_tokens=frame.reserved,
        base_tokens=frame.base_tokens,
        history_tokens=frame.fixed_tokens - frame.base_tokens,
        prompt_tokens=total,
        turns_kept=len(frame.history),
        turns_dropped=frame.turns_dropped,
        tokenizer=frame.counter.tokenizer.name,
        exact=frame.counter.tokenizer.exact,
    )


def _entry(window: _Window, rank: int, passages: Sequence[Passage]) -> LedgerEntry:
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


def _fate(window: _Window, rank: int, passages: Sequence[Passage]) -> tuple[Fate, str, int | None]:
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


def _merge_reason(window: _Window, candidate: Candidate, outcome: _Outcome) -> str:
    return outcome.placed or ("adjacent" if candidate.chunk_id in window.widened else "overlaps")


def _whole(passage: Passage, candidate: Candidate) -> bool:
    """Does the passage hold all of the candidate, white space at its ends aside?"""
    start = candidate.end - len(candidate.text.lstrip())
    return passage.start <= start and candidate.start + len(candidate.text.rstrip()) <= passage.end
