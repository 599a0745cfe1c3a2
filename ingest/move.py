"""Moving an installation to another catalog, blob store or index engine: `rag move`.

    begin    both catalogs are marked: the source takes no changes, the target is nobody else's
    copy     tables by page, each page in one transaction of the target together with how far it is; then blobs by key
    verify   every table is read again at both ends: rows and checksums, the vectors to the bit
    finish   the source says where it has moved; the target gets a new incarnation and opens

Nothing is embedded: vectors are rows. Ids stay, and no number that was ever given is given again. Batches come without
their workers, so that whoever runs the jobs at the target adopts them (`rag.catalog.batches`) and goes on where they
stood. Each step asks the marks what is left to do: a move that was interrupted anywhere is finished by the same call,
also while another process is at it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.engine import Connection

from indexes import REMOTE_INDEXES
from indexes.errors import ChangeRequest, NotThere, RagError, TryLater
from ingest import indexing
from rag.backend import NAMING_SETTINGS, Backend, require_named, usable_folder
from rag.blobs import BlobStore, open_blobs, place_of
from rag.catalog import batches, copying, index_tasks, moves
from rag.catalog.copying import Checksum
from rag.catalog.database import Database, incarnation, open_database
from rag.catalog.engines import parse_url, shown_url
from rag.catalog.moves import Mark
from rag.remote import require_together
from rag.settings import Settings, secret

BLOBS_AT_ONCE = 8
BLOBS_A_PAGE = 200
TRIES = 6
"""Of a page or a blob, while an end is busy or out of reach; the waits between them double, from half a second."""
Progress = Callable[[str, int, int], None]
"""Told a stage, and how much of it is done of how much."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Report:
    """What lies at the target, equal to what lay at the source."""

    tables: Mapping[str, Checksum]
    blobs: int
    seconds: float


def target_settings(
    source: Settings,
    *,
    data: Path | None = None,
    catalog: str | None = None,
    blobs: str | None = None,
    vector_index: str | None = None,
    keyword_index: str | None = None,
) -> Settings:
    """The settings at the other end. A new data folder has catalog and blobs in it unless these are named; without
    one, what is not named stays where it is. Raises ChangeRequest and Unsupported for what is not there."""
    stays = data is None
    changes = {
        "data": data or source.data,
        "catalog": SecretStr(catalog) if catalog else source.catalog if stays else None,
        "blobs": SecretStr(blobs) if blobs else source.blobs if stays else None,
        "vector_index": vector_index or source.vector_index,
        "keyword_index": keyword_index or source.keyword_index,
    }
    target = source.model_copy(update=changes)
    for setting in NAMING_SETTINGS:
        require_named(target, setting)
    require_together(target.vector_index, target.keyword_index)
    return target


def settings_lines(target: Settings) -> list[str]:
    """The settings of the target as lines of TOML, without secrets."""
    lines = [f"data = {json.dumps(str(target.data.expanduser().resolve()))}"]
    if target.catalog is not None:
        shown = shown_url(parse_url(target.catalog.get_secret_value()))
        lines.append(f"catalog = {json.dumps(shown)}")
    if target.blobs is not None:
        lines.append(f"blobs = {json.dumps(place_of(secret(target.blobs)))}")
    return [*lines, f'vector_index = "{target.vector_index}"', f'keyword_index = "{target.keyword_index}"']


def move(source: Settings, target: Settings, tell: Progress) -> Report:
    """Move everything, or go on with a move that was interrupted.

    Raises what either end raises, and ChangeRequest: `target_not_empty`, `other_move`, `moved`, `nothing_to_move`,
    `move_differs`. Whatever it raises, nothing is lost: the source answers as before.
    """
    began = time.monotonic()
    with opened(source, target, tell) as run:
        if run.begin():
            run.copy_tables()
            run.copy_blobs()
            run.verify()
            run.finish()
    fill_engines(target, tell)
    return Report(run.checksums, run.blobs, time.monotonic() - began)


def fill_engines(target: Settings, tell: Progress) -> None:
    """Write the chunks to an engine of its own at the other end, which is written instead of following the catalog.

    Harmless when repeated; what a crash leaves undone is done when a process there begins to run jobs.
    """
    if target.vector_index not in REMOTE_INDEXES:
        return
    backend = Backend(target)
    try:
        indexing.reconcile_where_needed(backend, partial(tell, "indexing"))
    finally:
        asyncio.run(backend.close())


def cancel(source: Settings, target: Settings) -> None:
    """Give up a move that has not finished: the source takes changes again, the target is emptied (of rows: copied
    blobs stay for the next move). Raises ChangeRequest (`moved`, `no_move`)."""
    with opened(source, target, lambda *_: None) as run:
        run.cancel()


@contextmanager
def opened(source: Settings, target: Settings, tell: Progress) -> Iterator[Move]:
    """A move with both ends open."""
    folder = usable_folder(source.data)
    place = secret(source.catalog)
    if place is None and not (folder / "catalog.db").is_file():
        raise NotThere(f"There is no installation in {folder}. Name its data folder.", code="no_installation")
    with closing(open_database(folder, place, mover=True)) as leaving:
        there = usable_folder(target.data)
        arriving = Database(secret(target.catalog) or f"sqlite:///{there / 'catalog.db'}")
        if _address(arriving.url) == _address(leaving.url):
            arriving.close()
            arriving = leaving
        else:
            arriving = open_database(there, secret(target.catalog), mover=True)
        with closing(arriving):
            yield Move(source, target, leaving, arriving, tell)


def _address(url: sa.URL) -> tuple[str | None, ...]:
    if url.get_backend_name() == "sqlite":
        return (str(Path(url.database or "").resolve()),)
    return url.host, str(url.port or 5432), url.database, str(url.query.get("options"))


class Move:
    """The steps, over two open catalogs: `source` and `target`, one and the same when only blobs or engines change."""

    def __init__(self, source: Settings, target: Settings, leaving: Database, arriving: Database, tell: Progress):
        self.source, self.target = leaving, arriving
        self.stays = leaving is arriving
        self.checksums: dict[str, Checksum] = {}
        self.blobs = 0
        self._tell = tell
        self._from, self._to = _blobs(source), _blobs(target)
        self._blobs_stay = _blobs_address(source) == _blobs_address(target)
        self._engines = {
            name: getattr(target, name)
            for name in ("vector_index", "keyword_index")
            if getattr(target, name) != getattr(source, name)
        }
        self._changed = {"batches": {"worker_id": None}, "generations": {"worker_id": None, **self._engines}}
        self._plan: Mapping[str, str | None] = {
            "catalog": arriving.place,
            "blobs": place_of(secret(target.blobs)),
            **{name: self._engines.get(name) for name in ("vector_index", "keyword_index")},
        }
        self._id = ""

    # ---- begin ------------------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Mark both ends, or find the marks of the same move. False when it has finished already."""
        if self.stays and self._blobs_stay and not self._engines:
            raise ChangeRequest(
                "There is nothing to move: catalog, blobs and indexes would stay what they are. Name another of them.",
                code="nothing_to_move",
            )
        mark = self._mark_source()
        self._id = mark.id
        if self.stays:
            return mark.state == "leaving"
        return self._mark_target(mark)

    def _mark_source(self) -> Mark:
        with self.source.read() as connection:
            found, here = moves.read_mark(connection), incarnation(connection)
        if found is not None and self._is_same(found):
            return found
        if not self.stays:
            self._require_empty_target(here)
        with self.source.write(mover=True) as connection:
            found = moves.read_mark(connection)
            if found is not None and self._is_same(found):
                return found
            mark = Mark(secrets.token_hex(16), "leaving", self._plan, here)
            moves.set_mark(connection, mark)
        return mark

    def _is_same(self, found: Mark) -> bool:
        """Whether this is our move; not when none is under way. Raises for another one."""
        if found.state == "arrived":
            return False
        if found.plan == self._plan and found.state != "arriving":
            return True
        wanted = ", ".join(f"{name} {value}" for name, value in found.plan.items() if value is not None)
        if found.state == "moved":
            raise ChangeRequest(f"This installation has moved already ({wanted}). Move it from there.", code="moved")
        raise ChangeRequest(
            f"Another move of this installation is under way ({wanted}). Go on with that one, or give it up with "
            "`rag move --cancel` and its options.",
            code="other_move",
        )

    def _mark_target(self, mark: Mark) -> bool:
        with self.target.write(mover=True) as connection:
            found = moves.read_mark(connection)
            if found is not None and found.id == mark.id:
                return found.state == "arriving"
            if mark.state == "moved":
                raise ChangeRequest(
                    f"The catalog {self.target.place} is not the one that this installation has moved to.",
                    code="moved",
                )
            self._require_empty(connection, found)
            moves.set_mark(connection, replace(mark, state="arriving"))
        return True

    def _require_empty_target(self, source: str) -> None:
        with self.target.read() as connection:
            if incarnation(connection) == source:
                raise ChangeRequest(
                    f"The catalog {self.target.place} is this installation's own, or a copy of it. To change blobs or "
                    "indexes alone, name no catalog.",
                    code="target_not_empty",
                )
            self._require_empty(connection, moves.read_mark(connection))

    def _require_empty(self, connection: Connection, found: Mark | None) -> None:
        if found is not None and found.state == "arriving":
            raise ChangeRequest(
                f"The catalog {self.target.place} is half copied by another move. Finish that one, or empty it with "
                "`rag move --cancel` and its options.",
                code="half_moved",
            )
        table = copying.first_filled(connection)
        if table is not None:
            raise ChangeRequest(
                f"The catalog {self.target.place} is not empty: its table {table!r} holds rows. Name a new one.",
                code="target_not_empty",
            )

    # ---- copy -------------------------------------------------------------------------------------------------------

    def copy_tables(self) -> None:
        """Copy every table that is not copied yet."""
        if self.stays:
            return
        for table in copying.COPIED:
            with self.source.read() as connection:
                total = copying.count(connection, table)
            more = True
            while more:
                done, more = _patiently(partial(self._copy_page, table))
                self._tell(table.name, done, total)

    def _copy_page(self, table: sa.Table) -> tuple[int, bool]:
        """Copy the next page. Returns how many rows are there now, and whether more may follow."""
        with self.target.write(mover=True) as connection:
            mark = self._own(connection, "arriving")
            at = mark.progress.get(table.name, {"after": None, "rows": 0})
            with self.source.read() as reading:
                self._own(reading)
                rows = copying.read_page(reading, table, at["after"], self._changed.get(table.name, {}))
            if not rows:
                return at["rows"], False
            copying.write_page(connection, table, rows)
            at = {"after": copying.key_of(table, rows[-1]), "rows": at["rows"] + len(rows)}
            moves.set_mark(connection, replace(mark, progress={**mark.progress, table.name: at}))
        return at["rows"], len(rows) == copying.PAGE

    def copy_blobs(self) -> None:
        """Copy every blob that a file or a version names and that is not copied yet."""
        with self.source.read() as connection:
            self.blobs = copying.count_needed_blobs(connection)
        if self._blobs_stay:
            return
        with self.target.read() as connection:
            at = self._own(connection).progress.get("blobs", {"after": "", "done": 0})
        with ThreadPoolExecutor(BLOBS_AT_ONCE, "move") as threads:
            while True:
                with self.source.read() as connection:
                    self._own(connection)
                    keys = copying.needed_blobs(connection, at["after"], BLOBS_A_PAGE)
                if not keys:
                    return
                list(threads.map(lambda key: _patiently(partial(self._copy_blob, key)), keys))
                at = {"after": keys[-1], "done": at["done"] + len(keys)}
                self._record_blobs(at)
                self._tell("blobs", at["done"], self.blobs)

    def _record_blobs(self, at: Mapping[str, Any]) -> None:
        with self.target.write(mover=True) as connection:
            mark = self._own(connection)
            moves.set_mark(connection, replace(mark, progress={**mark.progress, "blobs": at}))

    def _copy_blob(self, key: str) -> None:
        if self._to.exists(key) and _is_whole(self._to, key):
            return
        try:
            stored = self._to.put(self._from.pieces(key))
        except NotThere as error:
            raise _unreadable(error) from error
        if stored.key != key:
            raise _unreadable(NotThere(f"The stored file {key} is damaged.", code="blob_damaged"))

    def _own(self, connection: Connection, state: str | None = None) -> Mark:
        """The mark of this move. Raises ChangeRequest where it is gone: somebody gave the move up meanwhile."""
        mark = moves.read_mark(connection)
        if mark is None or mark.id != self._id or state not in (None, mark.state):
            raise ChangeRequest("This move was given up or finished elsewhere meanwhile.", code="move_over")
        return mark

    # ---- verify -----------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Compare both ends. Raises RagError (`move_differs`), naming the table, where they are not the same."""
        for number, table in enumerate(() if self.stays else copying.COPIED):
            with self.source.read() as connection:
                expected = copying.checksum(connection, table, self._changed.get(table.name, {}))
            with self.target.read() as connection:
                found = copying.checksum(connection, table, {})
            if found != expected:
                raise _differs(f"the table {table.name!r}: {_told(expected)} here, {_told(found)} there")
            self.checksums[table.name] = found
            self._tell("verifying", number + 1, len(copying.COPIED))
        if not self._blobs_stay:
            self._verify_blobs()

    def _verify_blobs(self) -> None:
        after = ""
        with ThreadPoolExecutor(BLOBS_AT_ONCE, "move") as threads:
            while True:
                with self.target.read() as connection:
                    keys = copying.needed_blobs(connection, after, BLOBS_A_PAGE)
                if not keys:
                    return
                for key, there in zip(keys, threads.map(self._to.exists, keys), strict=True):
                    if not there:
                        raise _differs(f"the stored file {key} is not there")
                after = keys[-1]

    # ---- finish -----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close the source for good and open the target. A crash between the two leaves both closed for changes, and
        the same call opens the target."""
        if self.stays:
            self._settle(self.source, "leaving")
            return
        with self.source.write(mover=True) as connection:
            mark = self._own(connection)
            moves.set_mark(connection, replace(mark, state="moved"))
        self._settle(self.target, "arriving")

    def _settle(self, database: Database, state: str) -> None:
        with self.source.read() as connection:
            last = copying.last_ids(connection)
        with database.write(mover=True) as connection:
            mark = self._own(connection, state)
            if self.stays:
                copying.change_all(connection, self._changed)
                index_tasks.forget_all(connection)
            else:
                copying.never_give_again(connection, last)
            moves.settle(
                connection, replace(mark, state="arrived", progress={}), secrets.token_hex(16), str(self._plan["blobs"])
            )

    # ---- cancel -----------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Reopen the source, then empty the target."""
        with self.source.write(mover=True) as connection:
            mark, here = moves.read_mark(connection), incarnation(connection)
            if mark is not None and mark.state == "moved":
                raise ChangeRequest("The move has finished: move back from there instead.", code="moved")
            was_leaving = mark is not None and mark.state == "leaving"
            if was_leaving:
                moves.set_mark(connection, None)
                # What was at work has given up, or will: it is adopted and begun again.
                batches.release_all(connection)
        if not (self._empty_target(here) or was_leaving):
            raise ChangeRequest("No move is under way here.", code="no_move")

    def _empty_target(self, source: str) -> bool:
        """Take out what was copied from this source. False when the target holds nothing of it."""
        if self.stays:
            return False
        with self.target.write(mover=True) as connection:
            mark = moves.read_mark(connection)
            if mark is None or mark.state != "arriving" or mark.source != source:
                return False
            copying.clear(connection)
            moves.set_mark(connection, None)
        return True


def _patiently(work: Callable[[], Found]) -> Found:
    """Do something again that may pass by itself."""
    for tried in range(TRIES - 1):
        try:
            return work()
        except TryLater as error:
            if error.code == "storage_full":  # only a person makes room
                raise
            time.sleep(0.5 * 2**tried)
    return work()


def _blobs(settings: Settings) -> BlobStore:
    return open_blobs(usable_folder(settings.data), secret(settings.blobs))


def _blobs_address(settings: Settings) -> str:
    """What tells two blob stores apart: a store taken for another is copied onto itself, which does no harm."""
    return secret(settings.blobs) or str(usable_folder(settings.data))


def _is_whole(blobs: BlobStore, key: str) -> bool:
    digest = hashlib.sha256()
    try:
        for piece in blobs.pieces(key):
            digest.update(piece)
    except NotThere:
        return False
    return digest.hexdigest() == key


def _unreadable(error: NotThere) -> NotThere:
    return NotThere(
        f"{error.message} A move takes everything along: give it up with `rag move --cancel`, put the file back or "
        "delete its document, and begin again.",
        code=error.code,
    )


def _differs(what: str) -> RagError:
    return RagError(
        f"What was copied is not what was to be copied: {what}. The installation stays where it is. Give the move up "
        "with `rag move --cancel` and begin again; if it happens twice, a disk or a server changes what it stores.",
        code="move_differs",
    )


def _told(found: Checksum) -> str:
    return f"{found.rows:,} rows with checksum {found.digest[:12]}"
