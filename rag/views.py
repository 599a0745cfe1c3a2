"""Views: the indexes over one generation of a store, following the catalog's change log.

A view can be thrown away at any time. Each process has its own, in a folder of its own; a background thread keeps open
views up to date, and a query applies only what is still missing, so that a reader sees a write as soon as the writer
was told so.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import IO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from indexes import REMOTE_INDEXES, open_keyword_index, open_vector_index
from indexes.errors import RagError
from indexes.filters import AnyTag, AttributeTable, Filter, permitted
from indexes.keyword import KeywordEntry, KeywordIndex
from indexes.vector import Ids
from indexes.words import analyse
from rag import snapshots
from rag.catalog import changes, generations
from rag.catalog.changes import Changes, ViewRows
from rag.catalog.database import Database
from rag.catalog.database import incarnation as read_incarnation
from rag.catalog.records import FOLLOWING, Generation, Place
from rag.fusion import Scored
from rag.searchable import Scores, Statistics, Tags, Vector, both_legs
from rag.seen_words import ChunkWords, Seen, bm25
from rag.spaces import Space

FOLLOW_EVERY = 0.2
"""Seconds between two looks of the background thread at the change log."""
WARM_EVERY = 1.0
"""Seconds between two looks for generations that may soon be live, whose views are opened before they are."""

BYTES_A_VIEW = 1 << 20
BYTES_A_CHUNK = 350
"""What an open view takes beside its vectors, about: its tables, and the keyword index (measured at 100,000 chunks)."""

REST_SECONDS = 5.0
CHUNKS_A_SECOND_OF_REST = 1_000
"""How long a view is at rest before its keyword index is made compact: longer the more that may be to write, so that
changes now and then cost at most a twentieth of a core (20,000 chunks take a second)."""
MOST_REMOVED = 0.2
LEAST_REMOVED = 1_000
REMOVED_A_STEP = 400
"""Where there is no rest but this share of its chunks, and so many, were removed, it takes a step for every so many of
them: five texts are written anew for one that was removed."""

LEGS_BESIDE = 4
BESIDE_FROM = 100_000
"""Chunks from which the keyword leg is searched beside the dense one. Of fewer it is done sooner (.2 ms at 25,000) than
another thread begins."""
MOST_COUNTED = 50_000
"""Words of which a view remembers how many chunks hold them."""

MOST_SEEN = 256
"""Callers' sets of tags for which a view remembers what they see: up to 80 KB each."""

STALE_SECONDS = 60.0
"""How long a snapshot may hold chunks that were retired, while a view of it is open."""

log = logging.getLogger(__name__)


class Shared:
    """What the views of a process have together."""

    def __init__(self) -> None:
        self.chunk_words = ChunkWords()
        self.beside = ThreadPoolExecutor(LEGS_BESIDE, "keyword-leg")
        """Searches the keyword leg while the question is embedded and the dense leg is searched."""


class View:
    """The indexes over one generation, up to one number of its store's change log."""

    def __init__(
        self,
        database: Database,
        generation: Generation,
        space: Space,
        folder: Path,
        snapshots: Path,
        shared: Shared,
    ) -> None:
        self.generation = generation
        self.space = space
        self.position = -1
        """The number of the change log up to which it holds what was published."""
        self.seen = -1
        """And up to which it knows what was retired or changed: for a generation that is not live, a later one."""
        self.used = time.monotonic()
        """When somebody last asked for it."""
        self.behind_since: float | None = None
        """Since when the catalog has had changes that are not in here."""
        self.released = False
        self._database = database
        self._folder = folder
        self._snapshots = snapshots
        self._shared = shared
        self._seen: dict[frozenset[str], Seen] = {}
        self._counted: tuple[tuple[int, int], dict[str, int]] = (-1, -1), {}
        """The numbers of chunks that words occur in, and what position they are of."""
        self._changing = RLock()
        self._unsaved = 0
        self._stale_since: float | None = None
        """When the snapshot may have begun to hold retired chunks."""
        self._loose_since: float | None = None
        """When something last changed in the keyword index, so that removed chunks may weigh in its scores."""
        self._removed = 0
        """How many chunks were removed from it since it was compact."""
        self._start()

    def follow(self, place: Place | None = None) -> None:
        """Take in what the change log has beyond this view, up to a place, or all.

        Raises NotThere when the store is gone, and ChangeRequest (`generation_not_searchable`) when the generation is
        no longer followed."""
        if place is None:
            with self._database.read() as connection:
                place = self._place(connection)
        self.follow_to(place)

    def follow_to(self, place: Place) -> None:
        """Take in everything up to this place at least, unless the view has been released."""
        if self._lacks(place):
            if self.behind_since is None:
                self.behind_since = time.monotonic()
            with self._changing:
                if self._lacks(place) and not self.released:
                    self._catch_up()
        self.behind_since = None

    def _lacks(self, place: Place) -> bool:
        return place.through > self.position or place.seq > self.seen

    def _place(self, connection: Connection) -> Place:
        """How far the generation is now. Raises what `generations.require_place` does."""
        return generations.require_place(connection, self.generation)

    def search(
        self, vector: Vector | None, words: str | None, condition: Filter | None, depth: int, tags: Tags
    ) -> Scored:
        """See `Searchable.search`."""
        allowed = self.allowed(condition if tags is None else permitted(tags, condition))
        if allowed is not None and len(allowed) == len(self):
            allowed = None  # a search among everything is several times as fast
        vectors, keywords = self.vectors, self.words
        if vector is None or words is None or len(self) < BESIDE_FROM:
            query = vector() if vector is not None else None
            dense = vectors.search(query, depth, allowed) if query is not None else None
            keyword = keywords.search(words, depth, allowed) if words is not None else None
        else:
            beside = self._shared.beside.submit(keywords.search, words, depth, allowed)
            query = vector()
            dense, keyword = vectors.search(query, depth, allowed), beside.result()

        def rescore(no_dense: Ids, no_keyword: Ids) -> tuple[Scores, Scores]:
            nothing = np.empty(0, dtype=np.float32)
            return (
                vectors.scores(query, no_dense) if query is not None else nothing,
                keywords.scores(words, no_keyword) if words is not None else nothing,
            )

        scored = both_legs(dense, keyword, rescore)
        if tags is None or words is None:
            return scored
        return replace(scored, keyword=self._scores_of_seen(words, scored.ids, tags))

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `Searchable.contains`."""
        return self.words.contains(words, ids)

    def statistics(self, words: Sequence[str], tags: Tags) -> Statistics:
        """See `Searchable.statistics`."""
        if tags is None:
            return len(self), self._frequencies(words)
        with self._changing:
            seen = self._seen.get(tags)
            if seen is None or seen.position != (self.position, self.seen):
                visible = self.allowed(AnyTag(tags))
                assert visible is not None
                seen = Seen((self.position, self.seen), visible)
                if len(self._seen) >= MOST_SEEN:
                    self._seen.clear()
                self._seen[tags] = seen
        return seen.total, seen.counts(words, self.words.contains)

    def _frequencies(self, words: Sequence[str]) -> list[int]:
        """In how many chunks each word occurs: common words are asked for again and again, and cost most to count."""
        at = self.position, self.seen
        known = self._counted if self._counted[0] == at and len(self._counted[1]) < MOST_COUNTED else (at, {})
        missing = [word for word in words if word not in known[1]]
        if missing:
            known[1].update(zip(missing, self.words.document_frequency(missing), strict=True))
        self._counted = known
        return [known[1][word] for word in words]

    def allowed(self, condition: Filter | None) -> Ids | None:
        """The chunks of the documents that a filter matches, sorted; None for no filter.

        Raises ChangeRequest for a key or a type of value that no document of the store has.
        """
        if condition is None:
            return None
        with self._changing:
            documents = self.attributes.matching(condition)
            chunk_ids, owners = self._owned()
        if not len(documents):
            return chunk_ids[:0]
        places = np.minimum(np.searchsorted(documents, owners), len(documents) - 1)
        inside: Ids = chunk_ids[documents[places] == owners]
        return inside

    def _scores_of_seen(self, words: str, ids: Ids, tags: frozenset[str]) -> Scores:
        """The keyword scores of these chunks by what a caller with these tags sees."""
        distinct = list(dict.fromkeys(analyse(words)))
        total, counts = self.statistics(distinct, tags)

        def texts(missing: Sequence[int]) -> Iterable[tuple[int, str, str]]:
            with self._database.read() as connection:
                return list(changes.read_texts(connection, missing))

        return bm25(distinct, total, counts, self._shared.chunk_words.of(ids, texts))

    def save_if_due(self, share: float = 0.2, least: int = 2_000, stale: float = STALE_SECONDS) -> None:
        """Write a snapshot when more than this share of the chunks, and this many, have changed since the last one, or
        when the last one has held retired chunks for so many seconds."""
        with self._changing:
            if (
                self.released
                or self.position < 0
                or not (self._unsaved >= max(least, share * len(self)) or self._is_stale(stale))
            ):
                return
            if snapshots.save(self._snapshots, self._origin(), self._folder / "words", self._owned()[0]):
                self._unsaved = 0
            # Also after a failure, which is logged: the next try is a while off.
            self._stale_since = None if self._unsaved == 0 else time.monotonic()

    def compact_if_due(self, rest: float = REST_SECONDS) -> None:
        """Take a step towards keyword scores that removed chunks have no part in, when nothing has changed for a while
        or much was removed. Changes may come beside it; what came is looked at anew."""
        since, size = self._loose_since, len(self)
        if since is None or self.released:
            return
        at_rest = time.monotonic() - since >= rest + size / CHUNKS_A_SECOND_OF_REST
        if not at_rest:
            if self._removed < max(LEAST_REMOVED, MOST_REMOVED * size):
                return
            self._removed -= REMOVED_A_STEP
        try:
            more = self.words.compact()
        except RagError:
            self._loose_since = time.monotonic()
            raise
        with self._changing:
            if not more and self._loose_since == since:
                self._loose_since, self._removed = None, 0

    def __len__(self) -> int:
        """How many chunks the view holds."""
        return len(self.vectors)

    def memory(self) -> int:
        """Bytes of memory that the view takes, about."""
        return BYTES_A_VIEW + BYTES_A_CHUNK * len(self) + self.vectors.memory()

    def release(self) -> None:
        """Let go of the indexes and remove the view's folder; searches under way end as they would have.

        What is worth it goes into a snapshot first. Idempotent.
        """
        with self._changing:
            if self.released:
                return
            self.save_if_due(share=0.02, least=500, stale=0.0)
            # The vectors are not closed, which would empty them: they go with the last search that holds them.
            self.released = True
            self.words.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _is_stale(self, seconds: float) -> bool:
        """Whether a snapshot has held retired chunks for so long. Another process may have written it."""
        if self._stale_since is None or time.monotonic() - self._stale_since < seconds:
            return False
        if snapshots.holds_others(self._snapshots, self._owned()[0]):
            return True
        self._stale_since = None
        return False

    def _start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        # By space: what was worked out over the vectors of one is not taken for another's.
        shared = self._snapshots / f"vectors-{self.space.fingerprint[:16]}"
        self.vectors = open_vector_index(self.generation.vector_index, self.space.dimension, self._folder, shared)
        self.attributes = AttributeTable()
        self._chunks_of: dict[int, tuple[int, Ids]] = {}
        self._owners: tuple[Ids, Ids] | None = None
        self._fresh = True
        self.words, self._known = self._open_words()

    def _open_words(self) -> tuple[KeywordIndex, Ids]:
        """The keyword index, from a snapshot where there is a sound one, and the ids that are in it."""
        folder = self._folder / "words"
        ids = snapshots.load(self._snapshots, self._origin(), folder)
        if ids is not None:
            try:
                words = open_keyword_index(self.generation.keyword_index, folder)
                if len(words) == len(ids):
                    return words, ids
                words.close()
            except RagError as error:
                log.warning("the snapshot of generation %d is not used: %s", self.generation.id, error)
            shutil.rmtree(folder)
        return open_keyword_index(self.generation.keyword_index, folder), np.empty(0, dtype=np.int64)

    def _origin(self) -> snapshots.Origin:
        with self._database.read() as connection:
            incarnation = read_incarnation(connection)
        generation = self.generation
        return snapshots.Origin(
            incarnation, generation.id, generation.chunk_set_id, self.space.fingerprint, generation.keyword_index
        )

    def _catch_up(self) -> None:
        started, fresh = self.position >= 0, self._fresh
        self.position, before, self._fresh = -1, self.position, False
        with self._database.read() as connection:
            place = self._place(connection)
            news = self._news(connection, before, place) if started else None
            if news is None:
                (self._build if fresh else self._build_anew)(connection, place)
                self.position, self.seen = place.through, place.seq
                return
            # First what is new: a search meanwhile finds either version of a document that was replaced.
            for rows in self._rows(connection, news.published):
                self._add(rows, self._texts(connection, rows.ids))
            self._retire(news)
        for document_id, attributes in news.attributes.items():
            self.attributes.set(document_id, attributes, news.tags.get(document_id, ()))
        self._commit_words()
        self._owners = None
        # Only now: whatever failed above leaves a view that is built anew.
        self.position, self.seen = news.through, news.seq

    def _news(self, connection: Connection, before: int, place: Place) -> Changes | None:
        return changes.read_changes(connection, self.generation.store_id, before, seen=self.seen, through=place.through)

    def _build_anew(self, connection: Connection, place: Place) -> None:
        """Build beside what is there and change over: searches under way go on with what they began with."""
        aside = self._folder.with_name(f"{self.generation.id}-{secrets.token_hex(4)}")
        new = View(self._database, self.generation, self.space, aside, self._snapshots, self._shared)
        try:
            new._build(connection, place)
        except BaseException:
            new.release()
            raise
        old_words, old_folder = self.words, self._folder
        self.vectors, self.words, self.attributes, self._folder = new.vectors, new.words, new.attributes, new._folder
        self._chunks_of, self._owners, self._known = new._chunks_of, new._owners, new._known
        self._unsaved, self._stale_since = self._unsaved + new._unsaved, time.monotonic()
        self._loose_since, self._removed = time.monotonic(), new._removed
        # The old vectors are not closed, which would empty them: they go with the last search that holds them.
        old_words.close()
        shutil.rmtree(old_folder, ignore_errors=True)

    def _build(self, connection: Connection, place: Place) -> None:
        known = self._known
        visible = changes.visible_versions(connection, self.generation.store_id, place.through)
        for rows in self._rows(connection, visible):
            self._add(rows, self._texts(connection, rows.ids[~np.isin(rows.ids, known)]))
        gone = known[~np.isin(known, self._owned()[0])]
        self.words.remove(gone)
        self._removed += len(gone)
        self._unsaved += len(gone)
        self._stale_since = time.monotonic()  # what is on disk may hold others, also where it was not used
        documents = sorted({document for document, _ in self._chunks_of.values()})
        tags = changes.read_tags(connection, documents)
        for document_id, attributes in changes.read_attributes(connection, documents).items():
            self.attributes.set(document_id, attributes, tags.get(document_id, ()))
        self._commit_words()
        self._known = known[:0]

    def _rows(self, connection: Connection, version_ids: Sequence[int]) -> Iterator[ViewRows]:
        generation = self.generation
        return changes.read_rows(
            connection, version_ids, generation.chunk_set_id, generation.space_id, self.space.dimension
        )

    def _texts(self, connection: Connection, ids: Ids) -> list[KeywordEntry]:
        return [KeywordEntry(*row) for row in changes.read_texts(connection, ids.tolist())]

    def _add(self, rows: ViewRows, entries: Sequence[KeywordEntry]) -> None:
        self.vectors.add(rows.ids, rows.vectors)
        self.words.add(entries)
        self._unsaved += len(entries)
        order = np.argsort(rows.version_ids, kind="stable")
        versions, starts = np.unique(rows.version_ids[order], return_index=True)
        for version, mine in zip(versions.tolist(), np.split(order, starts[1:]), strict=True):
            ids = rows.ids[mine]
            before = self._chunks_of.get(version)
            document = int(rows.document_ids[mine[0]])
            self._chunks_of[version] = (document, ids if before is None else np.concatenate([before[1], ids]))
        self._owners = None

    def _retire(self, news: Changes) -> None:
        gone = [self._chunks_of.pop(version) for version in news.retired if version in self._chunks_of]
        if not gone:
            return
        ids = np.sort(np.concatenate([ids for _, ids in gone]))
        self.vectors.remove(ids)
        self.words.remove(ids)
        self._removed += len(ids)
        self._unsaved += len(ids)
        if self._stale_since is None:
            self._stale_since = time.monotonic()
        for document, _ in gone:
            self.attributes.remove(document)

    def _commit_words(self) -> None:
        self.words.commit()
        self._loose_since = time.monotonic()

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

    def __init__(
        self,
        database: Database,
        folder: Path,
        space_of: Callable[[Generation], Space],
        most_bytes: int = 4 << 30,
        warm: Callable[[Generation], object] = lambda _generation: None,
    ) -> None:
        """Over `most_bytes` of memory, about, the views that were not asked for longest are let go. `warm` is called
        with a generation that is ready to be live, once its view is open."""
        self._database = database
        self._most_bytes = most_bytes
        self._space_of = space_of
        self._snapshots = folder / "snapshots"
        self._shared = Shared()
        self._folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._views: dict[int, View] = {}
        self._lock = Lock()
        self._opening: dict[int, Lock] = {}
        self._stop = Event()
        sweep_folders(folder)
        self._sweep_snapshots()
        self._owner = _own(self._folder)
        self._warm = warm
        self._threads = [
            Thread(target=self._follow_all, name="views", daemon=True),
            Thread(target=self._warm_all, name="views-warm", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def get(self, generation: Generation, place: Place | None = None) -> View:
        """The view of a generation, opened if need be and up to date with everything acknowledged so far, or as far as
        this place."""
        with self._lock:
            opening = self._opening.setdefault(generation.id, Lock())
            view = self._views.get(generation.id)
        if view is None or view.released:
            with opening:
                view = self._views.get(generation.id)
                if view is None or view.released:
                    view = self._open(generation)
        view.used = time.monotonic()
        view.follow(place)
        return self.get(generation, place) if view.released else view

    def lagging(self, seconds: float) -> int:
        """How many open views have been behind the catalog for so long."""
        return sum(lag > seconds for lag in self.lags())

    def lags(self) -> list[float]:
        """For how many seconds each open view has been behind the catalog."""
        since = [view.behind_since for view in list(self._views.values())]
        return [0.0 if start is None else time.monotonic() - start for start in since]

    def close(self) -> None:
        """Stop following, close every view and remove the folder. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        with self._lock:
            views, self._views = list(self._views.values()), {}
        for view in views:
            view.release()
        self._shared.beside.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._owner.close()

    def _open(self, generation: Generation) -> View:
        view = View(
            self._database,
            generation,
            self._space_of(generation),
            self._folder / str(generation.id),
            self._snapshots / str(generation.id),
            self._shared,
        )
        view.follow()
        with self._lock:
            self._views[generation.id] = view
        self._make_room()
        return view

    def _make_room(self) -> None:
        """Let go of the views that were not asked for longest, but for the newest, until all fit."""
        with self._lock:
            by_use = sorted(self._views.items(), key=lambda item: item[1].used)
            total = sum(view.memory() for _, view in by_use)
            let_go = []
            for number, view in by_use[:-1]:
                if total <= self._most_bytes:
                    break
                total -= view.memory()
                let_go.append(self._views.pop(number))
        for view in let_go:
            view.release()

    def _sweep_snapshots(self) -> None:
        """Remove the snapshots of generations that are gone or retired: nobody opens a view that would notice."""
        if not self._snapshots.is_dir():
            return
        left = {folder.name: folder for folder in self._snapshots.iterdir()}
        # After the listing: a generation that is made meanwhile is not among what was left.
        with self._database.read() as connection:
            known = {str(found.id) for found in generations.all_generations(connection, FOLLOWING)}
        for name in left.keys() - known:
            shutil.rmtree(left[name], ignore_errors=True)

    def _follow_all(self) -> None:
        while not self._stop.wait(FOLLOW_EVERY):
            views = list(self._views.items())
            if not views:
                continue
            try:
                with self._database.read() as connection:
                    newest = generations.places(connection, [number for number, _ in views])
            except RagError as error:
                log.warning("views lag: %s", error)
                continue
            for number, view in views:
                self._keep_up(number, view, newest.get(number))
            self._make_room()

    def _warm_all(self) -> None:
        """Open the views of generations that are ready, where the live one of their store is open and there is room:
        the first question after a promotion is to find them."""
        said = ""
        while not self._stop.wait(WARM_EVERY):
            with self._lock:
                views = {view.generation.store_id: view for view in self._views.values()}
                open_ = set(self._views)
                used = sum(view.memory() for view in self._views.values())
            if not views:
                continue
            try:
                with self._database.read() as connection:
                    ready = generations.all_generations(connection, ("ready",), list(views))
                for generation in ready:
                    if generation.id in open_ or used + views[generation.store_id].memory() > self._most_bytes:
                        continue
                    if generation.vector_index not in REMOTE_INDEXES:
                        self.get(generation)
                    self._warm(generation)
            except RagError as error:
                if error.message != said:
                    said = error.message
                    log.warning("views that may soon be asked for are not opened: %s", error)
            except Exception:  # the first question opens it then
                log.exception("views that may soon be asked for are not opened")

    def _keep_up(self, number: int, view: View, place: Place | None) -> None:
        """Bring a view up to where its generation is; forget it when that is gone, or followed no more."""
        try:
            if place is None:
                with self._lock:
                    self._views.pop(number, None)
                view.release()
                shutil.rmtree(self._snapshots / str(number), ignore_errors=True)
            else:
                view.follow_to(place)
            view.compact_if_due()
            view.save_if_due()
        except RagError as error:
            log.warning("view of generation %d lags: %s", number, error)
        except Exception:  # one view's fault is not the others'
            log.exception("view of generation %d lags", number)


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
