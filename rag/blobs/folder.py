"""Blobs in a folder of this machine."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from indexes.disk import sync
from indexes.errors import NotThere, TryLater
from rag.blobs import StoredBlob, require_key

PIECE = 1 << 20


class BlobFolder:
    """Blobs in a folder, one file each, written aside and renamed into place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "incoming").mkdir(parents=True, exist_ok=True)

    def put(self, pieces: Iterable[bytes]) -> StoredBlob:
        with taken_in(self._folder / "incoming", pieces, durable=True) as (aside, blob):
            try:
                target = self._path(blob.key)
                if not target.parent.is_dir():
                    target.parent.mkdir(exist_ok=True)
                    sync(self._folder)
                aside.replace(target)
                sync(target.parent)
            except OSError as error:
                raise disk_full(blob.size, error) from error
        return blob

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def pieces(self, key: str) -> Iterator[bytes]:
        return _read(self._present(key).open("rb"))

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        yield self._present(key)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def keys(self, older_than: float) -> Iterator[list[str]]:
        before = time.time() - older_than
        for folder in sorted(self._folder.glob("??")):
            with os.scandir(folder) as entries:
                found = [entry.name for entry in entries if entry.stat().st_mtime < before]
            for start in range(0, len(found), 500):
                yield found[start : start + 500]

    def sweep_incoming(self, older_than: float = 3600.0) -> None:
        sweep_folder(self._folder / "incoming", older_than)

    def _path(self, key: str) -> Path:
        return self._folder / require_key(key)[:2] / key

    def _present(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise NotThere(f"The stored file {key} is gone from the data folder.", code="blob_not_found")
        return path


@contextmanager
def taken_in(folder: Path, pieces: Iterable[bytes], *, durable: bool) -> Iterator[tuple[Path, StoredBlob]]:
    """A file with these bytes in `folder`, which is the caller's to move away, and what its blob is called.

    Raises TryLater (`storage_full`) when the disk does not take them.
    """
    aside = folder / secrets.token_hex(16)
    digest, size = hashlib.sha256(), 0
    try:
        try:
            with aside.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise disk_full(size, error) from error
        yield aside, StoredBlob(digest.hexdigest(), size)
    finally:
        aside.unlink(missing_ok=True)


def disk_full(size: int, error: OSError) -> TryLater:
    """What to tell when this machine's disk did not take a blob."""
    return TryLater(
        f"The data folder did not take a file of {size} bytes or more: {error.strerror}. "
        "Free some space and send it again.",
        code="storage_full",
    )


def sweep_folder(folder: Path, older_than: float) -> None:
    """Remove the files that have not grown for so many seconds."""
    before = time.time() - older_than
    for left in folder.iterdir():
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < before:
                left.unlink()


def _read(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
