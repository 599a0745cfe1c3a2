"""Partitions that processes share: one trains, the others and later ones take what it made.

Who holds the lock of the folder makes one and writes it aside, with a checksum and the settings that it was made with,
and renames it into place; the lock goes with the process. What does not check or does not suit is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import faiss_partition
from indexes.background import GoOn
from indexes.disk import sync
from indexes.faiss_partition import Partition

FILE, LOCK, ASIDE = "partition", "partition.lock", ".partition-"
FORMAT = 1
BYTES = hashlib.sha256().digest_size
"""Of the checksum, which stands first."""

WAIT_SECONDS = 2.0
"""How often somebody who waits for another process looks."""

log = logging.getLogger(__name__)


def obtained(
    folder: Path | None,
    dimension: int,
    suits: Callable[[Partition], bool],
    make: Callable[[], Partition],
    go_on: GoOn,
) -> Partition:
    """The partition in this folder, which is made there unless a suitable one is there; None shares nothing."""
    if folder is None:
        return make()
    while True:
        with _leased(folder) as leased:
            partition = _load(folder / FILE, dimension)
            if partition is not None and suits(partition):
                return partition
            if leased:
                partition = make()
                _save(folder, partition)
                return partition
        go_on(WAIT_SECONDS)


@contextmanager
def _leased(folder: Path) -> Iterator[bool]:
    """Whether this process shall make what is missing: no other is at it, or that cannot be told."""
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / LOCK).open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(fcntl.flock, lock, fcntl.LOCK_UN)  # a child that was forked meanwhile would hold it on
            free = True
        except BlockingIOError:
            free = False
        except OSError as error:
            log.warning("%s is not shared with others: %s", folder, error)
            free = True
        yield free


def _load(file: Path, dimension: int) -> Partition | None:
    """What the file holds; None when there is nothing to trust."""
    try:
        held = file.read_bytes()
        content = held[BYTES:]
        if hashlib.sha256(content).digest() != held[:BYTES]:
            raise ValueError("it is damaged")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if arrays["settings"].item() != _settings(dimension):
                raise ValueError("it was made with other settings")
            return Partition(**{field.name: _plain(arrays[field.name]) for field in fields(Partition)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is not used: %s", file, error)
        return None


def _save(folder: Path, partition: Partition) -> None:
    packed = io.BytesIO()
    np.savez(packed, settings=np.array(_settings(partition.centroids.shape[1])), **vars(partition))
    content = packed.getvalue()
    aside = folder / f"{ASIDE}{secrets.token_hex(8)}"
    try:
        for left in folder.glob(f"{ASIDE}*"):
            left.unlink()
        aside.write_bytes(hashlib.sha256(content).digest() + content)
        sync(aside)
        aside.replace(folder / FILE)
        sync(folder)
    except OSError as error:
        log.warning("%s is not shared with others: %s", folder, error)
        aside.unlink(missing_ok=True)


def _settings(dimension: int) -> str:
    """What a partition depends on besides the vectors."""
    made_with = (faiss_partition.LISTS_PER_ROOT, faiss_partition.SAMPLE_PER_LIST, faiss_partition.ROUNDS)
    return f"format {FORMAT}, dimension {dimension}, {made_with}, {faiss_partition.RANGE}"


def _plain(array: NDArray[Any]) -> Any:
    return array if array.ndim else array.item()
