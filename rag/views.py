"""Views: the indexes over one generation of a store, following the catalog's change log.

A view can be thrown away at any time. Each process has its own, in a folder of its own; a background thread keeps open views
up to date, and a query applies only what is still missing, so that a reader sees a write as soon as the writer was told so.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import IO

import numpy as np
from numpy.typing import NDArray

from indexes import open_keyword_index, open_vector_index
from indexes.errors import NotThere, RagError
from indexes.filters import AttributeTable, Filter
from indexes.keyword import KeywordEntry
from indexes.vector import Ids
from rag.catalog import changes, stores
from rag.catalog.changes import Changes, ViewRows
from rag.catalog.database import Database
from rag.catalog.records import Generation
from rag.spaces import Space

FOLLOW_EVERY = 0.2
"""Seconds between two looks of the background thread at the change log."""

log = logging.getLogger(__name__)


class View:
    """The indexes over one generation, up to one number of its store's change log."""

    def __init__(self, database: Database, generation: Generation, space: Space, folder: Path) -> None:
        self.generation = generation
        self.space = space
        self.position = -1
        self._database = database
        self._folder = folder
        self._changing = RLock()
        self._empty()

    def follow(self) -> None:
        """Take in whatever the change log has beyond this view. Raises NotThere when the store is gone."""
        with self._database.read() as connection:
            seq = stores.current_seq(connection, self.generation.store_id)
        if seq is None:
            raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
        if seq <= self.position:
            return
        with self._changing:
            if seq > self.position:
                self._catch_up()

    def allowed(self, condition: Filter | None) -> Ids | None:
        """The chunks of the documents that a filter matches, sorted; None for no filter.

        Raises ChangeRequest for a key or a type of value that no document of the store has.
        """
        if condition is None:
            return None
        with self._changing:
            documents = self.attributes.matching(condition)
            chunk_ids, owners = self._owned()
        places = np.searchsorted(documents, owners)
        places[places == len(documents)] = 0
        return chunk_ids[documents[places] == owners] if len(documents) else chunk_ids[:0]

    def __len__(self) -> int:
        """How many chunks the view holds."""
        return len(self.vectors)

    def close(self) -> None:
        """Release the indexes and remove the view's folder."""
        with self._changing:
            self.vectors.close()
            self.words.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _empty(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.vectors = open_vector_index(self.generation.vector_index, self.space.dimension)
        self.words = open_keyword_index(self.generation.keyword_index, self._folder / "words")
        self.attributes = AttributeTable()
        self._chunks_of: dict[int, tuple[int, Ids]] = {}
        self._owners: tuple[Ids, Ids] | None = None

    def _catch_up(self) -> None:
        with self._database.read() as connection:
            news = changes.read_changes(connection, self.generation.store_id, self.position)
            if news is None or self.position < 0:
                self._rebuild()
                return
            self._retire(news)
            for rows in changes.read_rows(
                connection, news.published, self.generation.chunk_set_id, self.generation.space_id, self.space.dimension
            ):
                self._add(rows)
        for document_id, attributes in news.attributes.items():
            self.attributes.set(document_id, attributes)
        self.words.commit()
        self._owners = None
        self.position = news.seq

    def _rebuild(self) -> None:
        if self.position >= 0:
            self.vectors.close()
            self.words.close()
            self._empty()
        with self._database.read() as connection:
            store = stores.get_store_by_id(connection, self.generation.store_id)
            if store is None:
                raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
            version_ids = changes.visible_versions(connection, store.id)
            for rows in changes.read_rows(
                connection, version_ids, self.generation.chunk_set_id, self.generation.space_id, self.space.dimension
            ):
                self._add(rows)
            documents = sorted({document for document, _ in self._chunks_of.values()})
            for document_id, attributes in changes.read_attributes(connection, documents).items():
                self.attributes.set(document_id, attributes)
        self.words.commit()
        self.position = store.seq

    def _add(self, rows: ViewRows) -> None:
        self.vectors.add(rows.ids, rows.vectors)
        self.words.add(
            [
                KeywordEntry(int(chunk), text, header)
                for chunk, text, header in zip(rows.ids, rows.texts, rows.headers, strict=True)
            ]
        )
        for version in np.unique(rows.version_ids):
            mine = rows.version_ids == version
            document = int(rows.document_ids[mine][0])
            before = self._chunks_of.get(int(version))
            ids = rows.ids[mine]
            self._chunks_of[int(version)] = (document, ids if before is None else np.concatenate([before[1], ids]))

    def _retire(self, news: Changes) -> None:
        gone = [self._chunks_of.pop(version) for version in news.retired if version in self._chunks_of]
        if not gone:
            return
        ids = np.sort(np.concatenate([ids for _, ids in gone]))
        self.vectors.remove(ids)
        self.words.remove(ids)
        for document, _ in gone:
            self.attributes.remove(document)

    def _owned(self) -> tuple[Ids, Ids]:
        """Every chunk, ascending, and beside it the document that it belongs to."""
        if self._owners is None:
            parts = list(self._chunks_of.values())
            ids = _concatenated([ids for _, ids in parts])
            owners = _concatenated([np.full(len(ids), document, dtype=np.int64) for document, ids in parts])
            order = np.argsort(ids, kind="stable")
            self._owners = ids[order], owners[order]
        return self._owners


class Views:
    """The open views of this process, opened on demand and kept up to date by a thread."""

    def __init__(self, database: Database, folder: Path, space_of: Callable[[Generation], Space]) -> None:
        self._database = database
        self._space_of = space_of
        self._folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._views: dict[int, View] = {}
        self._lock = Lock()
        self._opening: dict[int, Lock] = {}
        self._stop = Event()
        sweep_folders(folder)
        self._owner = _own(self._folder)
        self._thread = Thread(target=self._follow_all, name="views", daemon=True)
        self._thread.start()

    def get(self, generation: Generation) -> View:
        """The view of a generation, opened if need be and up to date with everything acknowledged so far."""
        with self._lock:
            opening = self._opening.setdefault(generation.id, Lock())
            view = self._views.get(generation.id)
        if view is None:
            with opening:
                view = self._views.get(generation.id)
                if view is None:
                    view = self._open(generation)
        view.follow()
        return view

    def close(self) -> None:
        """Stop following, close every view and remove the folder. Idempotent."""
        self._stop.set()
        self._thread.join(timeout=10)
        with self._lock:
            views, self._views = list(self._views.values()), {}
        for view in views:
            view.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._owner.close()

    def _open(self, generation: Generation) -> View:
        view = View(self._database, generation, self._space_of(generation), self._folder / str(generation.id))
        view.follow()
        with self._lock:
            self._views[generation.id] = view
        return view

    def _follow_all(self) -> None:
        while not self._stop.wait(FOLLOW_EVERY):
            for number, view in list(self._views.items()):
                try:
                    view.follow()
                except NotThere:
                    with self._lock:
                        self._views.pop(number, None)
                    view.close()
                except RagError as error:
                    log.warning("view of generation %d lags: %s", number, error)


def sweep_folders(folder: Path) -> None:
    """Remove the view folders of processes that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        mark = left / "owner"
        try:
            with mark.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def _own(folder: Path) -> IO[bytes]:
    """Make a folder that is ours as long as the returned file is open."""
    folder.mkdir(parents=True)
    handle = (folder / "owner").open("wb")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _concatenated(parts: list[NDArray[np.int64]]) -> Ids:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
