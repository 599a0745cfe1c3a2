"""Who runs the jobs: one process of a data folder, as durable DBOS workflows over batches of documents.

The catalog's rows are the queue of record. The runner claims waiting documents into a batch, starts a workflow
named after the batch, and looks again for batches whose workflow is missing or has died. DBOS (SQLite beside the
catalog) resumes after a crash at the step that was not finished.
"""

from __future__ import annotations

import fcntl
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO, Any

from indexes.errors import RagError, TryLater
from ingest.intake import sweep, sweep_blobs
from ingest.pipeline import Pipeline, is_passing
from ingest.sandbox import ParseLimits, ParserPool
from rag.backend import Backend
from rag.catalog import documents

LOOK_EVERY = 0.25
"""Seconds between two looks at the queue when nobody rings."""
APPLICATION_VERSION = "1"
"""Workflows of another version are not resumed: change it when the steps change in kind or order."""
RECOVERIES = 8
"""Crashes of the whole process that a batch may be part of before its documents are tried one by one."""

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
    """Runs the jobs of a data folder while this process holds its lock; until then, waits for the lock."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stop = Event()
        self._let_go = Event()
        self._running: set[str] = set()
        self._lock = Lock()
        self._held: IO[bytes] | None = None
        self._workflow: Callable[[str], None] | None = None
        self._parsers: ParserPool | None = None
        self._begun = 0
        self._told: set[type[Exception]] = set()
        self.fault: Exception | None = None
        """Why the jobs do not run here although no other process runs them; None when they do or need not."""
        self.ready = Event()
        """Set once the jobs run here."""
        self._thread = Thread(target=self._run, name="runner", daemon=True)
        self._thread.start()

    @property
    def runs_here(self) -> bool:
        """Whether this process is the one that runs the jobs."""
        return self._held is not None

    def close(self) -> None:
        """Stop taking work. What is unfinished resumes wherever the jobs run next. Idempotent."""
        self._stop.set()
        self._backend.work_waiting.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set() and not self._take_lock():
            self._stop.wait(0.5)
        try:
            while not self._stop.is_set() and not self._started():
                self._stop.wait(START_EVERY)
            while not self._stop.is_set():
                self._backend.work_waiting.clear()
                try:
                    self._look()
                except RagError as error:
                    log.warning("looking for work failed: %s", error)
                except Exception:  # of DBOS's database, say: what waits must not wait for a restart
                    log.exception("looking for work failed")
                self._backend.work_waiting.wait(LOOK_EVERY)
        finally:
            if self._held is not None:
                self._finish()

    def _take_lock(self) -> bool:
        if not _ONE_IN_A_PROCESS.acquire(blocking=False):
            return False
        try:
            handle = (self._backend.folder / "jobs.lock").open("wb")
        except OSError as error:
            _ONE_IN_A_PROCESS.release()
            self._tell(error)
            return False
        self.fault = None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            _ONE_IN_A_PROCESS.release()
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
        self.ready.set()
        return True

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
        sweep(self._backend)
        sweep_blobs(self._backend)
        _launch_dbos(self._backend.folder / "jobs.db", settings.concurrent_batches)

        @DBOS.workflow(name="ingest_batch", max_recovery_attempts=RECOVERIES)
        def ingest_batch(batch: str) -> None:
            self._ingest(batch)

        self._workflow = ingest_batch
        DBOS.launch()
        self._forget_ended()

    def _ingest(self, batch: str) -> None:
        """The workflow: three steps, each harmless to repeat."""
        from dbos import DBOS

        with self._lock:
            self._running.add(batch)
        try:
            self._step("prepare", self._pipeline.prepare, batch)
            self._step("embed", self._pipeline.embed, batch)
            self._step("publish", self._pipeline.publish, batch)
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

    def _step(self, name: str, work: Callable[[str], None], batch: str) -> None:
        from dbos import DBOS, StepOptions

        def step() -> None:
            try:
                work(batch)
            except Exception:
                if self._stop.is_set():
                    # Recorded as the step's result it would be raised again at each resumption.
                    self._let_go.wait(STOP_WITHIN)
                raise

        patient: StepOptions = {
            "name": name,
            "retries_allowed": True,
            "max_attempts": 7,
            "interval_seconds": 0.5,
            "backoff_rate": 2.0,
            "should_retry": is_passing,
        }
        DBOS.run_step(patient, step)

    def _look(self) -> None:
        """Start what waits, as far as there is room, and deal with batches whose workflow died."""
        with self._backend.database.read() as connection:
            unfinished = documents.open_batches(connection)
        for batch in unfinished:
            if not self._room():
                return
            with self._lock:
                if batch in self._running:
                    continue
            self._revive(batch)
        while self._room():
            batch = secrets.token_hex(16)
            settings = self._backend.settings.ingest
            with self._backend.database.read() as connection:
                if not documents.anything_waiting(connection):
                    return
            with self._backend.database.write() as connection:
                taken = documents.claim_batch(connection, batch, settings.batch_documents, settings.batch_bytes)
            if not taken:
                return
            self._begin(batch)

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
            ended = DBOS.list_workflows(status="SUCCESS", limit=500, load_input=False, load_output=False)
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
            for document in documents.batch_documents(connection, batch):
                if document.alone:
                    documents.fail(connection, document.id, document.attempt, "server_error", message)
                else:
                    documents.isolate(connection, document.id, document.attempt)

    def _finish(self) -> None:
        self._tear_down()
        deadline = time.monotonic() + STOP_WITHIN
        while self._running and time.monotonic() < deadline:
            time.sleep(0.01)
        self._release()

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
            _ONE_IN_A_PROCESS.release()


def _launch_dbos(path: Path, concurrency: int) -> Any:
    from dbos import DBOS, DBOSConfig

    config: DBOSConfig = {
        "name": "rag-ingest",
        "system_database_url": f"sqlite:///{path}",
        "application_version": APPLICATION_VERSION,
        # The folder's lock makes this process the only one, so what its predecessor left is its own.
        "executor_id": "runner",
        "log_level": "CRITICAL",
        "max_executor_threads": concurrency + 4,
    }
    return DBOS(config=config)


def _as_failure(error: Exception) -> RagError:
    if isinstance(error, RagError):
        return error
    inner = error.__cause__ or error.__context__
    if isinstance(inner, RagError):
        return inner
    return TryLater("Ingestion failed unexpectedly; the server's log says more. Try again.", code="server_error")
