"""A retrieval set in BEIR's form, taken in by the real pipeline and asked its questions.

Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models", 2021.
A folder holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels.tsv` or
`qrels/test.tsv` (a header, then query, document and grade between tabs).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from indexes.errors import ChangeRequest, RagError, TryLater
from ingest import intake
from ingest.runner import Runner
from rag.backend import Backend
from rag.catalog import documents, files, schema, stores
from rag.catalog.records import Store
from rag.evaluation.rankings import Measured, measure
from rag.retrieve import Mode, SearchOptions, retrieve
from rag.settings import Settings

MEASURES = ("nDCG@10", "R@100", "RR@10")
DOCUMENTS_PER_QUERY = 100
_GROUP = 128
_START_SECONDS = 120.0
_STALL_SECONDS = 900.0
_LOOK_EVERY = 0.1

Progress = Callable[[str, int, int], None]
"""Told the stage (`ingest`, `query`), how much of it is done and how much there is."""


@dataclass(frozen=True)
class CorpusLine:
    """One document of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Dataset:
    """A corpus, its questions by id, and the grades of the judged documents by question and document."""

    name: str
    corpus: tuple[CorpusLine, ...]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    left_out: int
    """Judgements of questions that the set does not hold."""


@dataclass(frozen=True)
class IngestFigures:
    """What taking in a corpus came to; `seconds` from the first file to the last published document."""

    documents: int
    completed: int
    failed: Mapping[str, int]
    """Documents that ended in an error, by its code."""
    chunks: int
    embedded: int
    """Vectors computed."""
    embedded_tokens: int
    seconds: float


@dataclass(frozen=True)
class QueryFigures:
    """Milliseconds of a query as a user makes it (the configured number of hits), whole and without its embedding."""

    p50: float
    p95: float
    p50_beyond_embedding: float
    p95_beyond_embedding: float


@dataclass(frozen=True)
class BeirReport:
    """The outcome of one run."""

    dataset: str
    embedder: str
    mode: str
    measured: Measured
    ingest: IngestFigures
    query: QueryFigures
    left_out: int
    """Judgements of questions that the set does not hold."""


def run_beir(
    settings: Settings,
    dataset: Dataset,
    *,
    embedder: str | None = None,
    mode: Mode | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> BeirReport:
    """Take a corpus into a new store of the data folder in `settings`, then ask and judge every question.

    Raises what opening the folder or the embedder raises, and TryLater when ingestion comes to a standstill.
    """
    backend = Backend(settings)
    try:
        with closing(Runner(backend)) as runner:
            store = intake.create_store(backend, dataset.name, embedder=embedder)
            if not runner.ready.wait(_START_SECONDS):
                raise TryLater("The jobs did not start; the log says why.", code="jobs_not_running")
            taken = ingest_corpus(backend, store, dataset.corpus, progress)
        run, figures = ask_all(backend, store, dataset, mode, progress)
        model = backend.space(backend.live_generation(store)).model
    finally:
        asyncio.run(backend.close())
    measured = measure(run, dataset.qrels, MEASURES)
    return BeirReport(dataset.name, model, mode or settings.retrieval.mode, measured, taken, figures, dataset.left_out)


# ---- reading ----------------------------------------------------------------------------------------------------


def read_beir(folder: Path, limit_documents: int | None = None) -> Dataset:
    """Read a folder; with a limit only the first documents, and the questions that these can answer.

    Cut-down sets often keep every judgement: those of questions that are not there are left out.

    Raises ChangeRequest (`bad_dataset`) naming the file and the line.
    """
    if not folder.is_dir():
        raise _bad(f"There is no folder {folder}")
    corpus: dict[str, CorpusLine] = {}
    for where, row in _json_lines(folder / "corpus.jsonl"):
        line = CorpusLine(_field(row, "_id", where), _field(row, "title", where, ""), _field(row, "text", where))
        if corpus.setdefault(line.id, line) is not line:
            raise _bad(f"{where} repeats the id {line.id!r}")
        if len(corpus) == limit_documents:
            break
    queries = {_field(row, "_id", at): _field(row, "text", at) for at, row in _json_lines(folder / "queries.jsonl")}
    kept = corpus.keys() if limit_documents else None
    qrels, left_out = _read_qrels(folder, queries, kept)
    if not corpus or not qrels:
        raise _bad(f"{folder} has {len(corpus)} documents and {len(qrels)} questions with a relevant one among them")
    return Dataset(
        folder.resolve().name, tuple(corpus.values()), {query: queries[query] for query in qrels}, qrels, left_out
    )


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for where, text in _lines(path):
        try:
            row = json.loads(text)
        except ValueError as error:
            raise _bad(f"{where} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise _bad(f"{where} is not a JSON object")
        yield where, row


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield f"{path}, line {number}", text.rstrip("\n")
    except FileNotFoundError as error:
        raise _bad(f"There is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"{path} cannot be read ({error})") from error


def _field(row: Mapping[str, object], name: str, where: str, default: str | None = None) -> str:
    value = row.get(name, default)
    if not isinstance(value, str) or (name == "_id" and not value):
        raise _bad(f"{where} has no text in {name!r}")
    return value


def _read_qrels(
    folder: Path, queries: Container[str], kept: Container[str] | None
) -> tuple[dict[str, dict[str, int]], int]:
    """Grades of the questions that have a relevant document, without those of documents that are not kept; and how many
    judgements were left out because their question is not there."""
    path = folder / "qrels.tsv"
    path = path if path.exists() else folder / "qrels" / "test.tsv"
    qrels: dict[str, dict[str, int]] = {}
    left_out = 0
    for number, (where, text) in enumerate(_lines(path)):
        cells = text.split("\t")
        if number == 0 and cells[-1].strip() == "score":
            continue
        if len(cells) != 3 or not cells[2].strip().lstrip("-").isdecimal():
            raise _bad(f"{where} is not a question, a document and a whole number between tabs")
        query, document, grade = cells[0], cells[1], int(cells[2])
        if query not in queries:
            left_out += 1
        elif kept is None or document in kept:
            qrels.setdefault(query, {})[document] = grade
    return {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}, left_out


def _bad(what: str) -> ChangeRequest:
    return ChangeRequest(
        f"{what}. A folder in BEIR's form holds corpus.jsonl, queries.jsonl and qrels.tsv.", code="bad_dataset"
    )


# ---- taking in --------------------------------------------------------------------------------------------------


def as_original(line: CorpusLine) -> tuple[str, bytes]:
    """A corpus line as a file that an author might have written: its name and its bytes.

    Markdown is kept as it is by its loader, and its first heading is the document's title. Without a title, plain text.
    """
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in line.id)[:100]
    title = " ".join(line.title.split())
    if not title:
        return f"{name}.txt", line.text.encode("utf-8", "replace")
    return f"{name}.md", f"# {title}\n\n{line.text}\n".encode("utf-8", "replace")


def ingest_corpus(backend: Backend, store: Store, corpus: Sequence[CorpusLine], progress: Progress) -> IngestFigures:
    """Put every line into the store, one document each with the line's id as its source, and wait for the end.

    The jobs must be running. Raises TryLater (`stalled`) when nothing moves for a quarter of an hour.
    """
    started = time.perf_counter()
    for start in range(0, len(corpus), _GROUP):
        _put(backend, store, corpus[start : start + _GROUP])
        progress("ingest", _ended(backend, store), len(corpus))
    _await_end(backend, store, lambda done: progress("ingest", done, len(corpus)))
    return _figures(backend, store, time.perf_counter() - started)


def _put(backend: Backend, store: Store, lines: Sequence[CorpusLine]) -> None:
    originals = [as_original(line) for line in lines]
    blobs = [backend.blobs.put([data]) for _, data in originals]
    with backend.database.write() as connection:
        for line, (name, _), blob in zip(lines, originals, blobs, strict=True):
            file = files.add_file(connection, backend.caller, name, "assistants", blob)
            documents.put_document(connection, backend.caller, store, file, line.id, None)
    backend.work_waiting.set()


def _ended(backend: Backend, store: Store) -> int:
    with backend.database.read() as connection:
        counts = stores.count_documents(connection, backend.caller, [store.id])[store.id]
    return counts.total - counts.in_progress


def _await_end(backend: Backend, store: Store, tell: Callable[[int], None]) -> None:
    state, moved = (-1, -1), time.monotonic()
    while True:
        ended = _ended(backend, store)
        tell(ended)
        with backend.database.read() as connection:
            waiting = documents.count_waiting(connection)
            vectors = connection.execute(sa.select(sa.func.sum(schema.documents.c.embedded))).scalar() or 0
        if not waiting:
            return
        if (ended, vectors) != state:
            state, moved = (ended, vectors), time.monotonic()
        if time.monotonic() - moved > _STALL_SECONDS:
            raise TryLater(f"Ingestion stands still with {waiting} documents to go.", code="stalled")
        time.sleep(_LOOK_EVERY)


def _figures(backend: Backend, store: Store, seconds: float) -> IngestFigures:
    rows = schema.documents.c
    total = sa.func.sum
    sums = sa.select(sa.func.count(), total(rows.chunks_total), total(rows.embedded), total(rows.embedded_tokens))
    errors = sa.select(rows.error_code, sa.func.count()).where(rows.store_id == store.id, rows.state == "failed")
    with backend.database.read() as connection:
        count, chunks, embedded, tokens = connection.execute(sums.where(rows.store_id == store.id)).one()
        completed = stores.count_documents(connection, backend.caller, [store.id])[store.id].completed
        failed = {str(code): number for code, number in connection.execute(errors.group_by(rows.error_code))}
    return IngestFigures(count, completed, failed, chunks or 0, embedded or 0, tokens or 0, seconds)


# ---- asking -----------------------------------------------------------------------------------------------------


def ask_all(
    backend: Backend, store: Store, dataset: Dataset, mode: Mode | None, progress: Progress
) -> tuple[dict[str, list[str]], QueryFigures]:
    """Every question's documents, best first by their best chunk, at most 100; and how long a query took."""
    names = _names(backend, store)
    options = SearchOptions(mode=mode)
    retrieve(backend, [store], "Warm up: open the view, load the model.", options)
    run: dict[str, list[str]] = {}
    whole, beyond = [], []
    for query, text in dataset.queries.items():
        started = time.perf_counter()
        try:
            timings = retrieve(backend, [store], text, options).timings
        except ChangeRequest as error:
            raise _about(query, error) from error
        spent = time.perf_counter() - started
        whole.append(spent * 1000)
        beyond.append((spent - timings.get("embed", 0.0)) * 1000)
        run[query] = [names[number] for number in rank_documents(backend, store, text, options, DOCUMENTS_PER_QUERY)]
        progress("query", len(run), len(dataset.queries))
    return run, QueryFigures(*np.percentile(whole, [50, 95]).tolist(), *np.percentile(beyond, [50, 95]).tolist())


def rank_documents(backend: Backend, store: Store, question: str, options: SearchOptions, most: int) -> list[int]:
    """Document numbers by their best chunk, best first: chunks are fetched until there are `most` or no more come."""
    limit = most
    while True:
        deeper = replace(options, limit=limit, depth=limit)
        candidates = retrieve(backend, [store], question, deeper).candidates
        ranked = list(dict.fromkeys(candidate.document_id for candidate in candidates))
        if len(ranked) >= most or len(candidates) < limit:
            return ranked[:most]
        limit *= 2


def _names(backend: Backend, store: Store) -> dict[int, str]:
    rows = schema.documents.c
    with backend.database.read() as connection:
        query = sa.select(rows.id, rows.source).where(rows.store_id == store.id)
        return {int(number): str(source) for number, source in connection.execute(query)}


def _about(query: str, error: RagError) -> ChangeRequest:
    return ChangeRequest(f"The question {query!r} of the set cannot be asked: {error.message}", code="bad_dataset")
