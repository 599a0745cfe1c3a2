"""Citations: the `[n]` in an answer, checked while it streams and traced to the passages.

Whatever a model writes for a marker (`[1, 3]`, `[1-3]`, `【1】`, `[^1]`, `[1†source]`) leaves as plain `[1]`; a number
that no passage has is taken out and reported. Brackets in code and ordinary ones (`[x]`, `[note 1]`) are left alone,
and so are those of a stretch that the model says it quotes. Links are looked at by `rag.guard` on the way.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rag.context import Passage
from rag.guard import LinkGuard, Piece
from rag.models import Quote


@dataclass(frozen=True)
class Citation:
    """One marker of an answer and the stretch of a document that it stands for.

    `answer[marker_start:marker_end] == f"[{number}]"` and `document_text[start:end] == quote`, both in characters. The
    quote is what the answer repeats word for word in front of the marker, or else the whole passage.
    """

    number: int
    marker_start: int
    marker_end: int
    document_id: int
    version_id: int
    store_id: str
    file_id: str
    filename: str
    title: str
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    quote: str


@dataclass(frozen=True)
class RemovedMarker:
    """A marker, as the model wrote it, that names at least one passage that is not there."""

    raw: str
    position: int
    """Where it would have stood in the answer."""


_NUMERALS = "\\d\u00b2\u00b3\u00b9\u2070-\u209c\u2460-\u24ff"
_BODY = rf"\^?[{_NUMERALS} \t,;&–—-]{{0,60}}(?:†[^\[\]【】\n]{{0,80}})?"
_OPEN = re.compile(r"[ \t]?[\[【]")
_MARKER = re.compile(rf"[ \t]?[\[【](?P<body>{_BODY})[\]】]")
_UNFINISHED = re.compile(rf"[ \t]?(?:[\[【]{_BODY})?")
_ITEM = re.compile(r"(\d+)(?:[-–—](\d+))?")
_BETWEEN = re.compile(r"[\s,;&]+")

LONGEST_CLAIM = 2000
"""Characters before a marker that are compared with its passage."""
SHORTEST_CLAIM = 10
"""Characters, white space aside, below which a repetition may be chance."""


class CitationFilter:
    """Stands between the model's stream and the reader; what it lets through is the answer."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.citations: list[Citation] = []
        """The markers let through so far, in order."""
        self.removed: list[RemovedMarker] = []
        self._passages = {passage.number: passage for passage in passages}
        self._known = "\n".join(passage.text for passage in passages)
        self._guard = LinkGuard([self._known])
        self._quoted: tuple[int, Quote] | None = None
        """Where in the answer the last quote begins, and what it is."""
        self._held = ""
        self._gap = (
            False  # a marker was taken out right before: what follows must not grow together with what was there
        )
        self._out: list[str] = []
        self._length = 0
        self._tail = ""
        self._claim_start = 0
        self._claim_end = 0

    def feed(self, text: str, quote: Quote | None = None) -> str:
        """Take the next piece of the stream; give what may go out, which may be nothing. With `quote`, it is that."""
        if quote is None:
            return self._take(self._guard.feed(text))
        before = self.finish()
        self._quoted = self._length, quote
        guard = LinkGuard([self._known], quoted=True)
        for piece in (*guard.feed(text), *guard.finish()):
            self._emit(piece.text)
        return before + self._given()

    def finish(self) -> str:
        """The stream, or a part that stands by itself, has ended: give the rest."""
        text = self._take(self._guard.finish())
        self._guard = LinkGuard([self._known])
        self._prose("", final=True)
        return text + self._given()

    def _take(self, pieces: Sequence[Piece]) -> str:
        for piece in pieces:
            if piece.code:
                self._prose("", final=True)
                self._emit(piece.text)
            else:
                self._prose(piece.text, final=False)
        return self._given()

    def _given(self) -> str:
        given = "".join(self._out)
        self._out.clear()
        return given

    def _prose(self, text: str, final: bool) -> None:
        data, at = self._held + text, 0
        self._held = ""
        while at < len(data):
            opening = _OPEN.search(data, at)
            upto = opening.start() if opening else len(data) - (not final and data[-1] in " \t")
            if upto > at:
                if self._gap and not final and at == len(data) - 1 and data[at] in ".,;:!?)":
                    break
                self._emit(data[at:upto])
                at = upto
                continue
            if not final and _UNFINISHED.fullmatch(data, at):
                break
            if opening is None:
                continue
            marker = _MARKER.match(data, at)
            if marker is not None and self._mark(marker):
                at = marker.end()
            else:
                self._emit(opening.group())
                at = opening.end()
        self._held = data[at:]

    def _mark(self, marker: re.Match[str]) -> bool:
        """Put out the marker's valid numbers. False when it is an ordinary bracket after all."""
        wanted = _numbers(marker["body"], len(self._passages))
        if wanted is None:
            return False
        numbers, complete = wanted
        valid = [number for number in numbers if number in self._passages]
        raw = marker.group()
        if not complete or len(valid) < len(numbers):
            self.removed.append(RemovedMarker(raw.lstrip(), self._length))
        if not valid:
            self._gap = True
            return True
        self._emit(raw[: len(raw) - len(raw.lstrip())])
        claim = self._claim()
        for number in valid:
            self._cite(self._passages[number], claim)
        return True

    def _cite(self, passage: Passage, claim: str) -> None:
        marker = f"[{passage.number}]"
        self._emit(marker)
        self._claim_end = self._length
        first, last = self._stretch(passage, claim)
        self.citations.append(
            Citation(
                number=passage.number,
                marker_start=self._length - len(marker),
                marker_end=self._length,
                document_id=passage.document_id,
                version_id=passage.version_id,
                store_id=passage.store_id,
                file_id=passage.file_id,
                filename=passage.filename,
                title=passage.title,
                start=passage.start + first,
                end=passage.start + last,
                page=passage.page,
                heading_path=passage.heading_path,
                quote=passage.text[first:last],
            )
        )

    def _stretch(self, passage: Passage, claim: str) -> tuple[int, int]:
        """What of the passage a marker after `claim` stands for."""
        at, quote = self._quoted or (-1, None)
        if quote is not None and quote.passage.number == passage.number and at >= self._claim_start:
            return quote.start, quote.end
        return find_quote(claim, passage.text) or (0, len(passage.text))

    def _claim(self) -> str:
        """What was said since the last marker; for `[1][2]` the second stands for the same words as the first."""
        since = (
            self._tail[len(self._tail) - (self._length - self._claim_end) :] if self._length > self._claim_end else ""
        )
        if since.strip():
            self._claim_start = self._claim_end
        length = min(self._length - self._claim_start, len(self._tail))
        return re.sub(r"(?:[ \t]?\[\d+\])+$", "", self._tail[len(self._tail) - length :].rstrip())

    def _emit(self, text: str) -> None:
        if not text:
            return
        if self._gap and self._grows_together(text):
            text = " " + text
        self._gap = False
        self._out.append(text)
        self._length += len(text)
        self._tail = (self._tail + text)[-LONGEST_CLAIM:]

    def _grows_together(self, text: str) -> bool:
        """Would the end of the answer and `text` read as one word, now that the marker between them is gone?"""
        if not self._tail or self._tail[-1].isspace() or text[0].isspace():
            return False
        return not (text[0] in ".,;:!?)" and (len(text) == 1 or text[1].isspace()))


def _numbers(body: str, most: int) -> tuple[list[int], bool] | None:
    """The distinct numbers that a marker names, in order, and whether that is all it names; None when it is no marker.

    >>> _numbers("1, 3-4†source", 9)
    ([1, 3, 4], True)
    >>> _numbers("2024-05-01", 9) is None
    True
    """
    listed = body.lstrip("^").partition("†")[0].strip(" \t,;&")
    if not re.search(f"[{_NUMERALS}]", listed):
        return None
    numbers: list[int] = []
    complete = True
    for item in _BETWEEN.split(re.sub(r"[ \t]*([-–—])[ \t]*", r"\1", listed)):
        match = _ITEM.fullmatch(item)
        if match is None:
            if re.search(r"[-–—]", item):
                return None
            complete = False
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        complete &= 1 <= first <= last <= most
        numbers += range(max(first, 1), min(last, most) + 1)
    return list(dict.fromkeys(numbers)), complete


# ---- the words before a marker, found again in the passage -----------------------------------------------------------

_COMPARED = re.compile(r"(?P<skipped>\s+|\[\^?\d[\d\s,;–-]*\]|【[^】\n]{0,80}】)|&lt;|.")
_LEAD = re.compile(r"^(?:[-*+•>#\s]|\d{1,3}[.)]\s)+")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")


def find_quote(claim: str, passage: str) -> tuple[int, int] | None:
    """Where `passage` says `claim` verbatim: the whole of it, or its last paragraph, line or sentence.

    White space, invisible characters and the document's own `[n]` are not compared, and `&lt;` is `<`: where the
    guard makes a text harmless, it adds blanks and escapes. None when nothing is repeated.

    >>> find_quote('Also: "the port is 8000."', "By default the  port is 8000.")
    """
    text, spans = _comparable(passage)
    for words in _readings(claim):
        wanted, _ = _comparable(words)
        if len(wanted) < SHORTEST_CLAIM:
            continue
        at = text.find(wanted)
        if at >= 0:
            return spans[at][0], spans[at + len(wanted) - 1][1]
    return None


def _readings(claim: str) -> list[str]:
    """The claim whole, then shorter and shorter parts of its end."""
    whole = claim.strip()
    paragraph = re.split(r"\n[ \t]*\n", whole)[-1]
    line = whole.rpartition("\n")[2]
    sentence = _SENTENCE.split(paragraph)[-1]
    readings = []
    for words in (whole, paragraph, line, sentence):
        bare = _LEAD.sub("", words).strip()
        readings += [words, bare, bare.strip("\"'“”„«»‘’「」*_").strip()]
    return list(dict.fromkeys(words for words in readings if words))


def _comparable(text: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` as it is compared, and the span that each character of it comes from."""
    letters: list[str] = []
    spans: list[tuple[int, int]] = []
    for found in _COMPARED.finditer(text):
        letter = "<" if found.group() == "&lt;" else found.group()
        if found["skipped"] is None and (letter.isascii() or unicodedata.category(letter) != "Cf"):
            letters.append(letter)
            spans.append(found.span())
    return "".join(letters), spans
