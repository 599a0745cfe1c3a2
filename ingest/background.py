"""Work that may wait: a thread that takes one small step of each kind in turn, as long as any does something."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread

from indexes.errors import RagError
from ingest.pipeline import Stopped

Step = Callable[[], bool]
"""Does a little of one kind of work, in seconds at most. False when there was nothing to do."""

LOOK_EVERY = 0.25
"""Seconds between two looks when nobody rings."""

log = logging.getLogger(__name__)


class Background:
    """The thread. A step that raises is logged and has its next turn like the others."""

    def __init__(self, steps: Sequence[Step], waiting: Event, stopping: Event) -> None:
        """`waiting` is set by whoever leaves work here, `stopping` to end."""
        self._steps = steps
        self._waiting = waiting
        self._stopping = stopping
        self._said = ""
        self._thread = Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end, once `stopping` is set."""
        self._waiting.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._waiting.clear()
            did = [self._taken(step) for step in self._steps]
            if not any(did):
                self._waiting.wait(LOOK_EVERY)

    def _taken(self, step: Step) -> bool:
        if self._stopping.is_set():
            return False
        try:
            return step()
        except Stopped:
            return False
        except RagError as error:
            if error.message != self._said:  # a move, say, lasts many looks
                self._said = error.message
                log.warning("work in the background waits: %s", error)
        except Exception:  # one kind's fault is not the others'
            log.exception("work in the background failed")
        return False
