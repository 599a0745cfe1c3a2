"""The sentences of an answer with the citations of each."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.segments import Kind, segments

_MARKER = re.compile(r"\[(\d{1,4})\](?!\()")


@dataclass(frozen=True)
class Marker:
    """A citation in an answer: `answer[start:end]` names a passage."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Claim:
    """A sentence, list item, table row or piece of code of an answer, `answer[start:end]`."""

    start: int
    end: int
    kind: Kind
    text: str
    """Without the markers in it."""
    cited: tuple[int, ...]
    """The numbers that it cites, each once, in order, also of passages that are not there."""


def markers_in(answer: str) -> list[Marker]:
    """Every `[n]` of a text. Where a text quotes brackets of its documents, these are among them."""
    return [Marker(int(found[1]), found.start(), found.end()) for found in _MARKER.finditer(answer)]


def claims(answer: str, markers: Sequence[Marker] | None = None) -> list[Claim]:
    """What an answer claims, in order; headings and questions claim nothing.

    `markers` are its citations in order; None takes `markers_in`. A marker belongs to the sentence that it stands in or
    behind, and at the beginning of a line to the one that follows.
    """
    markers = markers_in(answer) if markers is None else markers
    bare = _without(answer, markers)
    parts = segments(bare)
    starts = [part.start for part in parts]
    cited: list[list[int]] = [[] for _ in parts]
    for marker in markers:
        at = bisect_right(starts, marker.start) - 1
        following = at + 1 < len(parts) and (at < 0 or "\n" in bare[parts[at].end : marker.start])
        if parts:
            cited[at + following].append(marker.number)
    return [
        Claim(part.start, part.end, part.kind, text, tuple(dict.fromkeys(numbers)))
        for part, numbers in zip(parts, cited, strict=True)
        if part.kind != "heading" and not (text := bare[part.start : part.end]).endswith(("?", "？", "؟"))
    ]


def _without(answer: str, markers: Sequence[Marker]) -> str:
    """The answer with blanks for its markers, so that every place stays where it is."""
    return "".join(_pieces(answer, markers))


def _pieces(answer: str, markers: Sequence[Marker]) -> Iterator[str]:
    at = 0
    for marker in markers:
        yield answer[at : marker.start]
        yield " " * (marker.end - marker.start)
        at = marker.end
    yield answer[at:]
