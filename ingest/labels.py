"""What the labels of questions name in a store: documents by number, and spans of their present texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from indexes.errors import ChangeRequest
from rag.backend import Backend
from rag.catalog import documents
from rag.catalog.documents import NamedText
from rag.catalog.records import Store
from rag.evaluation.questions import Label, Question
from rag.evaluation.spans import Span
from rag.retrieve import SearchOptions, retrieve

SHOWN = 5
"""Labels that name nothing which a report lists."""
LOOKED_THROUGH = 20
"""Chunks, the best by words, in whose documents a text is looked for that names none."""


@dataclass(frozen=True)
class Judged:
    """One question's labels in a store."""

    grades: Mapping[int, int]
    """By document number, the best one where there are several."""
    spans: Mapping[int, Sequence[Span]]
    """Of the labels above grade 0 that say where the answer stands."""


@dataclass(frozen=True)
class LeftOut:
    """Labels that name nothing in a store: no document, a text that does not stand in it, a span beyond its end."""

    labels: int
    first: tuple[str, ...]


@dataclass
class _Found:
    grades: dict[int, int] = field(default_factory=dict)
    spans: dict[int, list[Span]] = field(default_factory=dict)


def resolve(backend: Backend, store: Store, questions: Sequence[Question]) -> tuple[dict[str, Judged], LeftOut]:
    """The labels of each question, by its id, as they stand in a store.

    Raises ChangeRequest (`unknown_documents`) where there are labels and none of them names anything.
    """
    with backend.database.read() as connection:
        texts = documents.named_texts(connection, backend.caller, store)
    by_name = {name: one for one in texts for name in (one.answering_file_id, one.file_id, one.source) if name}
    by_number = {one.document_id: one for one in texts}
    judged: dict[str, Judged] = {}
    missing: list[str] = []
    total = 0
    for question in questions:
        found = _Found()
        for label in question.labels:
            total += 1
            named = _named(backend, store, label, by_name, by_number)
            if not _take(backend, named, label, found):
                missing.append(f"{question.id}: {label.document or label.text!r}")
        judged[question.id] = Judged(found.grades, found.spans)
    left_out = LeftOut(len(missing), tuple(missing[:SHOWN]))
    if total and total == len(missing):
        raise ChangeRequest(
            f"None of the {total:,} labels names anything in the vector store {store.name!r}: "
            f"{', '.join(left_out.first)}… A label names a document by its file id or source (`rag files`).",
            code="unknown_documents",
            param="question_set",
        )
    return judged, left_out


def _named(
    backend: Backend, store: Store, label: Label, by_name: Mapping[str, NamedText], by_number: Mapping[int, NamedText]
) -> list[NamedText]:
    """The documents in which a label may be met."""
    if label.document is not None:
        return [by_name[label.document]] if label.document in by_name else []
    options = SearchOptions(mode="keyword", limit=LOOKED_THROUGH)
    candidates = retrieve(backend, [store], str(label.text), options).candidates
    numbers = dict.fromkeys(candidate.document_id for candidate in candidates)
    return [by_number[number] for number in numbers if number in by_number]


def _take(backend: Backend, named: Sequence[NamedText], label: Label, found: _Found) -> bool:
    """Note what a label says of these documents. False where it says nothing of any."""
    for one in named:
        span = _span(backend, one, label)
        # Of a document whose text does not answer yet, or never will, the label counts as one that is not found.
        if span is None and one.text_blob is not None and (label.text is not None or label.start is not None):
            continue
        found.grades[one.document_id] = max(label.grade, found.grades.get(one.document_id, 0))
        if span is not None and label.grade > 0:
            found.spans.setdefault(one.document_id, []).append(span)
        return True
    return False


def _span(backend: Backend, named: NamedText, label: Label) -> Span | None:
    if named.text_blob is None or named.characters is None:
        return None
    if label.text is not None:
        return find_text(backend.texts.read(named.text_blob), label.text)
    if label.start is None or label.end is None or label.end > named.characters:
        return None
    return label.start, label.end


def find_text(text: str, sought: str) -> Span | None:
    """Where a text first stands in another, white space aside; None where it does not."""
    at = text.find(sought)
    if at >= 0:
        return at, at + len(sought)
    found = re.search(r"\s+".join(map(re.escape, sought.split())), text)
    return found.span() if found else None
