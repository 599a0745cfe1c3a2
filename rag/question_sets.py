"""Question sets as their owners keep them: made, versioned, listed, written out, and begun from feedback."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from indexes.errors import ChangeRequest
from rag.backend import Backend
from rag.catalog import documents, question_sets, traces
from rag.catalog.question_sets import QuestionSet
from rag.catalog.records import Page, PageRequest, Store
from rag.evaluation.feedback import Candidates, candidates
from rag.evaluation.questions import DEV_SHARE, Question, Split, as_line, read_lines

_ID = re.compile(r"qs_[0-9a-f]{24}")


def create(backend: Backend, name: str, lines: Iterable[str | bytes], dev_share: float = DEV_SHARE) -> QuestionSet:
    """Keep JSON lines as a set, or as the next version of the one of this name.

    Raises what `read_lines` raises, and ChangeRequest (`invalid_value`) for a name that looks like an id or a version.
    """
    if "@" in name or _ID.fullmatch(name) or not name.strip() or "\0" in name:
        raise ChangeRequest(
            f"The name {name!r} cannot be a question set's: it is not empty, has no @ and looks like no id.",
            code="invalid_value",
            param="name",
        )
    questions = read_lines(lines, dev_share)
    with backend.database.write() as connection:
        return question_sets.add_set(connection, backend.caller.tenant, name, questions, dev_share)


def find(backend: Backend, name: str) -> QuestionSet:
    """A version by id, as name@version, or the newest one of a name. Raises NotThere."""
    with backend.database.read() as connection:
        return question_sets.get_set(connection, backend.caller.tenant, name)


def list_sets(backend: Backend, page: PageRequest) -> Page[QuestionSet]:
    """All versions of all sets, one page of them. Raises ChangeRequest (`bad_cursor`)."""
    with backend.database.read() as connection:
        return question_sets.list_sets(connection, backend.caller.tenant, page)


def delete(backend: Backend, name: str) -> QuestionSet:
    """Forget a version. Raises NotThere."""
    with backend.database.write() as connection:
        found = question_sets.get_set(connection, backend.caller.tenant, name)
        question_sets.delete_set(connection, found)
        return found


def read(backend: Backend, question_set: QuestionSet, split: Split | None = None) -> list[Question]:
    """The questions of a version, or of one of its splits."""
    with backend.database.read() as connection:
        return question_sets.read_questions(connection, question_set, split)


def export(backend: Backend, question_set: QuestionSet) -> Iterator[str]:
    """A version as JSON lines, with line breaks."""
    return (as_line(question) + "\n" for question in read(backend, question_set))


def from_feedback(backend: Backend, store: Store) -> Candidates:
    """Candidates out of what was thought of answers from this store."""
    backend.traces.flush()
    caller = backend.caller
    with backend.database.read() as connection:
        named = documents.named_texts(connection, caller, store)
        sources = {file: one.source for one in named for file in (one.file_id, one.answering_file_id) if file}
        judged = traces.judged_traces(connection, caller.tenant, store.id)
        rows = ((trace.public_id, trace.body, [one.body for one in said]) for trace, said in judged)
        return candidates(rows, sources, DEV_SHARE)
