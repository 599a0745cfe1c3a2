"""Originals and parsed texts, kept by content.

A blob's key is the SHA-256 of its bytes, so writing one twice is harmless and a reader can check it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexes.errors import NotThere, TryLater


@dataclass(frozen=True)
class StoredBlob:
    """What was written: its key (64 hexadecimal digits) and its size in bytes."""

    key: str
    size: int


class BlobFolder:
    """Blobs in a folder, one file each, written aside and renamed into place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "incoming").mkdir(parents=True, exist_ok=True)

    def put(self, pieces: Iterable[bytes]) -> StoredBlob:
        """Store bytes, durably: when this returns they survive a crash.

        Raises TryLater (`storage_full`) when the disk does not take them.
        """
        aside = self._folder / "incoming" / secrets.token_hex(16)
        digest, size = hashlib.sha256(), 0
        try:
            with aside.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            target = self.path(digest.hexdigest(), must_exist=False)
            if not target.parent.is_dir():
                target.parent.mkdir(exist_ok=True)
                _sync_folder(self._folder)
            aside.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise TryLater(
                f"The data folder did not take a file of {size} bytes or more: {error.strerror}. "
                "Free some space and send it again.",
                code="storage_full",
            ) from error
        finally:
            aside.unlink(missing_ok=True)
        return StoredBlob(digest.hexdigest(), size)

    def path(self, key: str, *, must_exist: bool = True) -> Path:
        """Where a blob lies. Raises NotThere when it is gone."""
        if len(key) != 64 or not all(c in "0123456789abcdef" for c in key):
            raise NotThere(f"{key!r} is not the key of a stored file.", code="blob_not_found")
        target = self._folder / key[:2] / key
        if must_exist and not target.is_file():
            raise NotThere(f"The stored file {key} is gone from the data folder.", code="blob_not_found")
        return target

    def read_text(self, key: str) -> str:
        """A blob's bytes as UTF-8 text."""
        return self.path(key).read_bytes().decode()

    def delete(self, key: str) -> None:
        """Forget a blob; one that is not there is ignored."""
        self.path(key, must_exist=False).unlink(missing_ok=True)

    def keys(self, older_than: float) -> Iterator[list[str]]:
        """The keys of all blobs written more than so many seconds ago, some hundreds at a time."""
        before = time.time() - older_than
        for folder in sorted(self._folder.glob("??")):
            with os.scandir(folder) as entries:
                found = [entry.name for entry in entries if entry.stat().st_mtime < before]
            for start in range(0, len(found), 500):
                yield found[start : start + 500]

    def sweep_incoming(self, older_than: float = 3600.0) -> None:
        """Remove what a crash left half written: what has not grown for so many seconds, as others may be writing."""
        before = time.time() - older_than
        for left in (self._folder / "incoming").iterdir():
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < before:
                    left.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
