"""When vector stores were last asked: noted behind the questions' backs, so that none waits for a writer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread

from indexes.errors import RagError
from rag.catalog import stores
from rag.catalog.database import Database
from rag.catalog.records import Store

NOTED_EVERY = 60.0
"""Seconds in which further questions to a store are not noted: stores expire after days."""

log = logging.getLogger(__name__)


class Activity:
    """Notes the use of stores in the catalog, from a thread of its own. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[int, float] = {}
        self._due: SimpleQueue[int | None] = SimpleQueue()
        self._thread = Thread(target=self._write_all, name="activity", daemon=True)
        self._thread.start()

    def used(self, used: Sequence[Store]) -> None:
        """Say that these stores are used now."""
        now = time.monotonic()
        for store in used:
            if store.id not in self._noted or now - self._noted[store.id] >= NOTED_EVERY:
                self._noted[store.id] = now
                self._due.put(store.id)

    def close(self) -> None:
        """Write what is still due. Idempotent."""
        self._due.put(None)
        self._thread.join(timeout=5)

    def _write_all(self) -> None:
        while (store_id := self._due.get()) is not None:
            try:
                with self._database.write(shared=True) as connection:
                    stores.touch_store(connection, store_id)
            except RagError as error:
                log.warning("that the store %d was used is noted later: %s", store_id, error)
            except Exception:  # the next one may go through
                log.exception("that the store %d was used is noted later", store_id)


class Unnoted:
    """Of a backend whose questions are no use of a store: they are the installation's own."""

    def used(self, used: Sequence[Store]) -> None:
        """Note nothing."""

    def close(self) -> None:
        """Nothing is held."""
