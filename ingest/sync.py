"""Folder sync: what a folder holds, what a store holds of it, and what must be done to make them equal.

Nothing here speaks to a store. `scan` reads the folder, `plan` compares; whoever calls them acts.

    scan of `docs/`               stored below `docs/`        plan
    docs/a.md       sha 1         docs/a.md     sha 1         unchanged
    docs/b.md       sha 2         docs/b.md     sha 9         replace
    docs/c.md       sha 3                                     add
                                  docs/d.md     sha 4         remove
    docs/locked/    unreadable    docs/locked/e sha 5         kept: nobody knows whether it is gone
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexes.errors import ChangeRequest, NotThere


@dataclass(frozen=True)
class ScannedFile:
    """A file as it was read: `source` is its name in a store, `sha256` 64 hexadecimal digits, `bytes` its size."""

    path: Path
    source: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Skipped:
    """Something that was not read, and why. `source` ends in `/` for a folder."""

    source: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds. Every source begins with `prefix`: the folder's own name and a slash."""

    folder: Path
    prefix: str
    files: tuple[ScannedFile, ...]
    unreadable: tuple[Skipped, ...]
    """Files and folders that are there but could not be read: what a store holds of them is left alone."""
    links: tuple[Skipped, ...]
    """Links that are not followed."""
    hidden: int
    """Files and folders whose names begin with a dot."""

    @property
    def address(self) -> str:
        """The folder's path as text, whatever bytes it consists of."""
        return str(self.folder).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class SyncPlan:
    """What makes a store equal to a scan. `held` counts what it holds below the prefix, `remove` and `kept` name it."""

    add: tuple[ScannedFile, ...]
    replace: tuple[ScannedFile, ...]
    unchanged: tuple[ScannedFile, ...]
    remove: tuple[str, ...]
    kept: tuple[str, ...]
    """Not found, but below something unreadable."""
    held: int

    @property
    def removes_much(self) -> bool:
        """Whether more than a third of what is held would go."""
        return len(self.remove) * 3 > self.held

    @property
    def changes_much(self) -> bool:
        """Whether more than a third of what is held would go or become another text."""
        return (len(self.remove) + len(self.replace)) * 3 > self.held


def scan(folder: Path) -> Scan:
    """Read a folder and everything below it.

    Hidden files are left out. Links to files inside are read; links that lead outside, and links to folders, are
    not followed. Raises NotThere for a folder that does not exist and ChangeRequest for one that cannot be read.
    """
    top = Path(os.path.realpath(folder.expanduser()))
    if not top.exists():
        raise NotThere(f"There is no folder {folder}. Is the disk that it lies on mounted?", code="folder_not_found")
    if not top.is_dir() or not top.name:
        raise ChangeRequest(f"{top} cannot be synced as a folder. Name one below it.", code="not_a_folder")
    walk = _Walk(top)
    try:
        entries = _entries(top)
    except OSError as error:
        raise ChangeRequest(
            f"The folder {top} cannot be read: {error.strerror}. Nothing was changed; make it readable.",
            code="folder_unreadable",
        ) from error
    files = tuple(walk.files_of(entries, f"{top.name}/"))
    return Scan(top, f"{top.name}/", files, tuple(walk.unreadable), tuple(walk.links), walk.hidden)


def scan_file(path: Path) -> ScannedFile:
    """One file, named in a store by its whole path: it is the same from every working directory.

    Raises NotThere and ChangeRequest as `scan` does.
    """
    full = Path(os.path.realpath(path.expanduser()))
    if not full.exists():
        raise NotThere(f"There is no file or folder {path}.", code="path_not_found")
    if not full.is_file() or not _is_unicode(str(full)):
        raise ChangeRequest(f"{path} is not a regular file with a name in UTF-8.", code="not_a_file")
    try:
        return _read(full, str(full))
    except OSError as error:
        raise ChangeRequest(f"{path} cannot be read: {error.strerror}.", code="file_unreadable") from error


def place_below(folder: Path, path: Path) -> str | None:
    """Where a scan of `folder` finds `path`: the names below it with slashes between. None for what lies elsewhere,
    and for what a scan leaves out because it is hidden. Both paths are real ones."""
    if path == folder or not path.is_relative_to(folder):
        return None
    names = path.relative_to(folder).parts
    return None if any(name.startswith(".") for name in names) else "/".join(names)


def plan(found: Scan, stored: Mapping[str, str]) -> SyncPlan:
    """Compare a scan with a store's documents, source to SHA-256; those outside the scan's prefix do not matter.

    Raises ChangeRequest (`folder_empty`) when the folder holds nothing at all where the store holds something: that
    is what a disk looks like that is not mounted.
    """
    held = {source: sha256 for source, sha256 in stored.items() if source.startswith(found.prefix)}
    if held and not found.files and not found.unreadable:
        raise ChangeRequest(
            f"The folder {found.folder} is empty, but the store holds {len(held)} documents from {found.prefix}. Is a "
            "disk not mounted? Nothing was changed; to remove them all the same, use `rag delete`.",
            code="folder_empty",
        )
    here = {file.source for file in found.files}
    gone = sorted(source for source in held if source not in here)
    kept = tuple(source for source in gone if _is_below(source, found.unreadable))
    return SyncPlan(
        add=tuple(file for file in found.files if file.source not in held),
        replace=tuple(f for f in found.files if f.source in held and held[f.source] != f.sha256),
        unchanged=tuple(f for f in found.files if held.get(f.source) == f.sha256),
        remove=tuple(source for source in gone if source not in set(kept)),
        kept=kept,
        held=len(held),
    )


class _Walk:
    """One walk through a folder, and what it could not take along."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.unreadable: list[Skipped] = []
        self.links: list[Skipped] = []
        self.hidden = 0

    def files_of(self, entries: Sequence[os.DirEntry[str]], prefix: str) -> Iterator[ScannedFile]:
        for entry in entries:
            if entry.name.startswith("."):
                self.hidden += 1
                continue
            if not _is_unicode(entry.name):
                name = entry.name.encode("utf-8", "backslashreplace").decode()
                self.unreadable.append(Skipped(prefix + name, "its name is not UTF-8"))
                continue
            source = prefix + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self.files_of(_entries(Path(entry.path)), f"{source}/")
                elif path := self.resolved(entry, source):
                    yield _read(path, source)
            except OSError as error:
                folder = entry.is_dir(follow_symlinks=False)
                self.unreadable.append(Skipped(f"{source}/" if folder else source, error.strerror or str(error)))

    def resolved(self, entry: os.DirEntry[str], source: str) -> Path | None:
        """The regular file that an entry stands for; None, having noted why, when it is not to be read."""
        path = Path(entry.path)
        if entry.is_symlink():
            target = Path(os.path.realpath(path, strict=True))
            if not target.is_relative_to(self.top):
                self.links.append(Skipped(source, f"leads out of the folder, to {target}"))
                return None
            if target.is_dir():
                self.links.append(Skipped(source, "leads to a folder that is read at its own place"))
                return None
            path = target
        if not stat.S_ISREG(path.stat().st_mode):
            self.links.append(Skipped(source, "is not a regular file"))
            return None
        return path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _read(path: Path, source: str) -> ScannedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ScannedFile(path, source, digest, file.tell())


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_below(source: str, unreadable: Sequence[Skipped]) -> bool:
    return any(
        source == skipped.source or source.startswith(skipped.source.rstrip("/") + "/") for skipped in unreadable
    )
