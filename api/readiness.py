"""What must be there before a server can serve: the catalog, the embedder loaded, and the jobs running somewhere."""

from __future__ import annotations

from threading import Thread

from api.errors import as_rag_error
from indexes.errors import RagError
from ingest.runner import Runner
from rag import listing
from rag.backend import Backend


class Readiness:
    """Loads the configured embedder, and the reranker if there is one, in the background, so that the first question
    need not wait for them; a process for one command only (not `warm`) loads what it needs when it needs it."""

    def __init__(self, backend: Backend, runner: Runner | None = None, *, warm: bool = True) -> None:
        self._backend = backend
        self._runner = runner
        self._fault: str | None = None
        self._thread = Thread(target=self._load, name="warm-up", daemon=True)
        if warm:
            self._thread.start()

    def missing(self) -> list[str]:
        """What is not there yet or cannot be had, in words; empty when all is there."""
        missing = []
        if self._thread.is_alive():
            missing.append(f"The embedder {self._backend.settings.embedder!r} is being loaded, or the reranker is.")
        elif self._fault is not None:
            missing.append(self._fault)
        try:
            listing.workload(self._backend)
        except RagError as error:
            missing.append(error.message)
        limit = self._backend.settings.views.lag_seconds
        if behind := self._backend.views.lagging(limit):
            missing.append(f"{behind} indexes have been behind the catalog for more than {limit:g} s.")
        fault = self._runner.fault if self._runner is not None else None
        if fault is not None:
            why = fault.message if isinstance(fault, RagError) else "The server's log says why."
            missing.append(f"Jobs do not run; starting them is tried every few seconds. {why}")
        return missing

    def _load(self) -> None:
        try:
            self._backend.embedders.open(self._backend.settings.embedder)
            if self._backend.settings.retrieval.reranker is not None:
                self._backend.rerankers.open(self._backend.settings.retrieval.reranker)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told at /readyz
            self._fault = as_rag_error(error).message
