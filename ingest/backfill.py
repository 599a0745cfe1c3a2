"""Filling generations that are not live: what a new one lacks of what is there, and what the others lack of what came.

Both are one thing. A generation is filled up to a number of its store's change log; a step makes what is missing of the
next documents behind that number and moves it on. One worker at a time fills a generation. What it has made is there
whatever becomes of it, and is not made again.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from threading import Event

from sqlalchemy.engine import Connection

from indexes.errors import RagError, TryLater
from ingest import indexing
from ingest.filling import Made, Manner, embed_missing, split_missing
from ingest.pipeline import Stopped
from rag.backend import Backend
from rag.catalog import generations, purge
from rag.catalog.records import FOLLOWING, Generation, Stretch
from rag.remote import is_remote

VERSIONS_AT_ONCE, CHARACTERS_AT_ONCE = 32, 50_000
"""Of documents, in one step."""
TURN_SECONDS = 5.0
"""After which a step ends in the middle of a long document; the next one goes on there."""
EMBED_AT_ONCE = 32
"""Texts between two looks at whether somebody's upload waits."""
PATIENCE = 1.0
"""Seconds for which each of these batches lets uploads that are being embedded go first: never for ever."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a generation whose embedder or engine was out of reach is tried again; doubled each time."""
SMOOTHING = 0.3
"""The weight of the last step in the rate that is told."""

log = logging.getLogger(__name__)


class _Over(Exception):
    """The turn is over: others wait, or the generation is no longer ours to fill (paused, promoted, retired, another
    worker's)."""


class Backfill:
    """Fills the generations that lack something, in turn, and empties those that were retired."""

    def __init__(
        self, backend: Backend, worker: Callable[[], int], uploading: Callable[[], bool], stopping: Event
    ) -> None:
        """`worker` is our number among the workers now, `uploading` whether live documents are being embedded here."""
        self._backend = backend
        self._worker = worker
        self._uploading = uploading
        self._stopping = stopping
        self._served: dict[int, float] = {}
        """When each generation had its last turn."""
        self._waits: dict[int, tuple[float, float]] = {}
        """Of a generation that could not be filled: until when it waits, and for how long it did."""
        self._in_order: set[int] = set()
        """Generations whose embedder has shown that its rows are in the order of the texts."""
        self._emptied = 0, 0
        """The retired generation that is being emptied, and its last version that was."""

    def step(self) -> bool:
        """Fill one generation a little. False when none lacks anything.

        Raises Stopped when this process is to end, and what the catalog does.
        """
        generation = self._next()
        if generation is None:
            return False
        self._served[generation.id] = time.monotonic()
        try:
            self._fill(generation)
        except (_Over, Stopped):
            pass
        except TryLater as error:
            self._wait(generation, error)
        except RagError as error:
            self._fail(generation, error)
        except Exception:  # whatever one does, the others are filled and it ends
            log.exception("filling the generation %s failed", generation.public_id)
            self._fail(generation, UNEXPECTED)
        else:
            self._waits.pop(generation.id, None)
        return True

    def empty_step(self) -> bool:
        """Remove a little of what only a retired generation used. False when there is none."""
        with self._backend.database.read() as connection:
            generation = generations.to_empty(connection)
        if generation is None:
            return False
        number, after = self._emptied
        if number != generation.id:
            after = 0
            self._forget_points(generation)
        with self._backend.database.write() as connection:
            last = purge.empty_page(connection, generation, after)
            if last is None:
                generations.note_emptied(connection, generation)
        self._emptied = generation.id, last or 0
        return True

    def _next(self) -> Generation | None:
        """Whose turn it is: the one that had none for longest."""
        with self._backend.database.read() as connection:
            lacking = generations.lacking(connection, self._worker())
        now = time.monotonic()
        lacking = [found for found in lacking if self._waits.get(found.id, (0.0, 0.0))[0] <= now]
        return min(lacking, key=lambda found: self._served.get(found.id, 0.0), default=None)

    def _fill(self, generation: Generation) -> None:
        worker, began = self._worker(), time.monotonic()
        if generation.worker_id != worker:
            with self._backend.database.write(shared=True) as connection:
                taken = generations.take(connection, generation, worker)
            if taken is None:
                raise _Over
            generation = taken
        if is_remote(generation) and generation.filled_through == 0:
            # It may hold what it was given before it failed, and was not told to forget since.
            indexing.reconcile(self._backend, generation)
        with self._backend.database.read() as connection:
            stretch = generations.next_stretch(connection, generation, VERSIONS_AT_ONCE, CHARACTERS_AT_ONCE)
        if stretch.version_ids:
            self._make(generation, worker, stretch)
        rate = self._rate(generation, stretch, time.monotonic() - began)
        with self._backend.database.write(shared=True) as connection:
            if not generations.advance(connection, generation, worker, stretch, rate):
                raise _Over

    def _make(self, generation: Generation, worker: int, stretch: Stretch) -> None:
        def require_held(connection: Connection, _made: Made) -> None:
            if not generations.is_held(connection, generation, worker):
                raise _Over

        embedder = self._backend.embedder(generation)
        manner = Manner(self._borders(), require_held, EMBED_AT_ONCE, generation.id not in self._in_order)
        split_missing(self._backend, generation, embedder, stretch.version_ids, manner)
        if embed_missing(self._backend, generation, embedder, stretch.version_ids, manner):
            self._in_order.add(generation.id)
        indexing.write_versions(self._backend, generation, stretch.version_ids, coming=False)

    def _borders(self) -> Callable[[], None]:
        """What is done between two pieces of a step: uploads go first; and a step that is long goes on later, once it
        has done something."""
        over = time.monotonic() + TURN_SECONDS
        pieces = itertools.count()

        def border() -> None:
            if next(pieces) and time.monotonic() > over:
                raise _Over
            self._give_way()

        return border

    def _give_way(self) -> None:
        """Let uploads go first, for a while."""
        until = time.monotonic() + PATIENCE
        while not self._stopping.is_set() and self._uploading() and time.monotonic() < until:
            time.sleep(0.01)
        if self._stopping.is_set():
            raise Stopped

    def _rate(self, generation: Generation, stretch: Stretch, seconds: float) -> float | None:
        """Characters per second of late; None where this step does not tell."""
        if not stretch.characters:
            return None
        now, before = stretch.characters / max(seconds, 1e-6), generation.characters_per_second
        return now if before is None else SMOOTHING * now + (1 - SMOOTHING) * before

    def _wait(self, generation: Generation, error: TryLater) -> None:
        _, waited = self._waits.get(generation.id, (0.0, 0.0))
        seconds = min(max(2 * waited, FIRST_WAIT), LONGEST_WAIT)
        self._waits[generation.id] = time.monotonic() + seconds, seconds
        log.warning("the generation %s is filled later: %s", generation.public_id, error)

    def _fail(self, generation: Generation, error: RagError) -> None:
        log.warning("the generation %s failed: %s", generation.public_id, error)
        with self._backend.database.write() as connection:
            generations.fail(connection, generation, self._worker(), error.code, error.message)

    def _forget_points(self, generation: Generation) -> None:
        """Take a retired generation out of its engine, unless another one has the same points."""
        if not is_remote(generation):
            return
        with self._backend.database.read() as connection:
            others = generations.generations_of(connection, generation.store_id, FOLLOWING)
        mine = generation.space_id, generation.chunk_set_id
        if mine not in {(other.space_id, other.chunk_set_id) for other in others if is_remote(other)}:
            indexing.forget_scope(self._backend, generation)


UNEXPECTED = RagError("Filling it failed unexpectedly; the server's log says more. Resume it to try again.")
