"""The checks that every `BlobStore` must pass, over a place that can be opened more than once, as processes do."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from indexes.errors import NotThere
from rag.blobs import BlobStore, read_blob

NOT_KEYS = ("", "..", "../" * 20 + "etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 63 + "/", "/" + "a" * 63)


@dataclass(frozen=True)
class Place:
    """Where the blobs of one check lie: empty at first."""

    open: Callable[[], BlobStore]
    damage: Callable[[str], None] | None
    """Change the bytes under a key behind the store's back; None for this machine's own folder, read unchecked."""
    tick: float = 0.05
    """Seconds that the store tells apart."""


def data(size: int, seed: int = 0) -> bytes:
    return random.Random(f"{seed} {size}").randbytes(size)


def key_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def all_keys(store: BlobStore, older_than: float = -60.0) -> list[str]:
    return sorted(key for keys in store.keys(older_than) for key in keys)


def gives_back_what_it_took(place: Place) -> None:
    store = place.open()
    for size in (0, 1, 1000, (1 << 20) - 1, 1 << 20, (8 << 20) + 1, 17_000_000):
        content = data(size)
        made = store.put(content[start : start + 700_001] for start in range(0, size, 700_001))
        assert (made.key, made.size) == (key_of(content), size)
        assert read_blob(store, made.key) == content
        assert max((len(piece) for piece in store.pieces(made.key)), default=0) <= 8 << 20
        with store.local(made.key) as path:
            assert path.read_bytes() == content


def what_was_put_is_there_for_others(place: Place) -> None:
    made = place.open().put([b"for ", b"everyone"])
    other = place.open()
    assert other.exists(made.key)
    assert read_blob(other, made.key) == b"for everyone"
    assert all_keys(other) == [made.key]


def nobody_sees_half_of_it(place: Place) -> None:
    other, content = place.open(), data(3_000_000)
    there: list[object] = []

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 1_000_000):
            yield content[start : start + 1_000_000]
            there.append((other.exists(key_of(content)), all_keys(other)))

    made = place.open().put(pieces())
    assert there == [(False, [])] * 3
    assert read_blob(other, made.key) == content


def what_broke_off_leaves_nothing(place: Place) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of "
        raise RuntimeError

    store = place.open()
    with pytest.raises(RuntimeError):
        store.put(broken())
    assert all_keys(store) == []
    assert not store.exists(key_of(b"half of "))


def the_same_again_is_harmless(place: Place) -> None:
    store = place.open()
    assert store.put([b"same"]) == store.put([b"sa", b"me"]) == place.open().put([b"same"])
    assert all_keys(store) == [key_of(b"same")]
    assert read_blob(store, key_of(b"same")) == b"same"


def it_knows_what_is_there(place: Place) -> None:
    store = place.open()
    made = store.put([b"here"])
    assert store.exists(made.key)
    assert not store.exists(key_of(b"elsewhere"))
    store.delete([made.key])
    assert not store.exists(made.key)


def what_is_gone_is_not_there_at_once(place: Place) -> None:
    store = place.open()
    made = store.put([b"soon gone"])
    store.delete([made.key])
    with pytest.raises(NotThere):
        store.pieces(made.key)
    with pytest.raises(NotThere), store.local(made.key):
        pass


def deleting_takes_what_was_named_only(place: Place) -> None:
    store = place.open()
    made = [store.put([data(10, seed)]).key for seed in range(6)]
    store.delete([])
    store.delete([made[0], key_of(b"never there"), made[1], made[2]])
    assert all_keys(store) == all_keys(place.open()) == sorted(made[3:])
    store.delete(made[:1])
    assert [store.exists(key) for key in made] == [False] * 3 + [True] * 3


def keys_tell_their_age(place: Place) -> None:
    store = place.open()
    first, again = store.put([b"first"]).key, store.put([b"again"]).key
    time.sleep(3 * place.tick)
    store.put([b"again"])
    late = store.put([b"late"]).key
    assert all_keys(store) == sorted([first, again, late])
    assert all_keys(store, older_than=1.5 * place.tick) == [first]
    assert all_keys(store, older_than=3600) == []


def no_other_name_gets_through(place: Place) -> None:
    store = place.open()
    for name in NOT_KEYS:
        with pytest.raises(NotThere):
            store.exists(name)
        with pytest.raises(NotThere):
            store.pieces(name)
        with pytest.raises(NotThere), store.local(name):
            pass
        with pytest.raises(NotThere):
            store.delete([name])


def a_sweep_leaves_what_others_write(place: Place) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        place.open().sweep_incoming()
        yield b"two"

    store = place.open()
    made = store.put(pieces())
    store.sweep_incoming(older_than=-60.0)
    assert read_blob(store, made.key) == b"onetwo"


def what_is_damaged_is_not_given_out(place: Place) -> None:
    if place.damage is None:
        pytest.skip("a folder of this machine is read unchecked")
    store = place.open()
    keys = [store.put([data(size)]).key for size in (40, 9_000_000)]
    for key in keys:
        place.damage(key)
        given: list[bytes] = []
        with pytest.raises(NotThere):
            _collect(store.pieces(key), given)
        assert sum(map(len, given)) <= 8 << 20
        with pytest.raises(NotThere), store.local(key):
            pass
        store.put([data(40 if key == keys[0] else 9_000_000)])
        assert key_of(read_blob(store, key)) == key


def many_go_beside_each_other(place: Place) -> None:
    stores = [place.open(), place.open()]

    def work(number: int) -> None:
        store = stores[number % 2]
        mine = store.put([data(50_000, number)])
        shared = store.put([b"shared"])
        assert key_of(read_blob(store, mine.key)) == mine.key
        with store.local(shared.key) as path:
            assert path.read_bytes() == b"shared"
        store.delete([mine.key])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))
    assert all_keys(stores[0]) == [key_of(b"shared")]


def _collect(pieces: Iterable[bytes], into: list[bytes]) -> None:
    for piece in pieces:
        into.append(piece)


CHECKS = (
    gives_back_what_it_took,
    what_was_put_is_there_for_others,
    nobody_sees_half_of_it,
    what_broke_off_leaves_nothing,
    the_same_again_is_harmless,
    it_knows_what_is_there,
    what_is_gone_is_not_there_at_once,
    deleting_takes_what_was_named_only,
    keys_tell_their_age,
    no_other_name_gets_through,
    a_sweep_leaves_what_others_write,
    what_is_damaged_is_not_given_out,
    many_go_beside_each_other,
)
