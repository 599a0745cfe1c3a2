"""Several at once, for contracts that promise to bear it."""

from __future__ import annotations

import threading
from collections.abc import Callable


def at_once(work: Callable[[int], None], threads: int = 4) -> None:
    """Run `work` in so many threads, each with a number of its own; what any of them raises fails the caller."""
    faults: list[BaseException] = []

    def told(number: int) -> None:
        try:
            work(number)
        except (Exception, AssertionError) as error:  # noqa: BLE001  (told to the main thread)
            faults.append(error)

    running = [threading.Thread(target=told, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not faults
