"""Snapshots of keyword indexes, so that a new process need not analyse every text again.

A snapshot is a folder: the index's files, the ids in it, and a manifest with a checksum of each file and of what made
them. It is written aside and renamed into place. One that does not match or does not check is never used: the view is
built from the catalog instead. Ids are never reused, so a snapshot of any age is made current by dropping the ids that
are no longer visible and adding those that are new.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from indexes.disk import sync
from indexes.vector import Ids

MANIFEST = "manifest.json"
IDS = "ids.npy"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a snapshot was made from; all of it must match."""

    incarnation: str
    generation: int
    chunk_set: int
    space: str
    """The fingerprint of the space: the words are of none, but what serves one is never taken for another's."""
    keyword_index: str
    format: int = 3


def save(folder: Path, origin: Origin, words: Path, ids: Ids) -> bool:
    """Write a snapshot of the keyword index in `words`, which holds `ids` and must not change meanwhile.

    `folder` holds one generation's snapshots. False when another process is writing one, or the disk does not take it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "writer.lock").open("wb")
    except OSError as error:
        log.warning("no snapshot of generation %d: %s", origin.generation, error)
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        aside = folder / f".{secrets.token_hex(8)}"
        try:
            for left in folder.glob(".*"):
                shutil.rmtree(left, ignore_errors=True)
            _write(aside, origin, words, ids)
            before = sorted(folder.glob("words-*"))
            newest = 1 + max((int(name.name.partition("-")[2]) for name in before), default=0)
            aside.replace(folder / f"words-{newest:012d}")
            sync(folder)
        except OSError as error:
            log.warning("no snapshot of generation %d: %s", origin.generation, error)
            shutil.rmtree(aside, ignore_errors=True)
            return False
        for old in before:
            shutil.rmtree(old, ignore_errors=True)
    return True


def load(folder: Path, origin: Origin, words: Path) -> Ids | None:
    """Put the newest sound snapshot's index into the (absent) folder `words`.

    Returns the ids in it, ascending; None, and nothing in `words`, when there is no snapshot to trust.
    """
    for snapshot in sorted(folder.glob("words-*"), reverse=True):
        try:
            ids = _read(snapshot, origin, words)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the snapshot %s is not used: %s", snapshot.name, error)
        else:
            return ids
        shutil.rmtree(words, ignore_errors=True)
    return None


def holds_others(folder: Path, ids: Ids) -> bool:
    """Whether a snapshot in `folder` holds any id besides these, or cannot be read."""
    for snapshot in folder.glob("words-*"):
        try:
            held = np.load(snapshot / IDS, allow_pickle=False)
        except (OSError, ValueError):
            return True
        if not np.isin(held, ids).all():
            return True
    return False


def _write(aside: Path, origin: Origin, words: Path, ids: Ids) -> None:
    aside.mkdir()
    np.save(aside / IDS, ids)
    for file in words.iterdir():
        if file.is_file() and not file.name.endswith(".lock"):
            shutil.copyfile(file, aside / file.name)
    files = {file.name: _checksum(file) for file in sorted(aside.iterdir())}
    manifest = {"origin": asdict(origin), "files": files}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    for file in aside.iterdir():
        sync(file)
    sync(aside)


def _read(snapshot: Path, origin: Origin, words: Path) -> Ids:
    manifest = json.loads((snapshot / MANIFEST).read_text())
    if manifest["origin"] != asdict(origin):
        raise ValueError("it was made from something else")
    words.mkdir(parents=True)
    for name, checksum in manifest["files"].items():
        if Path(name).name != name or _checksum(snapshot / name) != checksum:
            raise ValueError(f"{name} is damaged")
        if name != IDS:
            shutil.copyfile(snapshot / name, words / name)
    ids: Ids = np.load(snapshot / IDS, allow_pickle=False)
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise ValueError("its ids are of another kind")
    return ids


def _checksum(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
