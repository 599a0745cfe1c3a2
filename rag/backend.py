"""Everything that a process holds open: catalog, blobs, embedders, models, views."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import copy
from dataclasses import asdict
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock

import anyio
import numpy as np
from numpy.typing import NDArray

from indexes import require_keyword_index, require_vector_index
from indexes.errors import ChangeRequest, RagError, TryLater, Unsupported
from rag.access import Caller
from rag.activity import Activity, Unnoted
from rag.blobs import BlobStore, open_blobs, require_blobs
from rag.blobs import place_of as blobs_place
from rag.catalog import generations, stores
from rag.catalog.database import Database, open_database
from rag.catalog.engines import parse_url
from rag.catalog.records import Generation, Place, Store
from rag.embedders import Embedder, EmbedderRegistry, require_compared
from rag.embedders.onnx_encoder import cores
from rag.keys import Keys
from rag.meters import Meters
from rag.models.registry import EXTRACTIVE, ModelRegistry
from rag.relevance import Calibration, calibrate
from rag.remote import RemoteIndex, RemoteIndexes, is_remote, require_together
from rag.rerankers import RerankerRegistry
from rag.searchable import Searchable
from rag.settings import Settings, secret
from rag.spaces import Space, require_same_space
from rag.telemetry import Telemetry
from rag.texts import Texts
from rag.traces import TraceWriter
from rag.views import View, Views

log = logging.getLogger(__name__)

PREPARING = 4
"""Questions that are searched and packed at once, in threads. More would not be faster, and each further one keeps the
thread that sends all streams waiting for its turn (5 ms at a time)."""
SEARCHING = max(2, min(cores(), 4))
"""Questions that this machine itself searches at once. One computes a vector or reads an index while the other is in
Python; where more are in Python at once than there are cores, time goes into changing from one to the other: on two
cores, forty at once are a tenth fewer a second, and at 70 % load one in twenty waits 280 ms instead of 110."""
NAMING_SETTINGS = (
    *("catalog", "blobs", "embedder", "model", "vector_index", "keyword_index", "prompts", "retrieval.reranker"),
)
"""The settings that name what may not be there."""


class QuestionVectors:
    """Vectors of recent questions, by space and text. Safe to use from several threads."""

    def __init__(self, meters: Meters, capacity: int = 1024) -> None:
        self._kept: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._meters = meters
        self._capacity = capacity
        self._lock = Lock()

    def get(self, fingerprint: str, question: str, embed: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The vector of a question in a space, computed by `embed` when it is not kept."""
        key = fingerprint, question
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        self._meters.looked_up("question_vectors", found is not None)
        if found is not None:
            return found
        vector = embed()
        with self._lock:
            self._kept[key] = vector
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return vector

    def peek(self, fingerprint: str, question: str) -> NDArray[np.float32] | None:
        """The vector of a question in a space, None when it is not kept."""
        with self._lock:
            return self._kept.get((fingerprint, question))


class Backend:
    """One open installation. Safe to use from several threads; close it at the end.

    Raises TryLater (`data_unavailable`) when the data folder cannot be used, ChangeRequest and Unsupported for a
    setting that names what is not there.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self.settings = settings
        self.telemetry = telemetry or Telemetry(capture=settings.telemetry.capture)
        self.meters = Meters()
        self.caller = Caller(settings.tenant)
        """On whose behalf everything is done; at first the operator's."""
        self.embedders = EmbedderRegistry.from_tables(settings.embedders)
        self.rerankers = RerankerRegistry(settings.rerankers)
        for setting in NAMING_SETTINGS:
            require_named(settings, setting)
        require_together(settings.vector_index, settings.keyword_index)
        self.folder = usable_folder(settings.data)
        self.models = ModelRegistry(settings.models, settings.model, self.telemetry)
        self.database: Database = open_database(self.folder, secret(settings.catalog))
        self.blobs: BlobStore = open_blobs(self.folder, secret(settings.blobs))
        self.database.blobs = blobs_place(secret(settings.blobs))
        self.keys = Keys(self.database)
        self.texts = Texts(self.blobs)
        self.activity: Activity | Unnoted = Activity(self.database)
        self.views = Views(
            self.database, self.folder / "views", self.space, settings.views.memory_mb << 20, warm=self.embedder
        )
        self.remotes = RemoteIndexes(
            settings.qdrant, self.folder / "qdrant", self.database, lambda space_id: self._space_row(space_id)[0]
        )
        self.question_vectors = QuestionVectors(self.meters)
        self.preparing = anyio.CapacityLimiter(PREPARING)
        self._turns = BoundedSemaphore(SEARCHING)
        self.traces = TraceWriter(self.database, settings, self.meters)
        self.work_waiting = Event()
        """Set when documents were queued here, so that whoever runs the jobs need not wait for its next look."""
        self.background_waiting = Event()
        """Set when something was left here for the work in the background, likewise."""
        self._spaces: dict[int, tuple[Space, Calibration]] = {}
        self._builds: set[tuple[int, str]] = set()
        self._lock = Lock()

    def for_caller(self, caller: Caller) -> Backend:
        """The same open installation as this caller sees it. Only the first one is closed."""
        bound = copy(self)
        bound.caller = caller
        return bound

    def space(self, generation: Generation) -> Space:
        """The space that a generation's vectors live in."""
        return self._space_row(generation.space_id)[0]

    def calibration(self, generation: Generation) -> Calibration:
        """What a cosine means in a generation's space."""
        return self._space_row(generation.space_id)[1]

    def embedder(self, generation: Generation) -> Embedder:
        """The embedder of a generation, proven to make vectors of its space.

        Raises ChangeRequest (`space_mismatch`) when the alias now stands for another model, (`build_mismatch`) when
        it is computed in another way that was not compared with the original.
        """
        embedder = self.embedders.open(generation.embedder)
        require_same_space(self.space(generation), embedder.space, f"The store's generation {generation.id}")
        require_compared(generation.build, embedder)
        if (generation.space_id, embedder.build) not in self._builds:
            self._note_build(generation, embedder)
        return embedder

    def _note_build(self, generation: Generation, embedder: Embedder) -> None:
        """Have the catalog know the build. While it cannot be written to, that is left to a later process."""
        space_id, build = generation.space_id, embedder.build
        agreement = None if embedder.agreement is None else asdict(embedder.agreement)
        with suppress(RagError):
            with self.database.read() as connection:
                known = stores.knows_build(connection, space_id, build)
            if not known:
                with self.database.write() as connection:
                    known = not stores.note_build(connection, space_id, build, agreement)
            if not known and build != generation.build:
                log.info(
                    "Vectors of %s, made as %s, are now made as %s: %s.",
                    embedder.space.model,
                    generation.build,
                    build,
                    embedder.agreement or "the original",
                )
        self._builds.add((space_id, build))

    def view(self, generation: Generation, place: Place | None = None) -> View:
        """The generation's view, as far as a place that was just read, or else as the catalog is now."""
        return self.views.get(generation, place)

    def remote(self, generation: Generation) -> RemoteIndex | None:
        """The generation's index in an engine of its own; None where it has a view."""
        return self.remotes.of(generation) if is_remote(generation) else None

    def searchable(self, generation: Generation, place: Place | None = None) -> Searchable:
        """What answers for a generation, with everything that was acknowledged so far, or up to a place."""
        remote = self.remote(generation)
        return self.view(generation, place) if remote is None else remote  # an empty one is falsy

    def find_store(self, name: str) -> Store:
        """A store by public id or unique name. Raises NotThere."""
        with self.database.read() as connection:
            return stores.find_store(connection, self.caller, name)

    def live_generation(self, store: Store) -> Generation:
        """The generation of a store that answers."""
        with self.database.read() as connection:
            return generations.live_generation(connection, store.id)

    def generations_for(
        self, asked: Sequence[Store], named: str | None = None
    ) -> list[tuple[Store, Generation, Place]]:
        """What answers for each of these stores, and how far it is: the generation of this public id, if it is one of
        the store's, else the live one.

        Raises NotThere (`generation_not_found`) for one of another store, and ChangeRequest
        (`generation_not_searchable`) for one that is not kept up to date.
        """
        with self.database.read() as connection:
            found = None
            if named is not None:
                found = generations.find_generation(connection, [store.id for store in asked], named)
                if found is None:
                    raise generations.no_generation(named)
                generations.require_searchable(found)
            return [
                (store, found, generations.require_place(connection, found))
                if found is not None and found.store_id == store.id
                else (store, *generations.live_place(connection, store.id))
                for store in asked
            ]

    def turn(self, searched: Sequence[Generation]) -> AbstractContextManager[object]:
        """A turn at searching these generations, for which to wait. There is always one where most of the time is spent
        waiting for others: for a hosted embedder, or an engine of its own."""
        here = all(self.embedders.computes(one.embedder) and not is_remote(one) for one in searched)
        return self._turns if here else nullcontext()

    def ensure_space(self, embedder: Embedder) -> int:
        """The number of an embedder's space; a new space is calibrated first."""
        with self.database.read() as connection:
            found = stores.find_space(connection, embedder.space)
        if found is not None:
            return found
        calibration = calibrate(embedder).to_json()
        with self.database.write() as connection:
            return stores.ensure_space(connection, embedder.space, calibration)

    async def close(self) -> None:
        """Release everything. Idempotent."""
        await self.models.close()
        self.activity.close()
        self.traces.close()
        self.views.close()
        self.remotes.close()
        self.embedders.close()
        self.keys.close()
        self.database.close()

    def _space_row(self, space_id: int) -> tuple[Space, Calibration]:
        with self._lock:
            found = self._spaces.get(space_id)
        if found is None:
            with self.database.read() as connection:
                space, calibration = stores.get_space(connection, space_id)
            if calibration is None:
                raise ChangeRequest(
                    f"The space {space.fingerprint} has no calibration. Ingest the store again.", code="no_calibration"
                )
            found = space, Calibration.from_json(calibration)
            with self._lock:
                self._spaces[space_id] = found
        return found


def _known_embedder(settings: Settings) -> None:
    EmbedderRegistry.from_tables(settings.embedders).spec(settings.embedder)


def _known_reranker(settings: Settings) -> None:
    if settings.retrieval.reranker is not None:
        RerankerRegistry(settings.rerankers).spec(settings.retrieval.reranker)


def _known_model(settings: Settings) -> None:
    known = {EXTRACTIVE.name, *settings.models}
    if settings.model not in known:
        raise ChangeRequest(
            f"There is no model alias {settings.model!r}. Known: {', '.join(sorted(known))}.", code="model_not_found"
        )


def _there(settings: Settings) -> None:
    folder = settings.prompts
    if folder is not None and not folder.is_dir():
        raise ChangeRequest(f"There is no folder {folder}. Name one of prompt templates.", code="no_such_folder")


def _known_catalog(settings: Settings) -> None:
    if settings.catalog is not None:
        parse_url(settings.catalog.get_secret_value())


def _known_blobs(settings: Settings) -> None:
    if settings.blobs is not None:
        require_blobs(settings.blobs.get_secret_value())


_NAMED: Mapping[str, Callable[[Settings], object]] = {
    "catalog": _known_catalog,
    "blobs": _known_blobs,
    "embedder": _known_embedder,
    "model": _known_model,
    "vector_index": lambda settings: require_vector_index(settings.vector_index),
    "keyword_index": lambda settings: require_keyword_index(settings.keyword_index),
    "prompts": _there,
    "retrieval.reranker": _known_reranker,
}


def require_named(settings: Settings, setting: str) -> None:
    """See that what one of NAMING_SETTINGS names is there; nothing is opened.

    Raises ChangeRequest or Unsupported, naming the setting and where it was set.
    """
    try:
        _NAMED[setting](settings)
    except (ChangeRequest, Unsupported) as error:
        origin = settings.origins.get(setting, "default")
        message = f"The setting {setting} ({origin}): {error.message}"
        raise type(error)(message, code=error.code, param=setting) from error


def usable_folder(folder: Path) -> Path:
    """A data folder, made where it is absent. Raises TryLater (`data_unavailable`) when it cannot be used."""
    folder = folder.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.chmod(0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TryLater(
            f"The data folder {folder} cannot be used: {error.strerror}. "
            "Make it writable for this user, or name another one (--data, RAG_DATA).",
            code="data_unavailable",
        ) from error
    return folder
