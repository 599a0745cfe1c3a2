"""What lists are made from is made by one process and taken by the others; what does not check is made anew."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from indexes import faiss_partition, shared_partition
from indexes.faiss import FaissIndex
from indexes.faiss_partition import Partition
from tests.contracts.vector_index import agree, truth, unit

COUNT = 200
PROCESS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from indexes import faiss_building, shared_partition
from indexes.faiss import FaissIndex
from tests.contracts.vector_index import agree, truth, unit

folder, what = Path(sys.argv[1]), sys.argv[2]
faiss_building.LARGE, faiss_building.SETTLE_SECONDS, shared_partition.WAIT_SECONDS = 1, 0.0, 0.05
train, sync = faiss_building.trained_partition, shared_partition.sync

def noted(*given):
    with (folder / "trained").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while what == "hangs":
        time.sleep(0.01)
    time.sleep(0.3)
    return train(*given)

faiss_building.trained_partition = noted
if what == "dies writing":
    shared_partition.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
index = FaissIndex(16, None, folder / "shared")
ids, vectors = np.arange(1, 201), unit(200, 16, seed=1)
index.add(ids, vectors)
held = dict(zip(ids.tolist(), vectors, strict=True))
agree(index.search(vectors[3], 9), truth(held, vectors[3], 9))
print("serves", flush=True)
assert index.settle(60)
agree(index.search(vectors[3], 9), truth(held, vectors[3], 9))
print(type(index._form).__name__, flush=True)
"""


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.faiss_building.LARGE", 1)
    monkeypatch.setattr("indexes.faiss_building.SETTLE_SECONDS", 0.0)


@contextmanager
def process(folder: Path, what: str = "works") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROCESS, str(folder), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def trained(folder: Path) -> list[int]:
    """The processes that trained, in order."""
    file = folder / "trained"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def wait_for_training(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not trained(folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_several_processes_one_trains_and_later_ones_need_not(tmp_path: Path) -> None:
    with process(tmp_path) as one, process(tmp_path) as two, process(tmp_path) as three:
        for running in (one, two, three):
            assert [line(running), line(running)] == ["serves", "Lists"]
    assert len(trained(tmp_path)) == 1
    with process(tmp_path) as later:
        assert [line(later), line(later)] == ["serves", "Lists"]
    assert len(trained(tmp_path)) == 1


def test_who_waits_serves_and_takes_over_when_the_other_is_killed(tmp_path: Path) -> None:
    with process(tmp_path, "hangs") as first:
        wait_for_training(tmp_path)
        with process(tmp_path) as second:
            assert line(second) == "serves"
            time.sleep(0.3)
            assert trained(tmp_path) == [first.pid]
            first.kill()
            assert line(second) == "Lists"
            assert trained(tmp_path) == [first.pid, second.pid]


def test_what_was_half_written_by_one_that_died_is_removed(tmp_path: Path) -> None:
    with process(tmp_path, "dies writing") as first:
        assert first.wait(60) == -signal.SIGKILL
    assert [file.name[:11] for file in (tmp_path / "shared").iterdir() if file.name != "partition.lock"] == [
        ".partition-"
    ]
    with process(tmp_path) as second:
        assert [line(second), line(second)] == ["serves", "Lists"]
        assert trained(tmp_path) == [first.pid, second.pid]
    assert sorted(file.name for file in (tmp_path / "shared").iterdir()) == ["partition", "partition.lock"]


class Counted:
    """Counts trainings, and vectors whose list was searched for after training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainings = self.searched = 0
        train, search = faiss_partition.trained_partition, faiss_partition.nearest_lists

        def trained_partition(*given: object) -> Partition:
            self.trainings += 1
            partition = train(*given)
            self.searched = 0
            return partition

        def nearest_lists(quantizer: object, vectors: np.ndarray) -> np.ndarray:
            self.searched += len(vectors)
            return search(quantizer, vectors)

        monkeypatch.setattr("indexes.faiss_building.trained_partition", trained_partition)
        for module in ("faiss_building", "faiss_partition", "faiss_forms"):
            monkeypatch.setattr(f"indexes.{module}.nearest_lists", nearest_lists)


def filled(folder: Path | None, vectors: np.ndarray) -> FaissIndex:
    index = FaissIndex(16, None, folder)
    index.add(np.arange(1, len(vectors) + 1), vectors)
    assert index.settle(60)
    held = dict(enumerate(vectors, 1))
    for query in unit(5, 16, seed=3):
        agree(index.search(query, 7), truth(held, query, 7))
    return index


def test_only_vectors_that_the_maker_had_not_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, vectors = Counted(monkeypatch), unit(COUNT, 16, seed=1)
    first = filled(tmp_path, vectors)
    assert (counted.trainings, counted.searched) == (1, COUNT)
    second = filled(tmp_path, np.concatenate([vectors[50:], unit(7, 16, seed=2)]))
    assert (counted.trainings, counted.searched) == (1, COUNT + 7)
    assert np.array_equal(second._form._list_of[: COUNT - 50], first._form._list_of[50:COUNT])


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "settings"])
def test_what_does_not_check_is_made_anew(harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, vectors, file = Counted(monkeypatch), unit(COUNT, 16, seed=1), tmp_path / shared_partition.FILE
    filled(tmp_path, vectors)
    content = bytearray(file.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 1
    if harm == "cut":
        del content[-100:]
    if harm == "empty":
        content.clear()
    file.write_bytes(content)
    if harm == "settings":
        monkeypatch.setattr("indexes.faiss_partition.ROUNDS", 9)
    filled(tmp_path, vectors)
    assert counted.trainings == 2
    filled(tmp_path, vectors)
    assert counted.trainings == 2


def test_one_for_many_more_or_fewer_vectors_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    for count, trainings in [(100, 1), (200, 1), (201, 2), (101, 2), (100, 3), (100, 3)]:
        filled(tmp_path, unit(count, 16, seed=count))
        assert counted.trainings == trainings


def test_without_a_folder_or_a_disk_that_takes_it_each_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(monkeypatch)
    (tmp_path / "a file").touch()
    for number, folder in enumerate([None, None, tmp_path / "a file" / "below"], 1):
        filled(folder, unit(COUNT, 16))
        assert counted.trainings == number
    assert "is not shared with others" in caplog.text
