"""`rag ingest`: files and folders into a store, and the wait for their end."""

from __future__ import annotations

import glob
import itertools
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from api.client import Client, Json
from api.commands.call import FAILED, Call, open_client
from api.commands.output import note, print_json, print_text
from api.commands.progress import Bar
from indexes.errors import ChangeRequest, NotThere, TryLater
from ingest.sync import Scan, ScannedFile, SyncPlan, place_below, plan, scan, scan_file

UPLOADS = 4
"""Files on their way at once."""
TRIES = 5
ENDED = ("completed", "failed", "cancelled")
_WINDOW = 500
"""Files of a store that one look reads: work goes in the order of the list, so what moves is near its front."""


@dataclass(frozen=True)
class Given:
    """What the paths on the command line stand for."""

    folders: tuple[Scan, ...]
    files: tuple[ScannedFile, ...]


@dataclass
class Outcome:
    """What one run did. Sources by what became of them."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    hidden: int = 0
    completed: int = 0
    embedded: int = 0
    embedded_tokens: int = 0


def run(
    call: Call,
    paths: Sequence[Path],
    store: str,
    *,
    wait: bool,
    yes: bool,
    embedder: str | None,
    permissions: Sequence[str] | None,
) -> None:
    """Ingest; exits with 1 when a document failed or something could not be read. `permissions` are the tags of all
    that is ingested, also of what has not changed; None leaves those that are there."""
    started = time.monotonic()
    if not store.strip():
        raise ChangeRequest("A store needs a name that is not empty.", code="invalid_value", param="store")
    given = read_paths(paths)
    _note_skipped(given)
    with open_client(call, jobs=wait) as client:
        if store.startswith("vs_"):
            client.store(store)  # raises: an id that is not there is no name for a new store
        target = client.create_store(store, embedder, only_if_absent=True)
        stored = {file["source"]: file for file in client.files(target["id"])}
        known = {folder["prefix"]: folder for folder in client.folders(target["id"])}
        given = _placed(given, known, stored)
        plans = [
            _checked(plan(found, _hashes(stored)), found, store, known.get(found.prefix), yes=yes)
            for found in given.folders
        ]
        for found in given.folders:
            client.remember_folder(target["id"], found.prefix, found.address, replace=found.prefix in known)
        todo = _todo(given, plans, stored)
        if permissions is not None:
            _set_permissions(client, target["id"], [stored[source] for source in todo.there], permissions)
        outcome = _carry_out(call, client, target["id"], todo, stored, plans, permissions, wait=wait)
    _report(call, target, outcome, time.monotonic() - started, waited=wait)
    if outcome.failed or outcome.unreadable:
        raise SystemExit(FAILED)


def read_paths(paths: Sequence[Path]) -> Given:
    """Scan what is named. A pattern stands for the files and folders that it matches, as where the shell expands it; a
    folder below another one that is named is part of that one.

    Raises NotThere for a path that does not exist and ChangeRequest for two folders of one name, whose documents
    could not be told apart.
    """
    tops: list[Path] = []
    files: dict[str, ScannedFile] = {}
    for path in itertools.chain.from_iterable(_matches(path.expanduser()) for path in paths):
        with _reachable(path):
            is_folder = path.is_dir()
        if is_folder:
            tops.append(Path(os.path.realpath(path)))
        else:
            file = scan_file(path)
            files[file.source] = file
    folders: dict[str, Scan] = {}
    for top in dict.fromkeys(tops):
        if any(place_below(other, top) for other in tops):
            continue
        found = scan(top)
        if folders.setdefault(found.prefix, found) is not found:
            raise ChangeRequest(
                f"{found.folder} and {folders[found.prefix].folder} have the same name, and the documents of a "
                "folder go by it. Ingest them into different stores.",
                code="same_folder_name",
            )
    return Given(tuple(folders.values()), tuple(files.values()))


def _matches(path: Path) -> list[Path]:
    with _reachable(path):
        if not glob.has_magic(str(path)) or path.exists():
            return [path]
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not found:
            _list(Path(*itertools.takewhile(lambda name: not glob.has_magic(name), path.parts)))
            raise NotThere(f"Nothing matches {path}.", code="path_not_found")
    return found


def _list(folder: Path) -> None:
    """Raise OSError for a folder that cannot be read: a pattern below it matches nothing, whatever there is."""
    if folder.is_dir():
        os.listdir(folder)


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChangeRequest(
            f"{path} cannot be reached: {error.strerror}. Nothing was changed; make the folders above it readable.",
            code="path_unreadable",
        ) from error


def _placed(given: Given, known: Mapping[str, Json], stored: Mapping[str, Json]) -> Given:
    """Name the files that lie below a folder of the store as that folder's sync does: they are its documents."""
    here = socket.gethostname()
    folders = {prefix: Path(folder["path"]) for prefix, folder in known.items() if folder["host"] == here}
    folders |= {found.prefix: found.folder for found in given.folders}
    scanned = {file.source for found in given.folders for file in found.files}
    files = (replace(file, source=_source_of(file, folders, stored)) for file in given.files)
    return Given(given.folders, tuple(file for file in files if file.source not in scanned))


def _source_of(file: ScannedFile, folders: Mapping[str, Path], stored: Mapping[str, Json]) -> str:
    if file.source in stored:  # put there by itself, before the folder was
        return file.source
    places = ((prefix, place_below(folder, file.path)) for prefix, folder in folders.items())
    return next((prefix + place for prefix, place in places if place), file.source)


def _hashes(stored: Mapping[str, Json]) -> dict[str, str]:
    return {source: file["sha256"] for source, file in stored.items()}


def _checked(todo: SyncPlan, found: Scan, store: str, before: Json | None, *, yes: bool) -> SyncPlan:
    """See that the sync is meant. `before` is the folder that was synced under this prefix last, if any was.

    A folder that was moved, or is synced from another machine, holds much the same and goes through; another folder
    that has only its name in common does not.
    """
    if before is not None and (before["host"], before["path"]) != (socket.gethostname(), found.address):
        where = f"{before['path']} on {before['host']}"
        if todo.changes_much and not yes:
            raise ChangeRequest(
                f"What {store!r} holds from {found.prefix} came from another folder, {where}. {found.folder} would "
                f"replace {len(todo.replace)} and remove {len(todo.remove)} of its {todo.held} documents. Nothing was "
                "changed. If it is to take the other's place, say --yes; else use another store.",
                code="another_folder",
            )
        note(f"{found.prefix} came from {where} so far, from now on it comes from {found.folder}")
    if todo.removes_much and not yes:
        raise ChangeRequest(
            f"{len(todo.remove)} of the {todo.held} documents that {store!r} holds from {found.prefix} are no longer "
            f"in {found.folder}, more than a third. Nothing was changed. If they are to be removed, say --yes.",
            code="removes_too_much",
        )
    return todo


@dataclass(frozen=True)
class _Todo:
    upload: tuple[ScannedFile, ...]
    retry: tuple[Json, ...]
    unfinished: tuple[Json, ...]
    """Taken in by an earlier run that did not wait for their end."""
    there: tuple[str, ...]
    """The sources of what the store holds already, as it is or to be replaced."""
    outcome: Outcome


def _todo(given: Given, plans: Sequence[SyncPlan], stored: Mapping[str, Json]) -> _Todo:
    add = [file for todo in plans for file in todo.add]
    changed = [file for todo in plans for file in todo.replace]
    same = [file for todo in plans for file in todo.unchanged]
    for file in given.files:
        before = stored.get(file.source)
        (add if before is None else same if before["sha256"] == file.sha256 else changed).append(file)
    again = [stored[file.source] for file in same if stored[file.source]["state"] in ("failed", "cancelled")]
    unfinished = [stored[file.source] for file in same if stored[file.source]["state"] not in ENDED]
    repeated = {file["source"] for file in again}
    outcome = Outcome(
        added=[file.source for file in add],
        changed=[file.source for file in changed],
        unchanged=[file.source for file in same if file.source not in repeated],
        retried=sorted(repeated),
        kept=[source for todo in plans for source in todo.kept],
        unreadable=[{"source": s.source, "reason": s.reason} for found in given.folders for s in found.unreadable],
        hidden=sum(found.hidden for found in given.folders),
    )
    there = tuple(file.source for file in (*same, *changed))
    return _Todo((*add, *changed), tuple(again), tuple(unfinished), there, outcome)


def _set_permissions(client: Client, store: str, files: Iterable[Json], permissions: Sequence[str]) -> None:
    """Before anything else: what was open until now must not be, should the rest take long or fail."""
    for file in files:
        if sorted(set(permissions)) != file["permissions"]:
            client.set_permissions(store, file["id"], permissions)


def _carry_out(
    call: Call,
    client: Client,
    store: str,
    todo: _Todo,
    stored: Mapping[str, Json],
    plans: Sequence[SyncPlan],
    permissions: Sequence[str] | None,
    *,
    wait: bool,
) -> Outcome:
    outcome = todo.outcome
    pending = {str(file["source"]) for file in todo.unfinished}
    with Bar(len(todo.upload) + len(todo.retry) + len(pending), call.json) as bar:
        for file in todo.retry:
            if _retried(client, store, file["id"]):
                pending.add(file["source"])
        for source, refused in _uploads(client, store, todo.upload, permissions):
            if refused is None:
                pending.add(source)
            else:
                outcome.failed.append(_failure(source, refused.code, refused.message))
                bar.failed(outcome.failed[-1])
            bar.uploaded(len(pending) + len(outcome.failed))
        if wait:
            await_end(client, store, pending, outcome, bar)
    # Last, so that a file that only moved finds its vectors still there.
    for source in (source for todo_ in plans for source in todo_.remove):
        try:
            client.delete_file(store, stored[source]["id"])
        except NotThere as error:  # someone else deleted or replaced it meanwhile
            if error.code != "file_not_found":
                raise
            continue
        outcome.removed.append(source)
    return outcome


def _retried(client: Client, store: str, file_id: str) -> bool:
    """Queue a file again, and whether there is an end to wait for: someone may have deleted or retried it meanwhile."""
    try:
        client.retry(store, file_id)
    except ChangeRequest as error:
        if error.code != "nothing_to_retry":
            raise
    except NotThere as error:
        if error.code != "file_not_found":
            raise
        return False
    return True


def _uploads(
    client: Client, store: str, files: Iterable[ScannedFile], permissions: Sequence[str] | None
) -> Iterator[tuple[str, ChangeRequest | None]]:
    """Each source once it was sent, with why it was not taken if it was not."""
    with ThreadPoolExecutor(UPLOADS, "upload") as threads:
        sent: dict[Future[ChangeRequest | None], str] = {}
        try:
            for file in files:
                sent[threads.submit(_upload, client, store, file, permissions)] = file.source
            for future in as_completed(sent):
                yield sent[future], future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _upload(client: Client, store: str, file: ScannedFile, permissions: Sequence[str] | None) -> ChangeRequest | None:
    for attempt in range(TRIES):
        try:
            with file.path.open("rb") as data:
                client.put_file(store, PurePosixPath(file.source).name, data, file.source, permissions)
            return None
        except ChangeRequest as error:
            return error
        except OSError as error:
            return ChangeRequest(f"The file cannot be read: {error.strerror}.", code="file_unreadable")
        except TryLater:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def await_end(client: Client, store: str, pending: Collection[str], outcome: Outcome, bar: Bar) -> None:
    """Wait until the documents `pending` (sources) have ended, and count what became of them."""
    for file in _Watch(client, store, pending).ended(bar):
        _count(outcome, file, bar)


class _Watch:
    """Looks at a store until the documents with the given sources have ended. By source, because someone who puts the
    same file there gives it another id."""

    def __init__(self, client: Client, store: str, pending: Collection[str]) -> None:
        self._client = client
        self._store = store
        self._pending = set(pending)
        self._after: str | None = None
        """Everything up to this file has ended."""

    def ended(self, bar: Bar) -> Iterator[Json]:
        """Each file of ours as it ends."""
        pause = 0.05
        total = len(self._pending)
        while self._pending:
            seen, moving, reached_end = self._look()
            for file in seen:
                if file["source"] in self._pending and file["state"] in ENDED:
                    self._pending.remove(file["source"])
                    yield file
            if reached_end and self._pending.isdisjoint(file["source"] for file in moving):
                # Not in the list any more: someone deleted them meanwhile.
                return
            bar.moving(total - len(self._pending), [file for file in moving if file["source"] in self._pending])
            if self._pending:
                time.sleep(pause)
                pause = min(0.5, pause * 1.5)

    def _look(self) -> tuple[list[Json], list[Json], bool]:
        """The files after the last known end, those of them still at work, and whether the list ended there."""
        seen: list[Json] = []
        moving: list[Json] = []
        try:
            for file in self._client.files(self._store, after=self._after):
                seen.append(file)
                if file["state"] not in ENDED:
                    moving.append(file)
                elif not moving:
                    self._after = file["id"]
                if len(seen) >= _WINDOW:
                    return seen, moving, False
        except ChangeRequest as error:
            if error.code != "bad_cursor":
                raise
            self._after = None  # the file that we stood on was deleted
            return [], [], False
        return seen, moving, True


def _count(outcome: Outcome, file: Json, bar: Bar) -> None:
    progress = file["progress"]
    # Who may not know is not told.
    outcome.embedded += progress.get("embedded", progress["chunks_done"])
    outcome.embedded_tokens += progress.get("embedded_tokens", 0)
    if file["state"] == "completed":
        outcome.completed += 1
    else:
        error = file["last_error"] or {"detail": "cancelled", "message": "It was cancelled."}
        outcome.failed.append(_failure(file["source"], error["detail"], error["message"]))
        bar.failed(outcome.failed[-1])
    bar.ended(outcome.completed + len(outcome.failed), outcome.embedded_tokens)


def _failure(source: str, code: str, message: str) -> dict[str, str]:
    return {"source": source, "code": code, "message": message}


def _note_skipped(given: Given) -> None:
    for found in given.folders:
        if found.hidden:
            note(f"{found.prefix}: {found.hidden:,} hidden files or folders left out")
        for link in found.links:
            note(f"left out: {link.source} {link.reason}")
        for entry in found.unreadable:
            note(f"not read: {entry.source} ({entry.reason}); what the store holds of it stays")


def _report(call: Call, store: Json, outcome: Outcome, seconds: float, *, waited: bool) -> None:
    names = ("added", "changed", "unchanged", "retried", "removed", "kept")
    if call.json:
        counts = {name: len(getattr(outcome, name)) for name in names}
        print_json(
            {
                "event": "end",
                "store": store["id"],
                "waited": waited,
                **counts,
                "completed": outcome.completed,
                "failed": outcome.failed,
                "unreadable": outcome.unreadable,
                "hidden": outcome.hidden,
                "embedded": outcome.embedded,
                "embedded_tokens": outcome.embedded_tokens,
                "seconds": round(seconds, 3),
            },
            one_line=True,
        )
        return
    said = [f"{len(getattr(outcome, name)):,} {name}" for name in names if getattr(outcome, name) or name in names[:3]]
    print_text(f"{store['name']} ({store['id']}): {', '.join(said)}.")
    if waited:
        print_text(
            f"{outcome.completed:,} completed, {len(outcome.failed):,} failed; embedded {outcome.embedded:,} new "
            f"chunks ({outcome.embedded_tokens:,} tokens) in {seconds:.1f} s."
        )
    else:
        print_text("They are queued; `rag status` tells how far they are.")
