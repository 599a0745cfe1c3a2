"""A share of the questions that a store's live generation answers, asked of another one as well: how alike is what it
finds, and how long does it take.

That happens behind the answers. What a request searched for is noted while it runs, handed over once all of its answer
has been sent, and looked at by one thread; when more wait than `MOST_WAITING`, the next ones are left out and counted.
"""

from __future__ import annotations

import logging
import queue
import random
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from threading import Thread
from typing import Literal

from indexes.errors import RagError
from rag.access import Caller
from rag.backend import Backend, QuestionVectors
from rag.catalog import mirrored
from rag.catalog.mirrored import Comparison
from rag.catalog.records import Generation, Store
from rag.meters import Meters
from rag.retrieve import Retrieval, SearchOptions, retrieve
from rag.telemetry import Telemetry

MOST_WAITING = 64
BELIEVED = 2.0
"""Seconds for which it is taken for true which generations want questions."""
AT_ONCE = 50
"""Comparisons that are written together, at most."""
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    """What was searched for in one store, and what the live generation made of it."""

    caller: Caller
    store: Store
    text: str
    options: SearchOptions
    found: Retrieval


@dataclass(frozen=True)
class _Job:
    question: _Question
    generation: Generation


_asked: ContextVar[list[_Question] | None] = ContextVar("asked", default=None)
"""What the request at hand has searched for; None outside of one."""


def note(backend: Backend, stores: Sequence[Store], question: str, options: SearchOptions, found: Retrieval) -> None:
    """Remember a search until its request has ended. Only those of one store, and of its live generation, count."""
    asked = _asked.get()
    if asked is not None and len(stores) == 1 and options.generation is None:
        asked.append(_Question(backend.caller, stores[0], question, options, found))


class Mirroring:
    """The thread, and what waits for it. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._meters = backend.meters
        self._backend = backend.for_caller(backend.caller)
        # Nobody waits for what is done here: it is not to be seen among the times of those who are waited for.
        self._backend.meters, self._backend.telemetry = Meters(), Telemetry()
        self._backend.question_vectors = QuestionVectors(self._backend.meters)
        self._wanted: dict[int, list[Generation]] = {}
        self._looked = float("-inf")
        self._waiting: queue.Queue[_Job | Literal["look", "stop"]] = queue.Queue(MOST_WAITING)
        self._thread = Thread(target=self._work, name="mirroring", daemon=True)
        self._thread.start()

    @contextmanager
    def after(self) -> Iterator[None]:
        """Around a request: what it searches for is taken over when it has ended."""
        asked: list[_Question] = []
        token = _asked.set(asked)
        try:
            yield
        finally:
            _asked.reset(token)
            for question in asked:
                self._take(question)

    def look(self) -> None:
        """Find out which generations want questions, now rather than soon."""
        with self._backend.database.read() as connection:
            found = mirrored.wanting(connection)
        self._wanted = {store: [g for g in found if g.store_id == store] for store in {g.store_id for g in found}}

    def flush(self) -> None:
        """Wait until what was taken over is done."""
        self._waiting.join()

    def close(self) -> None:
        """Stop. What waits is left out. Idempotent."""
        while self._thread.is_alive():
            try:
                self._waiting.put("stop", timeout=0.1)
                break
            except queue.Full:
                self._drop()
        self._thread.join(STOP_SECONDS)

    def _drop(self) -> None:
        try:
            self._waiting.get_nowait()
            self._waiting.task_done()
        except queue.Empty:
            pass

    def _take(self, question: _Question) -> None:
        """Never waits and never asks the catalog: the event loop calls it."""
        if time.monotonic() - self._looked > BELIEVED:
            self._looked = time.monotonic()
            self._put("look")
        for generation in self._wanted.get(question.store.id, ()):
            if random.random() < generation.mirror_share and not self._put(_Job(question, generation)):  # noqa: S311
                self._meters.mirrored("dropped")

    def _put(self, item: _Job | Literal["look"]) -> bool:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            return False
        return True

    def _work(self) -> None:
        rows: list[Comparison] = []
        while (item := self._waiting.get()) != "stop":
            try:
                if isinstance(item, _Job):
                    rows.append(self._compared(item))
                else:
                    self.look()
                if rows and (self._waiting.empty() or len(rows) >= AT_ONCE):
                    kept, rows = rows, []
                    with self._backend.database.write(shared=True) as connection:
                        mirrored.add(connection, kept)
            except Exception as error:  # noqa: BLE001 - the catalog cannot be reached, say, and may be next time
                log.warning("what was mirrored is lost: %s", error)
            finally:
                self._waiting.task_done()

    def _compared(self, job: _Job) -> Comparison:
        asked, (live,) = job.question, job.question.found.generations
        options = replace(asked.options, generation=job.generation.public_id)
        known = Comparison(job.generation.id, live.id, live_ms=_milliseconds(asked.found))
        try:
            found = retrieve(self._backend.for_caller(asked.caller), [asked.store], asked.text, options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted
            log.warning("the generation %s did not answer: %s", job.generation.public_id, error)
            self._meters.mirrored("failed")
            return replace(known, error=error.code if isinstance(error, RagError) else "internal_error")
        self._meters.mirrored("compared")
        alike = live.chunk_set_id == job.generation.chunk_set_id
        same = overlap(_hits(asked.found, alike), _hits(found, alike))
        return replace(known, overlap=same, mirrored_ms=_milliseconds(found))


def overlap(one: AbstractSet[int], other: AbstractSet[int]) -> float:
    """The share of the larger set that is in the other one as well, in [0, 1]; two empty ones are alike.

    >>> overlap({1, 2, 3}, {3, 4, 1})
    0.6666666666666666
    """
    return len(one & other) / max(len(one), len(other)) if one or other else 1.0


def _hits(found: Retrieval, alike: bool) -> set[int]:
    """What was found: chunks where both generations have the same ones, else documents."""
    return {candidate.chunk_id if alike else candidate.document_id for candidate in found.candidates}


def _milliseconds(found: Retrieval) -> float:
    return 1000 * sum(found.timings.values())
