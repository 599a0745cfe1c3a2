"""Work in a thread that can be given up at any time."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

GoOn = Callable[[float], None]
"""Called by the work between its pieces with how many seconds it can wait; raises GivenUp when it shall end."""

NICENESS = 5

log = logging.getLogger(__name__)


class GivenUp(Exception):
    """The work shall end here; nobody waits for it any more."""


class Background:
    """One thread of low priority for one work after another."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, work: Callable[[GoOn], None]) -> None:
        """Begin this work; what was begun before must be at its end."""
        self._stop = threading.Event()
        # A daemon: whoever forgets to close must not have to wait for the work at the end of the process.
        self._thread = threading.Thread(target=_run, args=(work, self._stop), name="background", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up the work, and what it begins at its end, and wait until its present piece is done."""
        while (thread := self._thread) not in (None, threading.current_thread()):
            self._stop.set()
            thread.join()
            if thread is self._thread:
                return
        self._stop.set()

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the work, and of what it began; False when that takes more than `timeout` seconds."""
        end = time.monotonic() + timeout
        while (thread := self._thread) is not None:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive() or thread is self._thread:
                return not thread.is_alive()
        return True


def _run(work: Callable[[GoOn], None], stop: threading.Event) -> None:
    def go_on(seconds: float) -> None:
        if stop.wait(seconds):
            raise GivenUp

    # On Linux each thread has a priority of its own; elsewhere this would slow down the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    try:
        work(go_on)
    except GivenUp:
        log.debug("given up")
    except Exception:  # nobody waits for the work who could be told
        log.exception("work in the background failed")
