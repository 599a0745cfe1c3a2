from __future__ import annotations

import threading
import time

import pytest

from indexes.locks import ReadWriteLock


def test_readers_are_inside_together() -> None:
    lock, together = ReadWriteLock(), threading.Barrier(3, timeout=10)

    def read() -> None:
        with lock.reading():
            together.wait()  # passes only when all three are inside at once

    finish([threading.Thread(target=read) for _ in range(3)])
    assert not together.broken


def test_a_writer_is_alone() -> None:
    """A pair that writers keep equal, one half after the other, is never seen unequal."""
    lock, pair, faults = ReadWriteLock(), [0, 0], []

    def read() -> None:
        for _ in range(200):
            with lock.reading():
                first = pair[0]
                time.sleep(0)
                faults.extend([(first, pair[1])] * (first != pair[1]))

    def write() -> None:
        for _ in range(200):
            with lock.writing():
                number = pair[0]
                time.sleep(0)
                pair[0] = number + 1
                time.sleep(0)
                pair[1] += 1

    finish([threading.Thread(target=target) for target in (read, write, read, write)])
    assert not faults
    assert pair == [400, 400]


@pytest.mark.parametrize("greedy", ["reading", "writing"])
def test_neither_side_starves_the_other(greedy: str) -> None:
    lock, stop = ReadWriteLock(), threading.Event()
    other = "writing" if greedy == "reading" else "reading"

    def hold(side: str) -> None:
        with getattr(lock, side)():
            time.sleep(0.002)

    def hog() -> None:
        while not stop.is_set():
            hold(greedy)

    hogs = [threading.Thread(target=hog) for _ in range(3)]
    for thread in hogs:
        thread.start()
    try:
        finish([threading.Thread(target=lambda: [hold(other) for _ in range(10)])])
    finally:
        stop.set()
    for thread in hogs:
        thread.join(timeout=10)


def finish(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
