"""The FAISS index where vectors are many: lists made beside the scan, kept up to date, replaced. Small here."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexes import faiss_building as building
from indexes import faiss_forms
from indexes.errors import TryLater
from indexes.faiss import FaissIndex
from indexes.faiss_forms import Lists, Moving, Scan
from indexes.vector import VectorIndex
from tests.contracts.vector_index import CHECKS, HERE_CHECKS, Held, agree, clustered, truth, unit


class Settled(FaissIndex):
    """Nothing goes on in the background when a change returns; what holds anything is in lists."""

    def add(self, ids, vectors):
        super().add(ids, vectors)
        assert self.settle(60)
        assert isinstance(self._form, Lists) or not len(self)

    def remove(self, ids):
        super().remove(ids)
        assert self.settle(60)


class Gate:
    """Holds up the making of lists until it is opened; says when one waits there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str = "training") -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        train, look_up, calls = building.trained_partition, faiss_forms.known_lists, []

        def held_up_before_training(sample, count, made_for, go_on):
            self.reached.set()
            while not self.open.is_set():
                go_on(0.005)
            return train(sample, count, made_for, go_on)

        def held_up_half_way(*given):
            calls.append(given)
            if len(calls) == 5:
                self.reached.set()
                assert self.open.wait(60)
            return look_up(*given)

        if where == "training":
            monkeypatch.setattr("indexes.faiss_building.trained_partition", held_up_before_training)
        else:
            monkeypatch.setattr("indexes.faiss_building.MOVED", 20)
            monkeypatch.setattr("indexes.faiss_forms.known_lists", held_up_half_way)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector is many, and filters are masked whatever they leave."""
    monkeypatch.setattr("indexes.faiss_building.LARGE", 1)
    monkeypatch.setattr("indexes.faiss.GATHER_COUNT", 0)
    monkeypatch.setattr("indexes.faiss_building.SETTLE_SECONDS", 0.0)


@pytest.fixture
def gate(large: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def added(index: FaissIndex, count: int = 200, seed: int = 1) -> Held:
    ids, vectors = np.arange(1, count + 1), unit(count, index.dimension, seed)
    index.add(ids, vectors)
    return dict(zip(ids.tolist(), vectors, strict=True))


def agrees_with(index: FaissIndex, held: Held) -> None:
    assert index.ids().tolist() == sorted(held)
    allowed = np.random.default_rng(9).permutation(index.ids())[: len(held) // 2]
    allowed.sort()
    for query in unit(10, index.dimension, seed=99):
        agree(index.search(query, 12), truth(held, query, 12))
        agree(index.search(query, 12, allowed), truth(held, query, 12, allowed))


def builders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "background"]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("check", CHECKS + HERE_CHECKS, ids=lambda check: check.__name__)
def test_contract_in_lists(check: Callable[[Callable[[int], VectorIndex]], None]) -> None:
    check(Settled)


@pytest.mark.parametrize("check", CHECKS + HERE_CHECKS, ids=lambda check: check.__name__)
def test_contract_with_vectors_in_a_file(
    check: Callable[[Callable[[int], VectorIndex]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vector_rows.MAPPED_BYTES", 1)
    check(lambda dimension: FaissIndex(dimension, tmp_path))
    assert not list(tmp_path.iterdir()), "a file that nobody would remove after a crash"


def finds_exactly_k_and_nearly_all_the_right_ones(monkeypatch: pytest.MonkeyPatch, cases: int) -> None:
    """Random filters and queries over 4,000 vectors in 253 lists, of which a search looks into a few."""
    monkeypatch.setattr("indexes.faiss_forms.LOOKED_INTO", 25)
    monkeypatch.setattr("indexes.faiss_forms.MASKED", 1)
    count, rng, looked = 4_000, np.random.default_rng(2), []
    vectors, ids = clustered(count, 32), np.arange(1, count + 1)
    queries = np.concatenate([vectors[:500], unit(50, 32, seed=3)])
    index = Settled(32)
    index.add(ids, vectors)
    gone = rng.choice(ids, 400, replace=False)
    index.remove(gone)
    search = index._form._search_in
    monkeypatch.setattr(
        index._form, "_search_in", lambda lists, *rest: looked.append(len(lists)) or search(lists, *rest)
    )
    right = wanted = 0
    for _ in range(cases):
        allowed = ids if rng.random() < 0.2 else ids[rng.random(count) < 10 ** rng.uniform(-3, 0)]
        living, query = np.setdiff1d(allowed, gone), queries[rng.integers(len(queries))]
        hits = index.search(query, 10, None if len(allowed) == count else allowed)
        assert len(hits.ids) == min(10, len(living))
        assert np.isin(hits.ids, living).all()
        nearest = living[np.argsort(-(vectors[living - 1] @ query), kind="stable")[:10]]
        right, wanted = right + len(np.intersect1d(nearest, hits.ids)), wanted + len(nearest)
    assert right / wanted >= 0.98
    assert np.median(looked) < 253 / 2, "it looked nearly everywhere: nothing was approximate here"


def keeps_changes_while_lists_are_made(monkeypatch: pytest.MonkeyPatch, where: str, kind: type) -> None:
    gate, index = Gate(monkeypatch, where), FaissIndex(16)
    held = added(index)
    assert gate.reached.wait(30)
    try:
        for seed in range(10):
            held = changed(index, held, seed)
            assert isinstance(index._form, kind)
            agrees_with(index, held)
    finally:
        gate.open.set()
    assert index.settle(60)
    assert isinstance(index._form, Lists)
    agrees_with(index, held)


def changed(index: FaissIndex, held: Held, seed: int) -> Held:
    new = np.random.default_rng(seed).choice(np.arange(1, 400), 30, replace=False)
    vectors = unit(30, 16, seed=1000 + seed)
    index.add(new, vectors)
    gone = np.random.default_rng(seed + 50).choice(np.arange(1, 400), 25, replace=False)
    index.remove(gone)
    held = held | dict(zip(new.tolist(), vectors, strict=True))
    return {id_: vector for id_, vector in held.items() if id_ not in set(gone.tolist())}


@pytest.mark.usefixtures("large")
def test_lists_find_exactly_k_and_nearly_all_the_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    finds_exactly_k_and_nearly_all_the_right_ones(monkeypatch, cases=2_000)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("where", "kind"), [("training", Scan), ("moving", Moving)])
def test_changes_while_lists_are_made_are_not_lost(where: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_changes_while_lists_are_made(monkeypatch, where, kind)


def _first_lists(self, vector, inside, wanted, honest=Lists._nearest_holding):
    return tuple(part[:3] for part in honest(self, vector, inside, wanted))


def _masked_afterwards(self, vector, count, mask, honest=Lists.search):
    scores, found = honest(self, vector, count, None)
    keep = mask[found] if mask is not None else slice(None)
    return scores[keep], found[keep]


def _all_lists(self, vector, inside, wanted, honest=Lists._nearest_holding):
    return honest(self, vector, inside, 10**9)


def _any_lists(self, vector, inside, wanted, honest=Lists._nearest_holding):
    return honest(self, -vector, inside, wanted)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("Lists._nearest_holding", _first_lists),
        ("Lists._nearest_holding", _any_lists),
        ("Lists._nearest_holding", _all_lists),
        ("Lists.search", _masked_afterwards),
    ],
)
def test_lists_that_find_too_little_or_look_everywhere_are_caught(
    where: str, what: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"indexes.faiss_forms.{where}", what)
    with pytest.raises((AssertionError, IndexError)):
        finds_exactly_k_and_nearly_all_the_right_ones(monkeypatch, cases=300)


def _nothing_dropped(self, rows):
    return None


def _dropped_only_in_the_old(self, rows):
    self.old.drop(rows)


def _dropped_only_in_the_new(self, rows):
    self.new.drop(rows)


def _moved_whatever_happened(self, rows, prepared):
    self.drop(rows)
    self.put(rows, prepared)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("Scan.drop", _nothing_dropped),
        ("Lists.drop", _nothing_dropped),
        ("Moving.drop", _dropped_only_in_the_old),
        ("Moving.drop", _dropped_only_in_the_new),
        ("Moving.move", _moved_whatever_happened),
    ],
)
def test_changes_that_are_lost_are_caught(where: str, what: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"indexes.faiss_forms.{where}", what)
    with pytest.raises((AssertionError, IndexError)):
        keeps_changes_while_lists_are_made(monkeypatch, "moving", Moving)


@pytest.mark.usefixtures("large")
def test_lists_are_made_anew_when_vectors_have_doubled_and_given_up_when_few_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexes.faiss_building.LARGE", 100)
    index = FaissIndex(16)
    held, kinds = {}, []
    for step, ids in enumerate([range(1, 90), range(90, 150), range(150, 200), range(200, 500)]):
        vectors = unit(len(ids), 16, seed=step)
        index.add(np.array(ids), vectors)
        assert index.settle(60)
        held |= dict(zip(ids, vectors, strict=True))
        kinds.append(getattr(index._form, "made_for", None))
        agrees_with(index, held)
    assert kinds == [None, 149, 149, 499]
    for last in (300, 240, 60, 40):
        gone = np.arange(last, 500)
        index.remove(gone)
        assert index.settle(60)
        held = {id_: vector for id_, vector in held.items() if id_ < last}
        kinds.append(getattr(index._form, "made_for", None))
        agrees_with(index, held)
    assert kinds[4:] == [499, 239, None, None]


def test_closing_gives_up_what_is_being_made(gate: Gate) -> None:
    index = FaissIndex(16)
    added(index)
    assert gate.reached.wait(30)
    index.close()
    assert not builders()
    assert len(index) == 0
    assert index.search(unit(1, 16)[0], 5).ids.tolist() == []
    index.close()


def test_an_index_that_nobody_holds_any_more_is_not_made(gate: Gate) -> None:
    index = FaissIndex(16)
    added(index)
    assert gate.reached.wait(30)
    del index
    gc.collect()
    assert not builders()


def test_a_process_that_does_not_close_ends_at_once() -> None:
    """It ends in the middle of training, in FAISS, in a second thread: neither crash nor wait."""
    code = """
import numpy as np, sys, time
from indexes import faiss as served, faiss_building, faiss_partition
faiss_building.SETTLE_SECONDS, faiss_building.LARGE = 0.0, 1
rng = np.random.default_rng(0)
rows = rng.standard_normal((20_000, 64))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
faiss_partition.ROUNDS = 100_000
index = served.FaissIndex(64)
index.add(np.arange(1, 20_001), rows)
time.sleep(float(sys.argv[1]))
assert index._building
print("end", flush=True)
"""
    for pause in ("0.05", "0.4"):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, pause], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
        assert time.monotonic() - began < 50


@pytest.mark.usefixtures("large")
def test_what_fails_in_the_background_is_logged_and_the_scan_serves_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr("indexes.faiss_building.trained_partition", fail)
    index = FaissIndex(16)
    held = added(index)
    assert index.settle(60)
    assert "no memory" in caplog.text
    agrees_with(index, held)
    monkeypatch.undo()
    monkeypatch.setattr("indexes.faiss_building.LARGE", 1)
    monkeypatch.setattr("indexes.faiss_building.SETTLE_SECONDS", 0.0)
    index.remove(np.array([1]))
    assert index.settle(60)
    assert isinstance(index._form, Lists)


@pytest.mark.usefixtures("large")
def test_moving_that_fails_half_way_serves_on_and_is_done_at_the_next_change(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, calls = faiss_forms.known_lists, []

    def fail_half_way(*given):
        calls.append(given)
        if len(calls) == 5:
            raise MemoryError("no memory")
        return look_up(*given)

    monkeypatch.setattr("indexes.faiss_building.MOVED", 20)
    monkeypatch.setattr("indexes.faiss_forms.known_lists", fail_half_way)
    index = FaissIndex(16)
    held = added(index)
    assert index.settle(60)
    assert isinstance(index._form, Moving)
    agrees_with(index, held)
    for seed in range(5):
        held = changed(index, held, seed)
        agrees_with(index, held)
    assert index.settle(60)
    assert isinstance(index._form, Lists)
    agrees_with(index, held)


@pytest.mark.usefixtures("large")
def test_nothing_is_held_twice_while_vectors_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time do the two forms take more than the scan did, but for a piece of it and what lists take besides."""
    monkeypatch.setattr("indexes.faiss_building.MOVED", 100)
    monkeypatch.setattr("indexes.faiss_forms.SCANNED_BYTES", 2 * 512 * 500)
    taken, move = [], Moving.move
    monkeypatch.setattr(Moving, "move", lambda self, *given: (move(self, *given), taken.append(self.memory())))
    index, vectors = FaissIndex(512), unit(4_000, 512)
    monkeypatch.setattr("indexes.faiss_building.LARGE", 10**6)
    index.add(np.arange(1, 4_001), vectors)
    scanned = index._form.memory()
    monkeypatch.setattr("indexes.faiss_building.LARGE", 1)
    index.remove(np.array([4_000]))
    assert index.settle(60)
    assert len(taken) == 40
    besides = 4 * 512 * len(index._form._sizes) + 20 * 4_000
    assert max(taken) <= scanned + 512 * 1_000 + besides
    assert taken[-1] <= scanned // 2 + besides


@pytest.mark.usefixtures("large")
def test_searches_beside_changes_and_rebuilding_never_see_a_half_done_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids 1 to 1000 stay, batches of 50 come and go, and each change makes the lists anew."""
    monkeypatch.setattr("indexes.faiss_building.MUCH", 1)
    index = FaissIndex(64)
    vectors, lasting = unit(1_050, 64, seed=1), np.arange(1, 1_001)
    index.add(lasting, vectors[:1000])
    stop, faults, searches, forms = threading.Event(), [], [0], set()

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                row = int(rng.integers(0, 1000))
                assert index.search(vectors[row], 3).ids[0] == row + 1
                assert index.search(vectors[row], 3, lasting[row:]).ids[0] == row + 1
                assert len(index.search(vectors[row], 2000).ids) in (1000, 1050)
                searches[0] += 1
                forms.add(id(index._form))
        except Exception as error:  # noqa: BLE001  (told to the main thread)
            faults.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    end, first = time.monotonic() + 1.5, 10_001
    while not faults and (time.monotonic() < end or len(forms) < 4) and time.monotonic() < end + 30:
        batch = np.arange(first, first + 50)
        index.add(batch, vectors[1000:])
        assert index.search(vectors[1000], 1).ids.tolist() == [first]
        index.remove(batch)
        assert index.search(vectors[1000], 1).ids[0] <= 1000
        first += 50
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(forms) >= 4
    assert index.settle(60)
    assert index.ids().tolist() == lasting.tolist()


@pytest.mark.parametrize("mapped_from", [1, 15_000])
def test_no_room_on_disk_is_told_and_changes_nothing(
    mapped_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vector_rows.MAPPED_BYTES", mapped_from)
    index = FaissIndex(16, tmp_path)
    held = added(index)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(TryLater) as caught:
            index.add(np.arange(100, 1_100), unit(1_000, 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "disk_full"
    agrees_with(index, held)
    index.add(np.arange(1_001, 2_001), unit(1_000, 16))
    assert len(index) == 1_200
