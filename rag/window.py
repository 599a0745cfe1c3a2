"""The room for passages, filled with candidates in order of rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rag.context import Candidate
from rag.duplicates import SeenTexts
from rag.fence import fence, one_line
from rag.frame import Frame
from rag.pack_settings import GAP, OVERSIZED, SEPARATOR, SLACK, USEFUL, Neighbour, Neighbours, SliceText
from rag.trim import longest_beginning, longest_ending


def shown_title(candidate: Candidate, heading_path: tuple[str, ...]) -> str:
    """What stands above a passage: its document's title (else its file's name) and its headings."""
    title = candidate.title or candidate.filename
    return " › ".join([title, *(heading_path[1:] if heading_path[:1] == (title,) else heading_path)])


@dataclass(frozen=True)
class Piece:
    """A chunk, whether it was retrieved or stands beside one that was."""

    chunk_id: int
    version_id: int
    ordinal: int
    start: int
    end: int
    text: str
    heading_path: tuple[str, ...]
    page: int | None


def piece_of(version_id: int, chunk: Candidate | Neighbour) -> Piece:
    return Piece(
        chunk.chunk_id, version_id, chunk.ordinal, chunk.start, chunk.end, chunk.text, chunk.heading_path, chunk.page
    )


@dataclass
class Stretch:
    """A passage in the making: `text == document_text[start:end]`."""

    lead: Candidate
    rank: int
    """Of the best candidate in it; 0 is the best."""
    start: int
    end: int
    text: str
    pieces: list[Piece]
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
class Outcome:
    """What has been decided about one candidate; the final spans tell the rest."""

    placed: str | None = None
    """Why it has a place: `fits`, `adjacent`, `overlaps`."""
    dropped: str = "budget"
    """Why it has none, if it has none."""
    oversized: bool = False
    cut: bool = False
    """Was a part of it left out when it was placed?"""


@dataclass
class Window:
    """The room for passages, filled in order of rank."""

    frame: Frame
    given: Sequence[Candidate]
    slice_text: SliceText | None
    stretches: list[Stretch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.candidates = sorted(
            self.given, key=lambda c: (c.standing, c.document_id, c.version_id, c.start, c.chunk_id)
        )
        self.outcomes = [Outcome() for _ in self.candidates]
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
        piece = piece_of(candidate.version_id, candidate)
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

    def _is_settled(self, candidate: Candidate, touching: list[Stretch], outcome: Outcome) -> bool:
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
        title = one_line(self.frame.clean(shown_title(candidate, candidate.heading_path)))
        if title not in self._overheads:
            block = fence(88, title, "", self.frame.marker) + "\n" + SEPARATOR
            self._overheads[title] = self.frame.counter.tokenizer.count(block)
        return self._overheads[title]

    def _need(self, piece: Piece, touching: list[Stretch], candidate: Candidate | None = None) -> int:
        """What the whole piece would add, in tokens; joining two stretches saves the borders of one."""
        new = sum(self._count(part) + 1 for part in _uncovered(piece, touching))
        if not touching and candidate is not None:
            return new + self._overhead(candidate)
        return new - sum(stretch.overhead for stretch in touching[1:])

    def _count_new(self, piece: Piece, touching: list[Stretch]) -> int:
        return sum(map(self._count, _uncovered(piece, touching)))

    # Placing

    def _touching(self, piece: Piece) -> list[Stretch]:
        """The stretches that this piece overlaps or continues, in the order of the text."""
        same = (s for s in self.stretches if s.lead.version_id == piece.version_id)
        return sorted((s for s in same if self._touches(s, piece)), key=lambda s: s.start)

    def _touches(self, stretch: Stretch, piece: Piece) -> bool:
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

    def _place(self, rank: int, piece: Piece, touching: list[Stretch], cost: int) -> None:
        candidate, outcome = self.candidates[rank], self.outcomes[rank]
        outcome.placed = outcome.placed or _reason(candidate, touching)
        self._remember(candidate)
        if touching:
            self._join(piece, touching, cost)
        else:
            self._start(rank, piece, cost)

    def _start(self, rank: int, piece: Piece, cost: int) -> None:
        lead = self.candidates[rank]
        overhead = self._overhead(lead)
        self.stretches.append(Stretch(lead, rank, piece.start, piece.end, piece.text, [piece], cost, overhead))
        self.left -= cost

    def _join(self, piece: Piece, touching: list[Stretch], cost: int) -> None:
        """Make one stretch of the piece and all that it touches; the best of them leads."""
        first, last = touching[0], touching[-1]
        best = min(touching, key=lambda stretch: stretch.rank)
        parts = sorted([(s.start, s.end, s.text) for s in touching] + [(piece.start, piece.end, piece.text)])
        text = self._joined_text(piece.version_id, parts)
        pieces = {p.chunk_id: p for stretch in touching for p in stretch.pieces} | {piece.chunk_id: piece}
        joined = Stretch(
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

    def _place_part(self, rank: int, piece: Piece, touching: list[Stretch], allowance: int) -> bool:
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
        piece = piece_of(candidate.version_id, candidate)
        touching = self._touching(piece)
        if touching and touching[0].start <= piece.start:
            part = self._beginning(piece, touching, self.left, 0)
        else:
            part = self._ending(piece, touching[0], self.left, 0) if touching else None
        if part is not None:
            self._place_cut(rank, piece, part, touching, self.left)

    def _place_cut(self, rank: int, piece: Piece, part: Piece, touching: list[Stretch], allowance: int) -> bool:
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

    def _beginning(self, piece: Piece, touching: list[Stretch], limit: int, slack: int) -> Piece | None:
        """The piece up to where it fits, beyond what is there already and before what follows."""
        covered = max([0, *(s.end - piece.start for s in touching if s.start <= piece.start)])
        until = min([len(piece.text), *(s.start - piece.start for s in touching if s.start > piece.start)])
        length = longest_beginning(piece.text[covered:until], self._count, limit - 1, slack)
        return _part(piece, 0, covered + length) if length else None

    def _ending(self, piece: Piece, above: Stretch, limit: int, slack: int) -> Piece | None:
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
        around: dict[int, dict[int, Piece]] = {}
        ranked = sorted(self.stretches, key=lambda s: s.rank)
        for stretch in ranked:
            version, ordinals = stretch.lead.version_id, [piece.ordinal for piece in stretch.pieces]
            found = neighbours(version, max(0, min(ordinals) - settings.widen), max(ordinals) + settings.widen)
            pieces = {chunk.ordinal: piece_of(version, chunk) for chunk in found if chunk.chunk_id not in unwanted}
            around.setdefault(version, {}).update(pieces)
        for _ in range(settings.widen):
            for lead in [stretch.lead for stretch in ranked]:
                for step in (1, -1):
                    self._widen_one(lead, step, around[lead.version_id])

    def _widen_one(self, lead: Candidate, step: int, around: Mapping[int, Piece]) -> None:
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


def _reason(candidate: Candidate, touching: list[Stretch]) -> str:
    if not touching:
        return "fits"
    return "overlaps" if any(_overlap(stretch, candidate) for stretch in touching) else "adjacent"


def _overlap(stretch: Stretch, chunk: Candidate | Piece) -> bool:
    return stretch.start < chunk.end and chunk.start < stretch.end


def _holds(stretch: Stretch, chunk: Candidate | Piece) -> bool:
    return stretch.start <= chunk.start and chunk.end <= stretch.end


def _part(piece: Piece, start: int, end: int) -> Piece:
    return Piece(
        piece.chunk_id,
        piece.version_id,
        piece.ordinal,
        piece.start + start,
        piece.start + end,
        piece.text[start:end],
        piece.heading_path,
        piece.page,
    )


def _uncovered(piece: Piece, touching: list[Stretch]) -> list[str]:
    """The parts of the piece that no stretch holds yet. `touching` stands in the order of the text."""
    parts, reached = [], piece.start
    for stretch in touching:
        if stretch.start > reached:
            parts.append(piece.text[reached - piece.start : stretch.start - piece.start])
        reached = max(reached, stretch.end)
    if reached < piece.end:
        parts.append(piece.text[reached - piece.start :])
    return [part for part in parts if part]
