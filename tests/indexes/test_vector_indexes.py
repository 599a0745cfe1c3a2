"""Every vector index against the contract, beside changes in other threads, and at sizes where engines switch paths."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from indexes import VECTOR_INDEXES, open_vector_index
from indexes.faiss_forms import Scan
from indexes.vector import VectorIndex
from tests.contracts.vector_index import CHECKS, HERE_CHECKS, agree, truth, unit


@pytest.mark.parametrize("check", CHECKS + HERE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VECTOR_INDEXES)
def test_contract(name: str, check: Callable[[Callable[[int], VectorIndex]], None]) -> None:
    check(lambda dimension: open_vector_index(name, dimension))


def test_faiss_agrees_with_the_truth_on_each_of_its_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathered, masked, unmasked with tombstones, and many ties at the last place; at random sizes."""
    rng = np.random.default_rng(0)
    for gather in (0, 10**9):
        monkeypatch.setattr("indexes.faiss.GATHER_COUNT", gather)
        monkeypatch.setattr("indexes.faiss.GATHER_SHARE", 0.0)
        index, held = open_vector_index("faiss", 8), {}
        for step in range(40):
            ids = rng.choice(np.arange(1, 500), rng.integers(1, 60), replace=False)
            vectors = unit(20, seed=100)[rng.integers(0, 20, len(ids))] if step % 2 else unit(len(ids), seed=step)
            index.add(ids, vectors)
            held |= dict(zip(ids.tolist(), vectors, strict=True))
            gone = rng.choice(np.arange(1, 500), rng.integers(0, 90), replace=False)
            index.remove(gone)
            held = {id_: vector for id_, vector in held.items() if id_ not in set(gone.tolist())}
            query, k = unit(20, seed=100)[step % 20], int(rng.integers(1, 40))
            agree(index.search(query, k), truth(held, query, k))
            allowed = np.sort(rng.choice(np.arange(1, 500), rng.integers(0, 400), replace=False))
            agree(index.search(query, k, allowed), truth(held, query, k, allowed))


def test_faiss_finds_what_lies_behind_many_that_were_removed() -> None:
    index, vectors, copy = open_vector_index("faiss", 8), unit(1000, seed=13), unit(1, seed=14)
    index.add(np.arange(1, 1001), vectors)
    index.add(np.arange(2001, 2401), np.tile(copy, (400, 1)))
    index.remove(np.arange(2001, 2401))
    held = dict(zip(range(1, 1001), vectors, strict=True))
    for k in (1, 10, 999, 1000):
        agree(index.search(copy[0], k), truth(held, copy[0], k))


@pytest.mark.parametrize("dimension", [8, 384])
def test_faiss_tells_apart_what_half_precision_does_not(dimension: int) -> None:
    """2,000 vectors around one, closer together than the index scans; whatever is proposed, the result is exact."""
    rng = np.random.default_rng(7)
    near = unit(1, dimension, seed=8) + rng.standard_normal((2000, dimension)) * 1e-4
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    index = open_vector_index("faiss", dimension)
    index.add(np.arange(1, 2001), vectors)
    index.add(np.arange(3001, 4001), unit(1000, dimension, seed=9))
    held = dict(zip(index.ids().tolist(), np.concatenate([vectors, unit(1000, dimension, seed=9)]), strict=True))
    for query in (vectors[0], *unit(5, dimension, seed=10)):
        for allowed in (None, np.arange(1, 3500)):
            found, best = index.search(query, 10, allowed), truth(held, query, 10, allowed)
            np.testing.assert_allclose(found.scores, [score for _, score in best], atol=1e-7)


@pytest.mark.parametrize("dimension", [2, 384, 4096])
def test_half_precision_strays_no_further_than_the_index_allows_for(dimension: int) -> None:
    scan = Scan(dimension)
    vectors, queries = unit(3000, dimension, seed=11), unit(3, dimension, seed=12)
    vectors[0], vectors[1] = np.eye(1, dimension), np.full(dimension, dimension**-0.5)
    scan.put(np.arange(3000), scan.prepared(vectors))
    for query in queries:
        scanned, rows = scan.search(query, 3000, None)
        assert np.abs(scanned - vectors[rows].astype(np.float64) @ query.astype(np.float64)).max() < Scan.stray / 2


@pytest.mark.parametrize("name", VECTOR_INDEXES)
def test_searches_beside_changes_never_see_a_half_done_one(name: str) -> None:
    """Ids 1 to 1000 stay; batches of 50 come and go. A reader sees these right, and of a batch all or none."""
    index = open_vector_index(name, 64)
    vectors = unit(1050, 64, seed=1)
    lasting = np.arange(1, 1001)
    index.add(lasting, vectors[:1000])
    stop, faults, searches = threading.Event(), [], [0]

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                row = int(rng.integers(0, 1000))
                assert index.search(vectors[row], 3).ids[0] == row + 1
                assert index.search(vectors[row], 3, lasting[row:]).ids[0] == row + 1
                everything = index.search(vectors[row], 2000).ids
                assert len(everything) in (1000, 1050)
                assert len(np.unique(everything)) == len(everything)
                searches[0] += 1
        except Exception as error:  # noqa: BLE001  (told to the main thread)
            faults.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    end, first = time.monotonic() + 1.0, 10_001
    while not faults and (time.monotonic() < end or searches[0] <= 10) and time.monotonic() < end + 20:
        batch = np.arange(first, first + 50)
        index.add(batch, vectors[1000:])
        index.remove(batch)
        first += 50
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert searches[0] > 10
    assert first > 10_001
    assert index.ids().tolist() == lasting.tolist()
