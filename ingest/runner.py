"""Who runs the jobs: workers, as durable DBOS workflows over batches of documents.

The catalog's rows are the queue of record. A worker claims waiting documents into a batch and starts a workflow named
after it (DBOS, in SQLite beside a catalog in SQLite, in a schema of its own beside one in PostgreSQL). It says every
few seconds that it lives; what a dead one had, a living one adopts and begins again at the first step that is not done.

Over one SQLite catalog one process runs the jobs, the one that holds the folder's lock, and the others are dead by
that. Over PostgreSQL any number of processes do.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import IO, Any

from indexes.errors import RagError, TryLater
from ingest import evaluations, indexing
from ingest.backfill import Backfill
from ingest.background import Background
from ingest.drift import Watch
from ingest.expiry import expire
from ingest.importing import sweep_imports
from ingest.intake import sweep, sweep_blobs
from ingest.pipeline import Pipeline, is_passing
from ingest.sandbox import ParseLimits, ParserPool
from rag.backend import Backend
from rag.catalog import batches, documents

LOOK_EVERY = 0.25
"""Seconds between two looks at the queue when nobody rings."""
SETTLE_EVERY = 5.0
"""Seconds between two looks at what the engines are still to be told, and at what has expired."""
COMPARE_EVERY = 600.0
"""Seconds between two comparisons of what the engines hold with the catalog."""
STEP_WAIT = 0.5
"""Seconds before a step that failed is tried again; doubled each time, over a minute in all."""
BEAT_EVERY = 2.0
"""Seconds between two signs of life."""
DEAD_SECONDS = 12.0
"""Without a sign of life, a worker is given up and its work adopted. Should it be alive after all, it is refused."""
APPLICATION_VERSION = "3"
"""Workflows of another version are not resumed: change it when the steps change in kind or order."""
CRASHES = 8
"""Workers that may die while they have a batch, before its documents are tried one by one."""

START_EVERY = 3.0
"""Seconds between two tries to start, where the first one failed (a full disk, say)."""
FORGET_EVERY = 1_000
"""Batches after which the workflows that ended are forgotten; the same is done at the start."""
STOP_WITHIN = 20.0
"""Seconds that work in hand gets to come to its next border."""

# DBOS is one to a process: a second runner, over another folder, waits for the first to end.
_ONE_IN_A_PROCESS = Lock()

log = logging.getLogger(__name__)


class Runner:
    """Runs jobs while this process may: over SQLite, once it holds the data folder's lock."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stop = Event()
        self._let_go = Event()
        self._running: set[str] = set()
        self._lock = Lock()
        self._alone = backend.database.one_machine
        self._in_place = False
        self._held: IO[bytes] | None = None
        self._worker: int | None = None
        self._workflow: Callable[[str], None] | None = None
        self._parsers: ParserPool | None = None
        self._background: list[Background] = []
        self._begun = 0
        self._settled = 0.0
        self._compared = 0.0
        self._engine_lost = Event()
        self._told: set[type[Exception]] = set()
        self._warned = ""
        self.fault: Exception | None = None
        """Why the jobs do not run here although no other process runs them; None when they do or need not."""
        self.ready = Event()
        """Set once the jobs run here."""
        self._thread = Thread(target=self._run, name="runner", daemon=True)
        self._thread.start()

    @property
    def runs_here(self) -> bool:
        """Whether this process runs jobs."""
        return self._in_place

    def close(self) -> None:
        """Stop taking work. What is unfinished resumes wherever the jobs run next. Idempotent."""
        self._stop.set()
        self._backend.work_waiting.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set() and not self._take_place():
            self._stop.wait(0.5)
        try:
            while not self._stop.is_set() and not self._started():
                self._stop.wait(START_EVERY)
            while not self._stop.is_set():
                self._backend.work_waiting.clear()
                try:
                    self._look()
                    self._settle()
                except RagError as error:
                    if error.message != self._warned:  # a move, say, lasts many looks
                        self._warned = error.message
                        log.warning("looking for work failed: %s", error)
                except Exception:  # of DBOS's database, say: what waits must not wait for a restart
                    log.exception("looking for work failed")
                self._backend.work_waiting.wait(LOOK_EVERY)
        finally:
            if self._in_place:
                self._finish()

    def _take_place(self) -> bool:
        if not _ONE_IN_A_PROCESS.acquire(blocking=False):
            return False
        self._in_place = not self._alone or self._take_lock()
        if not self._in_place:
            _ONE_IN_A_PROCESS.release()
        return self._in_place

    def _take_lock(self) -> bool:
        try:
            handle = (self._backend.folder / "jobs.lock").open("wb")
        except OSError as error:
            self._tell(error)
            return False
        self.fault = None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._held = handle
        return True

    def _started(self) -> bool:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - the server lives on, and what waits must not wait for a restart
            self._tell(error)
            self._tear_down()
            return False
        self.fault = None
        self._begin_background()
        self.ready.set()
        return True

    def _begin_background(self) -> None:
        backfill = Backfill(self._backend, lambda: self._worker or 0, lambda: self._pipeline.embeds, self._stop)
        filling = backfill.step, backfill.empty_step
        watch = Watch(self._backend, lambda: self._worker or 0, self._stop.is_set)
        self._background = [
            Background(filling, self._backend.background_waiting, self._stop),
            # Apart: one evaluation may take minutes.
            Background([self._evaluate, watch.step], Event(), self._stop),
        ]

    def _tell(self, fault: Exception) -> None:
        """Keep a fault for whoever asks, and log the first of its kind."""
        self.fault = fault
        if type(fault) not in self._told:
            self._told.add(type(fault))
            log.error("the job runner could not start; it is tried again until it can", exc_info=fault)

    def _start(self) -> None:
        from dbos import DBOS

        settings = self._backend.settings.ingest
        limits = ParseLimits(wall_seconds=settings.parse_seconds, memory_bytes=settings.parse_memory_mb << 20)
        self._parsers = ParserPool(limits, self._backend.folder / "scratch", settings.parser_processes)
        self._pipeline = Pipeline(self._backend, self._parsers, self._stop)
        self._backend.blobs.sweep_incoming()
        sweep_imports(self._backend)
        sweep(self._backend)
        sweep_blobs(self._backend)
        self._compare()
        _launch_dbos(_jobs_url(self._backend), settings.concurrent_batches)

        @DBOS.workflow(name="ingest_batch")
        def ingest_batch(batch: str) -> None:
            self._ingest(batch)

        self._workflow = ingest_batch
        DBOS.launch()
        self._forget_ended()
        self._join()
        if not self._alone:
            Thread(target=self._beat_on, name="heartbeat", daemon=True).start()

    def _join(self) -> None:
        with self._backend.database.write() as connection:
            if self._alone:
                batches.bury(connection, silent_seconds=0)
            self._worker = batches.join(connection, f"{socket.gethostname()} {os.getpid()}")

    def _beat_on(self) -> None:
        """Say that we live whatever else we do."""
        while not self._stop.wait(BEAT_EVERY):
            try:
                self._beat()
            except RagError as error:
                log.warning("a sign of life was not given: %s", error)
            except Exception:  # the next one may go through
                log.exception("a sign of life was not given")

    def _evaluate(self) -> bool:
        return evaluations.step(self._backend, self._worker or 0, self._stop.is_set)

    def _beat(self) -> None:
        """Say that we live, and give up those who no longer do. One who was given up joins again."""
        assert self._worker is not None
        with self._backend.database.write(shared=True) as connection:
            alive = batches.beat(connection, self._worker)
        with self._backend.database.read() as connection:
            silent = batches.anyone_silent(connection, DEAD_SECONDS)
        if silent:
            with self._backend.database.write() as connection:
                for name in batches.bury(connection, DEAD_SECONDS):
                    log.warning("the worker %s is silent; what it had is taken over", name)
        if not alive:
            log.warning("this worker was silent for so long that others took its work over; it begins anew")
            self._join()

    def _ingest(self, batch: str) -> None:
        """The workflow: four steps, each harmless to repeat."""
        from dbos import DBOS

        with self._lock:
            self._running.add(batch)
        try:
            self._step("prepare", self._pipeline.prepare, batch)
            made_for = self._step("embed", self._pipeline.embed, batch)
            made_for = self._step("index", self._pipeline.index, batch, made_for)
            self._step("publish", self._pipeline.publish, batch, made_for)
        except Exception as error:  # every document ends, whatever happened
            if self._stop.is_set():
                # With its database closed, DBOS cannot record an end: the workflow stays to be resumed.
                self._let_go.wait(STOP_WITHIN)
                raise
            log.exception("batch %s failed", batch)
            DBOS.run_step({"name": "give_up"}, self._pipeline.give_up, batch, _as_failure(error))
        finally:
            with self._lock:
                self._running.discard(batch)
            self._backend.work_waiting.set()

    def _step(self, name: str, work: Callable[..., int | None], *given: str | int | None) -> int | None:
        from dbos import DBOS, StepOptions

        def step() -> int | None:
            try:
                with self._noticing_loss():
                    return work(*given)
            except Exception:
                if self._stop.is_set():
                    # Recorded as the step's result it would be raised again at each resumption.
                    self._let_go.wait(STOP_WITHIN)
                raise

        patient: StepOptions = {
            "name": name,
            "retries_allowed": True,
            "max_attempts": 7,
            "interval_seconds": STEP_WAIT,
            "backoff_rate": 2.0,
            "should_retry": is_passing,
        }
        return DBOS.run_step(patient, step)

    def _look(self) -> None:
        """Begin what waits, as far as there is room, and deal with batches whose worker or workflow died."""
        assert self._worker is not None
        with self._backend.database.read() as connection:
            unfinished = batches.open_batches(connection, self._worker)
        for name in unfinished:
            with self._lock:
                if name in self._running:
                    continue
            self._revive(name)
        while self._room() and (self._adopt() or self._claim()):
            pass

    def _settle(self) -> None:
        """Now and then, tell the engines what could not be told them when it happened, see what they hold, and take out
        what has expired."""
        if time.monotonic() - self._settled > SETTLE_EVERY:
            self._settled = time.monotonic()
            with self._noticing_loss():
                indexing.settle(self._backend)
            expire(self._backend)
        if self._engine_lost.is_set() or time.monotonic() - self._compared > COMPARE_EVERY:
            sweep(self._backend)
            self._compare()

    def _compare(self) -> None:
        self._engine_lost.clear()
        self._compared = time.monotonic()
        try:
            indexing.reconcile_where_needed(self._backend)
        except RagError as error:  # of one store's engine: the others' work goes on, and its own ends by the same error
            log.warning("what an engine holds is compared with the catalog later: %s", error)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Let an engine that lost what it held be filled at the next look."""
        try:
            yield
        except TryLater as error:
            if error.code == "collection_missing":
                self._engine_lost.set()
            raise

    def _adopt(self) -> bool:
        """Begin a batch that another worker left or died with. False when there is none."""
        assert self._worker is not None
        with self._backend.database.read() as connection:
            if not batches.anything_ownerless(connection):
                return False
        with self._backend.database.write() as connection:
            adopted = batches.adopt(connection, self._worker, secrets.token_hex(16))
        if adopted is None:
            return False
        before, batch = adopted
        self._abandon(before)
        if batch.crashes >= CRASHES:
            self._take_apart(batch.name)
        else:
            self._begin(batch.name)
        return True

    def _abandon(self, workflow: str) -> None:
        """End the workflow of a batch that goes on under another name; one who still runs it stops at its next step."""
        from dbos import DBOS

        if DBOS.get_workflow_status(workflow) is not None:
            DBOS.cancel_workflow(workflow)

    def _claim(self) -> bool:
        """Begin a batch of documents that wait. False when none do."""
        assert self._worker is not None
        settings, name = self._backend.settings.ingest, secrets.token_hex(16)
        with self._backend.database.read() as connection:
            if not batches.anything_waiting(connection):
                return False
        with self._backend.database.write() as connection:
            taken = batches.claim(
                connection,
                self._worker,
                name,
                settings.batch_documents,
                settings.batch_bytes,
                settings.batches_of_a_store,
            )
        if taken:
            self._begin(name)
        return bool(taken)

    def _room(self) -> bool:
        with self._lock:
            return len(self._running) < self._backend.settings.ingest.concurrent_batches

    def _begin(self, batch: str) -> None:
        from dbos import DBOS, SetWorkflowID

        assert self._workflow is not None
        with self._lock:
            self._running.add(batch)
        try:
            with SetWorkflowID(batch):
                DBOS.start_workflow(self._workflow, batch)
        except BaseException:
            with self._lock:
                self._running.discard(batch)
            raise
        self._begun += 1
        if self._begun % FORGET_EVERY == 0:
            self._forget_ended()

    def _forget_ended(self) -> None:
        """Delete the records of workflows that succeeded, or they pile up: nobody asks for them any more."""
        from dbos import DBOS

        while True:
            ended = DBOS.list_workflows(status=["SUCCESS", "CANCELLED"], limit=500, load_input=False, load_output=False)
            if not ended:
                return
            DBOS.delete_workflows([workflow.workflow_id for workflow in ended])

    def _revive(self, batch: str) -> None:
        from dbos import DBOS

        status = DBOS.get_workflow_status(batch)
        if status is None:
            self._begin(batch)
        elif status.status not in ("PENDING", "ENQUEUED"):
            self._take_apart(batch)

    def _take_apart(self, batch: str) -> None:
        """Try the documents of a dead batch one by one; end those that were alone in it."""
        message = "Working on this file stopped the server several times. Try it again, or leave it out."
        with self._backend.database.write() as connection:
            for document in documents.active_of_batch(connection, batch):
                if document.alone:
                    documents.fail(connection, document.id, document.attempt, "server_error", message)
                else:
                    documents.isolate(connection, document.id, document.attempt)

    def _finish(self) -> None:
        for background in self._background:
            background.join(STOP_WITHIN)
        self._tear_down()
        deadline = time.monotonic() + STOP_WITHIN
        while self._running and time.monotonic() < deadline:
            time.sleep(0.01)
        self._leave()
        self._release()

    def _leave(self) -> None:
        """Let others take over at once what we leave. Where that cannot be said, they find out by our silence."""
        if self._worker is not None:
            with suppress(RagError), self._backend.database.write() as connection:
                batches.leave(connection, self._worker)

    def _tear_down(self) -> None:
        with suppress(Exception):
            from dbos import DBOS

            DBOS.destroy(destroy_registry=True)
        if self._stop.is_set():
            self._let_go.set()
        if self._parsers is not None:
            self._parsers.close()
            self._parsers = None

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None
        self._in_place = False
        _ONE_IN_A_PROCESS.release()


def _jobs_url(backend: Backend) -> str:
    """Where DBOS keeps its own: a file beside the catalog's, or a schema in its database."""
    if backend.database.one_machine:
        return f"sqlite:///{backend.folder / 'jobs.db'}"
    return backend.database.url.render_as_string(hide_password=False)


def _launch_dbos(url: str, concurrency: int) -> Any:
    from dbos import DBOS, DBOSConfig

    config: DBOSConfig = {
        "name": "rag-ingest",
        "system_database_url": url,
        "sys_db_pool_size": 4,
        # A worker that is stopped in the middle of a transaction must not hold up those who take its work over.
        "sys_db_idle_transaction_timeout_sec": 5.0,
        "application_version": APPLICATION_VERSION,
        # A name of its own for each process: DBOS itself resumes nothing, batches are adopted by their rows.
        "executor_id": secrets.token_hex(8),
        "log_level": "CRITICAL",
        "max_executor_threads": concurrency + 4,
    }
    return DBOS(config=config)


def _as_failure(error: Exception) -> RagError:
    # A step that was tried in vain as often as it may be ends as DBOS's own error, with what it met in a list.
    tried = getattr(error, "errors", None) or []
    for found in (error, *reversed(tried), error.__cause__, error.__context__):
        if isinstance(found, RagError):
            return found
    return TryLater("Ingestion failed unexpectedly; the server's log says more. Try again.", code="server_error")
