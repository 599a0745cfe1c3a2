"""Traces: how each answer came about, written down off its path.

What was said stands in a trace only where the settings ask for it (`traces.capture`): else numbers, ids and hashes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexes.errors import RagError, TryLater
from rag.access import Caller
from rag.catalog import answered, drift, responses, traces
from rag.catalog.database import Database
from rag.catalog.drift import Sampled
from rag.catalog.traces import Feedback, Trace
from rag.evaluation.feedback import thumb_of
from rag.evaluation.groundedness import check_answer
from rag.meters import Meters
from rag.settings import Settings

if TYPE_CHECKING:
    from rag.answer import Answer
    from rag.ask import Prepared
    from rag.backend import Backend

MOST_WAITING = 2_000
"""Traces that wait to be written, at most; what comes beyond is lost, and the log says so."""
BATCH = 200
GATHER_SECONDS = 0.5
"""For which a first trace waits for others to be written with it."""
RESTS = ((100, 39.0), (BATCH, 2.0))
"""How long the writer rests after working out a part of a trace, as a multiple of the time that it took, by how many
wait (fewer than so many); where more do, not at all. Whoever answers needs the interpreter meanwhile: a fortieth of
its time is taken while there is time, and what comes at once is worked out little by little."""
WRITE_SECONDS = 1.0
"""What is worked out is written after this, also where more waits."""
RETRY_SECONDS = 1.0
PRUNE_SECONDS = 600.0
FLUSH_SECONDS = 5.0
DAY = 86_400

Later = Callable[[], Mapping[str, Any]]
_Waiting = tuple[Mapping[str, Any], Later | None, Sequence[Sampled]]

log = logging.getLogger(__name__)


def trace_of(backend: Backend, prepared: Prepared, said: Answer | None, fault: BaseException | None) -> dict[str, Any]:
    """What is noted of one answer, or of a context where there is none. Scores as in `Candidate`, times in ms."""
    context, capture = prepared.context, backend.settings.traces.capture
    ledger = context.ledger
    timings = {**prepared.timings, **(said.timings if said else {}), "total": time.perf_counter() - prepared.started}
    body: dict[str, Any] = {
        "kind": prepared.kind,
        "otel_trace_id": prepared.otel_trace_id,
        "model": prepared.alias.name,
        "ab_tests": dict(prepared.arms),
        "prompt": {"id": context.prompt_id, "hash": context.prompt_hash},
        "generations": [
            {
                "id": generation.public_id,
                "embedder": generation.embedder,
                "build": generation.build,
                "space": backend.space(generation).fingerprint,
                "vector_index": generation.vector_index,
                "keyword_index": generation.keyword_index,
            }
            for generation in prepared.retrieval.generations
        ],
        "retrieved": _retrieved(prepared),
        "grounded": said.grounded if said else context.grounded,
        "tokens": {
            "window": ledger.window,
            "reserved": ledger.reserved_tokens,
            "base": ledger.base_tokens,
            "history": ledger.history_tokens,
            "prompt": ledger.prompt_tokens,
            "usage_prompt": said.usage.prompt_tokens if said else None,
            "usage_completion": said.usage.completion_tokens if said else None,
            "wording_prompt": prepared.wording.prompt_tokens if prepared.wording else None,
            "wording_completion": prepared.wording.completion_tokens if prepared.wording else None,
        },
        "query": _words(prepared.query, capture),
        "answer": _words(said.text, capture) if said else None,
        "finish_reason": said.finish_reason if said else None,
        "citations": [_citation(citation, capture) for citation in said.citations] if said else [],
        "removed_markers": len(said.removed_markers) if said else 0,
        "error": None if said else _fault(fault),
        "timings_ms": {name: round(seconds * 1000, 3) for name, seconds in timings.items()},
    }
    return body


def groundedness_of(prepared: Prepared, said: Answer | None, *, words: bool) -> dict[str, Any] | None:
    """Whether each sentence of an answer stands on its passages; None where nothing is claimed (no answer, an
    abstention) or the answer is JSON. Takes milliseconds, and so is worked out off an answer's path. Without `words`
    what is missing is told by its kinds alone."""
    if said is None or not prepared.context.grounded or prepared.sampling.response_format is not None:
        return None
    found = check_answer(prepared.context, said).to_json()
    for lack in (lack for sentence in found["details"] for lack in sentence["missing"]):
        lack["text"] = lack["text"] if words else None
    return found


def _retrieved(prepared: Prepared) -> list[dict[str, Any]]:
    """Every candidate in its rank, with what became of it and why."""
    fates = {entry.chunk_id: entry for entry in prepared.context.ledger.entries}
    return [
        {
            "rank": rank,
            "chunk_id": candidate.chunk_id,
            "file_id": candidate.file_id,
            "version_id": candidate.version_id,
            "vector_store_id": candidate.store_id,
            "dense": candidate.dense,
            "keyword": candidate.keyword,
            "fused": candidate.fused,
            "reranked": candidate.reranked,
            "relevance": candidate.relevance,
            "fate": fates[candidate.chunk_id].fate,
            "reason": fates[candidate.chunk_id].reason,
            "passage": fates[candidate.chunk_id].passage,
        }
        for rank, candidate in enumerate(prepared.retrieval.candidates, 1)
    ]


def _words(text: str, capture: bool) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"sha256": digest, "characters": len(text), "text": text if capture else None}


def _citation(citation: Any, capture: bool) -> dict[str, Any]:
    names = ("number", "file_id", "document_id", "version_id", "start", "end", "page", "marker_start", "marker_end")
    return {**{name: getattr(citation, name) for name in names}, "quote": citation.quote if capture else None}


def _fault(fault: BaseException | None) -> str | None:
    if fault is None:
        return None
    return fault.code if isinstance(fault, RagError) else "cancelled"


class TraceWriter:
    """Writes traces from a thread of its own and takes out old ones, and old stored responses. Safe to use from
    several threads."""

    def __init__(self, database: Database, settings: Settings, meters: Meters) -> None:
        self._database = database
        self._meters = meters
        self._settings = settings
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._hurried = 0
        """How many wait until everything is written."""
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._pruned_at = float("-inf")

    def submit(self, row: Mapping[str, Any], later: Later | None = None, vectors: Sequence[Sampled] = ()) -> None:
        """Let a trace be written soon. Never waits. `later` works out the rest of its body where that is written;
        `vectors` are the question's, for the sample of its day."""
        with self._changed:
            if self._closing or len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                self._meters.lost(1)
                return
            self._waiting.append((row, later, vectors))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until what was submitted is written, for a few seconds at most."""
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, FLUSH_SECONDS)
            self._hurried -= 1

    def close(self) -> None:
        """Write what waits, and stop. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(FLUSH_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                self._changed.wait_for(lambda: self._hurried or self._closing, GATHER_SECONDS)
                some = [self._waiting[at] for at in range(min(BATCH, len(self._waiting)))]
            self._tell_lost()
            rows = self._finish(some)
            written = self._write(rows, [one for *_, vectors in some[: len(rows)] for one in vectors])
            with self._changed:
                for at, row in enumerate(rows):
                    self._waiting[at] = row, None, some[at][2]
                for _ in range(len(rows) if written else 0):
                    self._waiting.popleft()
                self._changed.notify_all()
                if not written:
                    if self._closing:
                        return
                    self._changed.wait(RETRY_SECONDS)

    def _finish(self, some: Sequence[_Waiting]) -> list[Mapping[str, Any]]:
        """The rows of the first of them, with what was left to be worked out: as many as there is time for."""
        rows: list[Mapping[str, Any]] = []
        end = time.monotonic() + WRITE_SECONDS
        for row, later, _ in some:
            began = time.monotonic()
            rows.append(row if later is None else _with_rest(row, later))
            if later is not None:
                self._rest(time.monotonic() - began)
            if time.monotonic() > end:
                break
        return rows

    def _rest(self, spent: float) -> None:
        """Leave the interpreter to others for a multiple of the seconds spent, unless somebody waits or many traces."""
        with self._changed:
            multiple = next((multiple for fewer, multiple in RESTS if len(self._waiting) < fewer), 0.0)
            self._changed.wait_for(lambda: self._hurried or self._closing, multiple * spent)

    def _write(self, rows: list[Mapping[str, Any]], vectors: Sequence[Sampled]) -> bool:
        """Write some rows; False when that is to be tried again."""
        try:
            with self._database.write() as connection:
                traces.add_traces(connection, rows)
                if vectors:
                    drift.add_query_vectors(connection, vectors, int(time.time()) // DAY, self._settings.drift.queries)
            if time.monotonic() - self._pruned_at > PRUNE_SECONDS:
                self._pruned_at = time.monotonic()
                prune(self._database, self._settings)
        except TryLater as error:
            log.warning("traces are written later: %s", error)
            return False
        except Exception:  # what cannot be written must not stand in the way of the next ones
            log.exception("%d traces could not be written", len(rows))
            self._meters.lost(len(rows))
        return True

    def _tell_lost(self) -> None:
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost:
            log.warning("%d traces were lost: more came than could be written", lost)


def _with_rest(row: Mapping[str, Any], later: Later) -> Mapping[str, Any]:
    try:
        return {**row, "body": {**row["body"], **later()}}
    except Exception:  # what was to be added must not cost the trace
        log.exception("a part of a trace could not be worked out")
        return row


def prune(database: Database, settings: Settings) -> None:
    """Take out the traces and stored responses that are older, or more, than the settings keep."""
    now, kept = int(time.time()), settings.traces
    with database.write() as connection:
        traces.prune_traces(connection, now - int(kept.days * DAY), now - int(kept.judged_days * DAY), kept.most)
        responses.prune_responses(connection, now - int(settings.responses.days * DAY), settings.responses.most)
        drift.forget_vectors(connection, now // DAY - drift.VECTOR_DAYS)


def find_trace(backend: Backend, trace_id: str) -> tuple[Trace, list[Feedback]]:
    """A trace of this caller, and what was thought of it. Raises NotThere."""
    backend.traces.flush()
    with backend.database.read() as connection:
        trace = traces.get_trace(connection, backend.caller, trace_id)
        return trace, traces.feedback_of(connection, trace)


def give_feedback(
    backend: Backend, trace_id: str, body: Mapping[str, Any], idempotency_key: str | None = None
) -> Feedback:
    """Keep what somebody thought of an answer. Raises NotThere, and what `traces.add_feedback` raises."""
    backend.traces.flush()
    with backend.database.write() as connection:
        trace = traces.get_trace(connection, backend.caller, trace_id)
        given, new = traces.add_feedback(connection, backend.caller.tenant, trace, body, idempotency_key)
    if new:
        backend.meters.judged(body.get("source", "user"), thumb_of(body))
    return given


def row_of(caller: Caller, prepared: Prepared, body: Mapping[str, Any], *, capture: bool) -> dict[str, Any]:
    """A trace as it is written."""
    owner = answered.owner(caller, prepared.store_ids)
    used = {passage.document_id for passage in prepared.context.passages} if capture else set()
    return {
        **owner,
        "public_id": prepared.trace_id,
        "created_at": int(time.time()),
        "body": dict(body),
        "documents": sorted(used),
        "arms": dict(prepared.arms),
    }
