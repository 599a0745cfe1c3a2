"""Blobs in whatever fsspec reaches: S3 and its like, Google's and Azure's stores, SFTP and others, by URL.

`s3://bucket/prefix?endpoint_url=https://…`: what stands behind the question mark are options of the fsspec
implementation. Credentials are better left to where the provider's own tools look for them, such as
`AWS_ACCESS_KEY_ID`.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater, Unsupported
from rag.blobs import StoredBlob, require_key, shown_url
from rag.blobs.folder import sweep_folder, taken_in

PIECE = 8 << 20
"""Bytes of one request."""
WRITES_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""Where what is written appears at its end and at once. Elsewhere it is written aside and renamed."""
_WORDS = {"true": True, "false": False}
_AT_ONCE = 500


class RemoteBlobs:
    """Blobs under a URL. `scratch` is a folder of this machine for what is on its way; nothing stays there.

    It takes one blob for each upload and each parse at work, so it is as bounded as these are.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self._place = shown_url(url)
        parts = urlsplit(url)
        options = {name: _WORDS.get(value, value) for name, value in parse_qsl(parts.query)}
        self._secrets = [part for part in (parts.password, *map(str, options.values())) if part]
        kind = require_filesystem(parts.scheme)
        bare = url.partition("?")[0]
        self._whole = parts.scheme in WRITES_WHOLE
        with self._translated():
            # Listings are not kept: other machines write too.
            self._fs: Any = kind(
                **kind._get_kwargs_from_urls(bare),
                **_patience(parts.scheme),
                **options,
                use_listings_cache=False,
                skip_instance_cache=True,
            )
            self._root = str(kind._strip_protocol(bare)).rstrip("/")
        # S3 alone has an interface of its own for what fsspec has none.
        self._s3 = hasattr(self._fs, "call_s3")
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    def put(self, pieces: Iterable[bytes]) -> StoredBlob:
        # The key is known only once all bytes are.
        with taken_in(self._scratch, pieces, durable=False) as (aside, blob), self._translated():
            target = self._path(blob.key)
            if self._whole:
                self._fs.put_file(str(aside), target)
            else:
                self._put_aside(aside, target)
        return blob

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._translated():
            try:
                return bool(self._fs.info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    def pieces(self, key: str) -> Iterator[bytes]:
        path = self._path(key)
        with self._translated(key):
            size = int(self._fs.info(path)["size"])
        return self._checked(key, path, size)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        with taken_in(self._scratch, self.pieces(key), durable=False) as (copy, _):
            yield copy

    def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        with self._translated():
            for start in range(0, len(paths), _AT_ONCE):
                self._remove(paths[start : start + _AT_ONCE])

    def keys(self, older_than: float) -> Iterator[list[str]]:
        before = time.time() - older_than
        for folder in self._folders():
            with self._translated():
                found = self._fs.find(folder, detail=True)
            old = [path.rpartition("/")[2] for path, info in found.items() if _written(info) < before]
            for start in range(0, len(old), _AT_ONCE):
                yield old[start : start + _AT_ONCE]

    def sweep_incoming(self, older_than: float = 3600.0) -> None:
        sweep_folder(self._scratch, older_than)
        before = time.time() - older_than
        with self._translated():
            if self._s3:
                self._abort_uploads(before)
            elif not self._whole and self._fs.exists(f"{self._root}/incoming"):
                found = self._fs.find(f"{self._root}/incoming", detail=True)
                self._remove([path for path, info in found.items() if _written(info) < before])

    def _path(self, key: str) -> str:
        return f"{self._root}/{require_key(key)[:2]}/{key}"

    def _put_aside(self, file: Path, target: str) -> None:
        aside = f"{self._root}/incoming/{secrets.token_hex(16)}"
        for path in (aside, target):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(file), aside)
        self._fs.mv(aside, target)

    def _checked(self, key: str, path: str, size: int) -> Iterator[bytes]:
        digest, held = hashlib.sha256(), b""
        for start in range(0, size, PIECE):
            with self._translated(key):
                piece = self._fs.cat_file(path, start=start, end=min(start + PIECE, size))
            digest.update(piece)
            if held:
                yield held
            held = piece
        if digest.hexdigest() != key:
            raise NotThere(
                f"The stored file {key} is damaged: its bytes in {self._place} are others. Upload it again.",
                code="blob_damaged",
            )
        yield held

    def _folders(self) -> list[str]:
        with self._translated():
            try:
                inside = [str(path).rstrip("/") for path in self._fs.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []
        return sorted(path for path in inside if len(path.rpartition("/")[2]) == 2)

    def _remove(self, paths: Sequence[str]) -> None:
        if self._s3 and paths:
            bucket = self._fs.split_path(self._root)[0]
            gone = {"Objects": [{"Key": self._fs.split_path(path)[1]} for path in paths], "Quiet": True}
            errors = self._fs.call_s3("delete_objects", Bucket=bucket, Delete=gone).get("Errors")
            if errors:
                raise PermissionError(errors[0].get("Message", "deleting was refused"))
            return
        for path in paths:
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                continue

    def _abort_uploads(self, before: float) -> None:
        """Give up uploads in parts that a crash left: their parts are stored, and paid for, until somebody does."""
        bucket, prefix, _ = self._fs.split_path(self._root)
        listed = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
        for upload in listed.get("Uploads") or ():
            if upload["Initiated"].timestamp() < before:
                named = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._fs.call_s3("abort_multipart_upload", **named)

    @contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except RagError:
            raise
        except Exception as error:  # every implementation has errors of its own
            raise self._explain(error, key) from error

    def _explain(self, error: Exception, key: str | None) -> RagError:
        words = f"{type(error).__name__}: {error}".strip(": ")
        for secret in self._secrets:
            words = words.replace(secret, "***")
        if isinstance(error, FileNotFoundError):
            if key is not None:
                return NotThere(f"The stored file {key} is gone from {self._place}.", code="blob_not_found")
            return ChangeRequest(
                f"The blob store {self._place} is not there ({words}). Make it, or correct the setting `blobs`.",
                code="no_such_bucket",
            )
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC:
            return TryLater(f"The blob store {self._place} is full. Free some space there.", code="storage_full")
        if isinstance(error, PermissionError) or number == errno.EINVAL or "Credential" in type(error).__name__:
            return ChangeRequest(
                f"The blob store {self._place} does not let this process in ({words}). Correct its credentials and "
                "what they may do, or the setting `blobs`.",
                code="blobs_refused",
            )
        return TryLater(
            f"The blob store {self._place} cannot be used ({words}). See that it runs and can be reached.",
            code="blobs_unavailable",
            retry_after=1.0,
        )


def require_filesystem(scheme: str) -> Any:
    """The fsspec class for a kind of URL. Raises Unsupported, which says what to install."""
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        install = "pip install 'rag[s3]'" if scheme in ("s3", "s3a") else str(error)
        raise Unsupported(f"Blobs at {scheme}:// need another package: {install}", code="missing_package") from error
    except ValueError as error:
        raise Unsupported(
            f"Blobs cannot be kept at {scheme}://. Known are file, s3, gs, abfs, sftp and the others of fsspec.",
            code="unknown_blobs",
        ) from error


def _patience(scheme: str) -> Mapping[str, Any]:
    """Options that let S3 say within half a minute that it is out of reach."""
    if scheme not in ("s3", "s3a"):
        return {}
    return {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}}}


def _written(info: Mapping[str, Any]) -> float:
    """When a blob was written, in seconds since 1970; one that does not say so counts as written just now."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        found = info.get(name)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, str):
            return datetime.fromisoformat(found).timestamp()
        if isinstance(found, int | float):
            return float(found)
    return time.time()
