"""Blob stores that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from indexes.errors import NotThere
from rag.blobs import StoredBlob
from rag.blobs.remote import RemoteBlobs


class KeyIsNotTheHash(RemoteBlobs):
    def put(self, pieces):
        made = super().put(pieces)
        other = secrets.token_hex(32)
        self._fs.pipe_file(self._path(other), self._fs.cat_file(self._path(made.key)))
        return StoredBlob(other, made.size)


class SizeOfTheFirstPiece(RemoteBlobs):
    def put(self, pieces):
        pieces = list(pieces)
        return StoredBlob(super().put(pieces).key, len(pieces[0]) if pieces else 0)


class SeenWhileItGrows(RemoteBlobs):
    def put(self, pieces):
        taken = []
        for piece in pieces:
            taken.append(piece)
            super().put(taken)
        return super().put(taken)


class KeepsWhatBrokeOff(RemoteBlobs):
    def put(self, pieces):
        taken = []
        try:
            for piece in pieces:
                taken.append(piece)
        except RuntimeError:
            super().put(taken)
            raise
        return super().put(taken)


class KeptInThisProcessOnly(RemoteBlobs):
    def __init__(self, url, scratch):
        super().__init__(f"{url}/{secrets.token_hex(4)}", scratch)


class TakesNothingTwice(RemoteBlobs):
    def put(self, pieces):
        pieces = list(pieces)
        made = super().put(pieces)
        if made.key in getattr(self, "taken", set()):
            raise FileExistsError(made.key)
        self.taken = {*getattr(self, "taken", set()), made.key}
        return made


class FirstTimeCounts(RemoteBlobs):
    """Skips the writing of what is there, which leaves its age, and its damage, as they were."""

    def _put_aside(self, file, target):
        if not self._fs.exists(target):
            super()._put_aside(file, target)


class DeletesNothing(RemoteBlobs):
    def delete(self, keys):
        for key in keys:
            self._path(key)


class DeletesTheFirstOnly(RemoteBlobs):
    def delete(self, keys):
        super().delete(keys[:1])
        super().exists("a" * 64 if all(len(key) == 64 for key in keys) else "")


class DeletesItsNeighbours(RemoteBlobs):
    def delete(self, keys):
        super().delete(keys)
        if keys:
            super().delete([key for found in super().keys(-60.0) for key in found][:1])


class DeletingWhatIsGoneFails(RemoteBlobs):
    def delete(self, keys):
        for key in keys:
            if not self.exists(key):
                raise NotThere(key)
        super().delete(keys)


class StopsAtWhatIsGone(RemoteBlobs):
    def delete(self, keys):
        for key in keys:
            if not self.exists(key):
                return
            super().delete([key])


class AlwaysThere(RemoteBlobs):
    def exists(self, key):
        return bool(self._path(key))


class NeverThere(RemoteBlobs):
    def exists(self, key):
        return not self._path(key)


class RemembersWhatWasThere(RemoteBlobs):
    def exists(self, key):
        self.seen = getattr(self, "seen", set())
        if super().exists(key):
            self.seen.add(key)
        return key in self.seen


class AgeIgnored(RemoteBlobs):
    def keys(self, older_than):
        return super().keys(-60.0)


class AgeTurnedRound(RemoteBlobs):
    def keys(self, older_than):
        old = {key for keys in super().keys(older_than) for key in keys}
        yield [key for keys in super().keys(-60.0) for key in keys if key not in old or older_than < 0]


class NoKeys(RemoteBlobs):
    def keys(self, older_than):
        return iter(())


class KeysWithTheirFolders(RemoteBlobs):
    def keys(self, older_than):
        for keys in super().keys(older_than):
            yield [f"{key[:2]}/{key}" for key in keys]


class ReadsUnchecked(RemoteBlobs):
    def _checked(self, key, path, size):
        yield self._fs.cat_file(path)


class ChecksTooLate(RemoteBlobs):
    """Gives the last piece out and then says that it was damaged."""

    def _checked(self, key, path, size):
        yield self._fs.cat_file(path)
        yield from super()._checked(key, path, size)


class CopiesUnchecked(RemoteBlobs):
    @contextmanager
    def local(self, key):
        copy = self._scratch / secrets.token_hex(8)
        try:
            self._fs.get_file(self._path(key), str(copy))
        except FileNotFoundError as error:
            raise NotThere(key) from error
        yield copy
        copy.unlink()


class CopiesTheFirstPiece(RemoteBlobs):
    @contextmanager
    def local(self, key):
        with super().local(key) as path:
            path.write_bytes(path.read_bytes()[:1_000_000])
            yield path


class WhatIsGoneIsEmpty(RemoteBlobs):
    def pieces(self, key):
        try:
            return super().pieces(key)
        except NotThere:
            self._path(key)
            return iter(())


class WhatIsGoneIsToldLate(RemoteBlobs):
    def pieces(self, key):
        self._path(key)
        return (piece for piece in [key] for piece in super(WhatIsGoneIsToldLate, self).pieces(piece))


class AllInOnePiece(RemoteBlobs):
    def pieces(self, key):
        return iter([b"".join(super().pieces(key))])


class AnyNameWillDo(RemoteBlobs):
    def _path(self, key):
        return f"{self._root}/{key[:2]}/{key}"


class SweepsWhatOthersWrite(RemoteBlobs):
    def sweep_incoming(self, older_than=3600.0):
        for left in Path(self._scratch).iterdir():
            left.unlink()


class ForgetsAtASweep(RemoteBlobs):
    def sweep_incoming(self, older_than=3600.0):
        if older_than < 0:
            for keys in list(super().keys(older_than)):
                super().delete(keys)


class OneNameForWhatIsOnItsWay(RemoteBlobs):
    """Writers at the same time write into one another's file."""

    def put(self, pieces):
        aside = self._scratch / "aside"
        with aside.open("ab", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.002)  # so that others come in between, however busy the machine is
        content = aside.read_bytes()
        with suppress(FileNotFoundError):
            aside.unlink()
        return super().put([content])


LIARS = tuple(kind for kind in list(globals().values()) if isinstance(kind, type) and RemoteBlobs in kind.__bases__)
