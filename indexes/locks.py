"""A lock that many readers or one writer hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Many readers or one writer; not reentrant.

    Neither side starves the other: a waiting writer goes before readers who come later, and after it the readers who
    waited meanwhile go before the next writer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing = False
        self._readers = 0
        self._waiting_readers = 0
        self._waiting_writers = 0
        self._due_readers = 0
        """Readers who waited during the last writing and have not yet had their turn."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock beside other readers."""
        with self._changed:
            self._waiting_readers += 1
            try:
                self._changed.wait_for(lambda: not self._writing and (self._due_readers or not self._waiting_writers))
                self._readers += 1
            finally:
                self._waiting_readers -= 1
                self._due_readers = max(self._due_readers - 1, 0)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._waiting_writers += 1
            try:
                self._changed.wait_for(lambda: not (self._writing or self._readers or self._due_readers))
                self._writing = True
            finally:
                self._waiting_writers -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._due_readers = self._waiting_readers
                self._changed.notify_all()
