"""Originals and parsed texts, kept by content: the contract of a blob store, and how one is opened by its URL.

A blob's key is the SHA-256 of its bytes, so writing one twice is harmless and a reader can check it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from indexes.errors import ChangeRequest, NotThere, TryLater


@dataclass(frozen=True)
class StoredBlob:
    """What was written: its key (64 hexadecimal digits) and its size in bytes."""

    key: str
    size: int


class BlobStore(Protocol):
    """Where blobs lie. Safe to use from several threads and processes.

    Every method raises TryLater where the store is out of reach or full (`blobs_unavailable`, `storage_full`) and
    ChangeRequest where it does not let this process in or is not there (`blobs_refused`, `no_such_bucket`). What is
    not the form of a key is NotThere (`blob_not_found`).
    """

    def put(self, pieces: Iterable[bytes]) -> StoredBlob:
        """Store bytes: when this returns they survive a crash, and until then nobody sees any of them. What was there
        under the same key counts as written now."""
        ...

    def exists(self, key: str) -> bool:
        """Whether a blob is there."""
        ...

    def pieces(self, key: str) -> Iterator[bytes]:
        """A blob's bytes, in pieces of bounded size. Raises NotThere at once when it is gone.

        From a store that is not this machine's own, the last piece comes only once all of them are known to be those
        of the key; otherwise NotThere (`blob_damaged`) comes in its place.
        """
        ...

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A file of this machine with a blob's bytes, for as long as the context lasts; not to be written to.

        Raises as `pieces` does.
        """
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Forget blobs; those that are not there are ignored."""
        ...

    def keys(self, older_than: float) -> Iterator[list[str]]:
        """The keys of all blobs written more than so many seconds ago, some hundreds at a time."""
        ...

    def sweep_incoming(self, older_than: float = 3600.0) -> None:
        """Remove what a crash left half written: what has not grown for so many seconds, as others may be writing."""
        ...


_KEY = re.compile("[0-9a-f]{64}")


def require_key(key: str) -> str:
    """The key itself. Raises NotThere for what cannot be one."""
    if not _KEY.fullmatch(key):
        raise NotThere(f"{key!r} is not the key of a stored file.", code="blob_not_found")
    return key


def open_blobs(folder: Path, url: str | None = None) -> BlobStore:
    """The blob store of an installation: by default a folder in the data folder, else what the URL names."""
    from rag.blobs.folder import BlobFolder

    place = folder_of(folder, url)
    if place is not None:
        return BlobFolder(place)
    from rag.blobs.remote import RemoteBlobs

    assert url is not None
    return RemoteBlobs(url, folder / "incoming")


def folder_of(folder: Path, url: str | None) -> Path | None:
    """The folder that the blobs lie in; None when they lie elsewhere. Raises as `require_blobs` does."""
    if url is None:
        return folder / "blobs"
    require_blobs(url)
    return Path(unquote(urlsplit(url).path)) if urlsplit(url).scheme == "file" else None


def require_blobs(url: str) -> None:
    """See that a URL names a kind of blob store that can be opened; nothing is opened.

    Raises ChangeRequest and Unsupported, which says what to install; no message repeats the URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or (parts.scheme == "file" and (parts.netloc or not parts.path)):
        raise ChangeRequest(
            "The blob store's address is not a URL. It looks like s3://bucket/prefix or file:///folder.",
            code="bad_blobs_url",
        )
    if parts.scheme != "file":
        from rag.blobs.remote import require_filesystem

        require_filesystem(parts.scheme)


def shown_url(url: str) -> str:
    """A blob store's URL as it may be shown: without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def place_of(url: str | None) -> str:
    """What tells one blob store from another, and may be shown: the URL without secrets, with the server's address."""
    if url is None:
        return "blobs in the data folder"
    endpoint = dict(parse_qsl(urlsplit(url).query)).get("endpoint_url")
    return shown_url(url) + (f"?endpoint_url={shown_url(endpoint)}" if endpoint else "")


def read_blob(blobs: BlobStore, key: str) -> bytes:
    """All bytes of a blob. Raises NotThere."""
    return b"".join(blobs.pieces(key))


def try_out(blobs: BlobStore) -> None:
    """Write, read and delete a small blob. Raises what the store raises."""
    made = blobs.put([os.urandom(16)])
    try:
        if len(read_blob(blobs, made.key)) != made.size:
            raise TryLater("The blob store gave back other bytes than it took.", code="blob_damaged")
    finally:
        blobs.delete([made.key])
