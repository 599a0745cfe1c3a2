"""Where the time of a question goes."""

from __future__ import annotations

import time


class Clock:
    """Seconds between marks, by name; under one name they add up."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """The time since the mark before went into this."""
        now = time.perf_counter()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._last
        self._last = now

    def mark_once(self, name: str) -> None:
        """The same, unless something went into it already."""
        if name not in self.spent:
            self.mark(name)
